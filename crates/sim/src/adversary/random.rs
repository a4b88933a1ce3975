//! What comes to mind at random: messages that nothing justifies, old ones, none.

use base::{AgreedTime, BatchEntry, Digest, Reader, Seq, Signature, View};
use proto::pbft::msg::{Checkpoint, Message, NullPhase, Nulls, Proposal, Vote};

use super::Adversary;
use crate::host::GROUP;
use crate::prng::Ratio;

impl Adversary {
    /// What the faulty replica sends instead of `message`.
    pub(super) fn twist(&mut self, message: Message) -> Vec<Message> {
        match self.prng.below(8) {
            0 => Vec::new(),
            1 => self.invent().into_iter().collect(),
            2 => self.invent().into_iter().chain([message]).collect(),
            3 => self.replay().into_iter().chain([message]).collect(),
            _ => vec![message],
        }
    }

    fn replay(&mut self) -> Option<Message> {
        let at = self.prng.below(self.heard.len() as u64);
        self.heard.get(at as usize).cloned()
    }

    /// A message that nothing justifies, if it can be put on the wire.
    pub fn invent(&mut self) -> Option<Message> {
        let (view, seq, digest) = (self.view(), self.seq(), self.digest());
        let vote = Vote { view, seq, digest };
        let message = match self.prng.below(9) {
            0 => Message::PrePrepare { view, seq, proposal: self.proposal() },
            1 if self.prng.chance(Ratio(1, 4)) => {
                let phase = NullPhase::ALL[self.prng.below(3) as usize];
                let count = 2 + self.prng.below(9) as u8;
                Message::Nulls(Nulls { phase, view, first: seq, count })
            }
            1 => Message::Prepare(vote),
            2 => Message::Commit(vote),
            3 => Message::Vouch { executed: seq, entries: self.some_entries() },
            4 => Message::Fetch { seq, entries: self.some_entries() },
            5 => {
                let vouched = self.prng.chance(Ratio(1, 2));
                let at = self.prng.below(self.frames.len() as u64) as usize;
                // What no client has sent it cannot authenticate.
                let frame = self.frames.get(at).cloned()?;
                match self.prng.below(4) {
                    0 => Message::Forward(frame),
                    _ => Message::Body { vouched, frame },
                }
            }
            6 => Message::Checkpoint(Checkpoint { seq, digest, signature: Signature([3; 64]) }),
            7 => Message::Status { view, stable: self.seq(), delivered: self.seq() },
            _ => Message::Decided { seq, proposal: self.proposal() },
        };
        let mut bytes = Vec::new();
        message.encode(&mut bytes);
        Message::decode(GROUP, &mut Reader::new(&bytes)).ok()
    }

    fn view(&mut self) -> View {
        let near = self.heard.iter().rev().find_map(|message| match message {
            Message::Prepare(vote) | Message::Commit(vote) => Some(vote.view.0),
            _ => None,
        });
        let near = near.unwrap_or(0);
        View([near, near, near, 0, near.saturating_add(1), u64::MAX][self.prng.below(6) as usize])
    }

    fn seq(&mut self) -> Seq {
        let near = self.heard.iter().rev().find_map(|message| match message {
            Message::Prepare(vote) | Message::Commit(vote) => Some(vote.seq.0),
            _ => None,
        });
        let near = near.unwrap_or(1);
        let k = self.rules.checkpoint_interval;
        Seq(match self.prng.below(8) {
            0 => [0, 1, u64::MAX >> 1, u64::MAX][self.prng.below(4) as usize],
            1 => self.prng.below(100),
            2 => near + self.prng.below(2000),
            3 => near / k * k + k * self.prng.below(4),
            _ => near.saturating_sub(4) + self.prng.below(12),
        })
    }

    fn digest(&mut self) -> Digest {
        let at = self.prng.below(self.heard.len() as u64);
        match self.heard.get(at as usize) {
            Some(Message::Prepare(vote) | Message::Commit(vote)) => vote.digest,
            Some(Message::Checkpoint(checkpoint)) => checkpoint.digest,
            _ => Digest([self.prng.below(2) as u8; 32]),
        }
    }

    fn some_entries(&mut self) -> Vec<BatchEntry> {
        let count = self.prng.below(6);
        let mut entries = Vec::new();
        for _ in 0..count {
            let at = self.prng.below(self.entries.len() as u64) as usize;
            let Some(mut entry) = self.entries.get(at).copied() else { break };
            match self.prng.below(4) {
                0 => entry.digest.0[0] ^= 1,
                1 => entry.id.id = self.prng.next_u64(),
                _ => {}
            }
            entries.push(entry);
        }
        entries
    }

    fn proposal(&mut self) -> Proposal {
        if self.prng.chance(Ratio(1, 3)) {
            return Proposal::Null;
        }
        let time = [0, 1_700_000_000_000_000_000, u64::MAX][self.prng.below(3) as usize];
        Proposal::Frames { time: AgreedTime(time), entries: self.some_entries() }
    }
}
