//! What a misbehaving replica sends instead of what its cores want.
//!
//! Everything well-formed and properly sealed and signed with its own keys: what is not, costs a
//! faulty replica its connection and harms nobody. Not here: where this is interposed (the
//! hosts).

use std::sync::Arc;

use base::transfer::{StateAnswer, StateMessage};
use base::{
    Digest, Incarnation, Keyring, PillarId, Reader, ReplicaId, Reply, Seq, Signature, Span,
    StableCheckpoint, Time, View,
};
use proto::Target;
use proto::group::link::SliceEntry;
use proto::group::msg::{GroupMessage, NewView, ViewChange};
use proto::group::roster::Roster;
use proto::group::rules::Rules;
use proto::pbft::msg::{Checkpoint, Message, NullPhase, Proposal};

use super::{Drill, DrillSwitch, storm};

/// How often random bytes and forged messages are sent.
const PESTER_EVERY: Span = Span::millis(200);
/// How many random bytes at a time.
const GARBAGE_BYTES: usize = 512;

/// A misbehaving lane's, or coordinator's, way out.
pub(crate) struct Saboteur {
    drill: Drill,
    switch: DrillSwitch,
    scene: Scene,
    keys: Box<dyn Keyring>,
    /// How long a proposal is held back.
    delay: Span,
    held: Vec<(Time, Target, Message)>,
    pester_at: Time,
    random: u64,
}

/// Who misbehaves, where.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Scene {
    pub(crate) me: ReplicaId,
    pub(crate) pillar: PillarId,
    pub(crate) incarnation: Incarnation,
    pub(crate) rules: Rules,
    /// T of the view change.
    pub(crate) view_timeout: Span,
}

impl Saboteur {
    /// What `drill` comes to for one lane, while the switch is on.
    pub(crate) fn new(
        drill: Drill,
        switch: DrillSwitch,
        scene: Scene,
        keys: Box<dyn Keyring>,
    ) -> Saboteur {
        let delay = match drill {
            Drill::SlowLeader(Some(span)) => span,
            _ => Span(scene.view_timeout.0 / 10 * 8),
        };
        Saboteur {
            drill,
            switch,
            scene,
            keys,
            delay,
            held: Vec::new(),
            pester_at: Time::ZERO,
            random: 0x9e37_79b9_7f4a_7c15 ^ u64::from(scene.me.0),
        }
    }

    /// What leaves instead of `message`.
    pub(crate) fn peer_message(
        &mut self,
        now: Time,
        to: Target,
        message: Message,
    ) -> Vec<(Target, Message)> {
        if !self.switch.is_on() {
            return vec![(to, message)];
        }
        match (self.drill, message) {
            (Drill::Silent, _) => Vec::new(),
            (Drill::Equivocate, Message::PrePrepare { view, seq, proposal }) => {
                self.equivocate(to, view, (seq, proposal))
            }
            (Drill::SlowLeader(_), message) if proposes(&message) => {
                self.held.push((now.after(self.delay), to, message));
                Vec::new()
            }
            (Drill::StarvePillar(pillar), message)
                if pillar == self.scene.pillar && proposes(&message) =>
            {
                Vec::new()
            }
            (Drill::StarveReplica(victim), message) => {
                let to = self.each(to).filter(|replica| *replica != victim);
                to.map(|replica| (Target::One(replica), message.clone())).collect()
            }
            (Drill::WrongCheckpoint, Message::Checkpoint(checkpoint)) => {
                vec![(to, Message::Checkpoint(self.wrong_checkpoint(checkpoint)))]
            }
            (Drill::LyingSource, Message::State(message)) => {
                vec![(to, Message::State(Arc::new(lie(&message))))]
            }
            (_, message) => vec![(to, message)],
        }
    }

    /// What a client gets instead of `content`.
    pub(crate) fn reply(&self, content: &Arc<Vec<u8>>) -> Option<Arc<Vec<u8>>> {
        match self.drill {
            _ if !self.switch.is_on() => Some(Arc::clone(content)),
            Drill::Silent => None,
            Drill::WrongReply => {
                let mut wrong = content.to_vec();
                let reply = Reply::decode(&mut Reader::new(content));
                // The end of a reply is that of its last result, where that has one.
                let twistable =
                    reply.is_ok_and(|r| r.results().last().is_some_and(|r| !r.is_empty()));
                if let (true, Some(last)) = (twistable, wrong.last_mut()) {
                    *last ^= 1;
                }
                Some(Arc::new(wrong))
            }
            _ => Some(Arc::clone(content)),
        }
    }

    /// What is due by now: what was held back, and what nobody asked for. `view` is the view
    /// that this replica is in.
    pub(crate) fn due(&mut self, now: Time, view: View) -> Vec<(Target, Message)> {
        let due = self.held.extract_if(.., |(at, ..)| *at <= now);
        let mut all: Vec<_> = due.map(|(_, to, message)| (to, message)).collect();
        if !self.pesters() || self.pester_at > now {
            return all;
        }
        if self.drill == Drill::ViewStorm {
            self.pester_at = now.after(storm::EVERY);
            let (scene, luck) = (self.scene, self.random());
            let storm = storm::burst(&scene, &*self.keys, view, luck).into_iter();
            all.extend(storm.map(|message| (Target::All, Message::Group(Arc::new(message)))));
        }
        if self.drill == Drill::ForgedViewChange {
            self.pester_at = now.after(PESTER_EVERY);
            all.extend(
                self.forge(view)
                    .into_iter()
                    .map(|message| (Target::All, Message::Group(Arc::new(message)))),
            );
        }
        all
    }

    /// Random bytes for everybody, now and then.
    pub(crate) fn garbage(&mut self, now: Time) -> Option<Vec<u8>> {
        if self.drill != Drill::Garbage || !self.pesters() || self.pester_at > now {
            return None;
        }
        self.pester_at = now.after(PESTER_EVERY);
        Some((0..GARBAGE_BYTES).map(|_| self.random().to_le_bytes()[3]).collect())
    }

    /// When [`Saboteur::due`] or [`Saboteur::garbage`] next has something.
    pub(crate) fn next_time(&self) -> Option<Time> {
        let held = self.held.iter().map(|(at, ..)| *at);
        held.chain(self.pesters().then_some(self.pester_at)).min()
    }

    /// Whether it sends, at the moment, what nobody asked for.
    fn pesters(&self) -> bool {
        let ever =
            matches!(self.drill, Drill::Garbage | Drill::ForgedViewChange | Drill::ViewStorm);
        ever && self.switch.is_on()
    }

    /// Who `to` is, one by one.
    fn each(&self, to: Target) -> impl Iterator<Item = ReplicaId> + use<> {
        let (n, me) = (self.scene.rules.quorums.n(), self.scene.me);
        let meant = move |replica: &ReplicaId| match to {
            Target::All => *replica != me,
            Target::One(one) => *replica == one,
        };
        (0..n).map(ReplicaId).filter(meant)
    }

    /// Half of the backups get a batch of another time.
    fn equivocate(
        &self,
        to: Target,
        view: View,
        (seq, proposal): (Seq, Proposal),
    ) -> Vec<(Target, Message)> {
        let mut other = proposal.clone();
        if let Proposal::Frames { time, .. } = &mut other {
            time.0 += 1;
        }
        self.each(to)
            .map(|replica| {
                let proposal = if replica.0 % 2 == 0 { proposal.clone() } else { other.clone() };
                (Target::One(replica), Message::PrePrepare { view, seq, proposal })
            })
            .collect()
    }

    fn wrong_checkpoint(&self, right: Checkpoint) -> Checkpoint {
        let mut digest = right.digest;
        digest.0[0] ^= 1;
        let rules = self.scene.rules;
        let bytes = Checkpoint::signed_bytes(rules.group, rules.epoch, right.seq, digest);
        Checkpoint { seq: right.seq, digest, signature: self.keys.sign(&bytes) }
    }

    /// A VIEW-CHANGE and a NEW-VIEW that break the rules.
    fn forge(&mut self, view: View) -> Vec<GroupMessage> {
        let n = u64::from(self.scene.rules.quorums.n());
        let Scene { me, incarnation, rules, .. } = self.scene;
        // The next view that this replica would lead.
        let ahead = (u64::from(me.0) + n - view.0 % n - 1) % n + 1;
        let view = View(view.0 + ahead);
        let digest = Digest([self.random().to_le_bytes()[0]; 32]);
        let entry = SliceEntry {
            seq: Seq(1),
            prepared: Some((view, digest)),
            pre_prepared: vec![(view, digest)],
        };
        let mut change = ViewChange {
            replica: me,
            incarnation,
            view,
            stable: StableCheckpoint::default(),
            entries: vec![entry],
            roster: Roster::default(),
            signature: Signature([0; 64]),
        };
        let digest = rules.change_digest(&change);
        change.signature = self.keys.sign(&rules.change_signed(digest));
        let signed = rules.new_view_signed(view, &[(digest, change.signature)]);
        let signature = self.keys.sign(&signed);
        let change = Arc::new(change);
        let new_view = NewView { view, changes: vec![Arc::clone(&change)], signature };
        vec![GroupMessage::ViewChange(change), GroupMessage::NewView(Arc::new(new_view))]
    }

    fn random(&mut self) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.random
    }
}

/// Whether a leader proposes something with it.
fn proposes(message: &Message) -> bool {
    match message {
        Message::PrePrepare { .. } => true,
        Message::Nulls(nulls) => nulls.phase == NullPhase::PrePrepare,
        _ => false,
    }
}

/// The answer of a source that lies about what it holds.
fn lie(message: &StateMessage) -> StateMessage {
    let mut message = message.clone();
    if let StateMessage::Tell { answer, .. } = &mut message {
        match answer {
            StateAnswer::Manifest(manifest) => manifest.service.0[0] ^= 1,
            StateAnswer::Nodes { digests, .. } => {
                digests.iter_mut().take(1).for_each(|digest| digest.0[0] ^= 1);
            }
            StateAnswer::Object { bytes, .. } => {
                bytes.iter_mut().take(1).for_each(|byte| *byte ^= 1);
            }
            StateAnswer::Gone => {}
        }
    }
    message
}
