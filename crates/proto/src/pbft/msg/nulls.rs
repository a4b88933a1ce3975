//! Messages about null batches for several numbers in a row.
//!
//! A run says what its messages say one after the other and nothing else: it is taken apart before
//! anybody looks at it. Who makes runs, and when: `idle`.

use alloc::vec::Vec;

use base::batch::null_digest;
use base::{Digest, GroupId, Malformed, Reader, Seq, Stripe, View, Writer};

use super::{Message, Proposal, Vote, decode_seq};

/// Most numbers in a run.
pub const RUN_MAX: u8 = 64;

/// Which of the three phases a run is of.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum NullPhase {
    /// PRE-PREPARE.
    PrePrepare,
    /// PREPARE.
    Prepare,
    /// COMMIT.
    Commit,
}

impl NullPhase {
    /// All of them, in the order of the protocol.
    pub const ALL: [NullPhase; 3] = [NullPhase::PrePrepare, NullPhase::Prepare, NullPhase::Commit];
}

/// PRE-PREPARE, PREPARE or COMMIT of the null batch, for several numbers of the pillar in a row.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Nulls {
    /// Which of them.
    pub phase: NullPhase,
    /// The view.
    pub view: View,
    /// The first number.
    pub first: Seq,
    /// How many numbers, `2..=RUN_MAX`.
    pub count: u8,
}

impl Nulls {
    /// The messages that it is short for, ascending.
    pub fn each(self, group: GroupId, stripe: Stripe) -> impl Iterator<Item = Message> {
        self.seqs(stripe).map(move |seq| self.one(seq, null_digest(group, seq)))
    }

    /// The numbers that it is about, ascending.
    pub(crate) fn seqs(self, stripe: Stripe) -> impl Iterator<Item = Seq> {
        let apart = u64::from(stripe.pillars());
        (0..u64::from(self.count)).map(move |place| Seq(self.first.0 + place * apart))
    }

    /// The message that it is short for at `seq`, where the null batch has this digest.
    pub(crate) fn one(self, seq: Seq, digest: Digest) -> Message {
        let Nulls { phase, view, .. } = self;
        let vote = Vote { view, seq, digest };
        match phase {
            NullPhase::PrePrepare => Message::PrePrepare { view, seq, proposal: Proposal::Null },
            NullPhase::Prepare => Message::Prepare(vote),
            NullPhase::Commit => Message::Commit(vote),
        }
    }

    /// The run with the number behind it, if `view` and `seq` fit and there is room.
    pub(crate) fn and(self, view: View, seq: Seq, stripe: Stripe) -> Option<Nulls> {
        let next = self.first.0 + u64::from(self.count) * u64::from(stripe.pillars());
        let fits = self.view == view && next == seq.0 && self.count < RUN_MAX;
        fits.then_some(Nulls { count: self.count + 1, ..self })
    }

    pub(super) fn encode(self, kind: u8, out: &mut Vec<u8>) {
        let Nulls { phase, view, first, count } = self;
        let phase = 1 + phase as u8;
        Writer::new(out).u8(kind).u8(phase).u64(view.0).u64(first.0).u8(count);
    }

    pub(super) fn decode(r: &mut Reader<'_>) -> Result<Nulls, Malformed> {
        let phase = usize::from(r.u8("phase of nulls")?).checked_sub(1);
        let phase =
            phase.and_then(|at| NullPhase::ALL.get(at)).ok_or(Malformed("phase of nulls"))?;
        let (view, first) = (View(r.u64("view of nulls")?), decode_seq(r)?);
        let count = r.u8("count of nulls")?;
        if !(2..=RUN_MAX).contains(&count) {
            return Err(Malformed("count of nulls"));
        }
        Ok(Nulls { phase: *phase, view, first, count })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::vec;

    #[test]
    fn a_run_is_its_messages_one_after_the_other() {
        let (group, stripe) = (GroupId([3; 32]), Stripe::new(4).expect("in range"));
        let run = |phase| Nulls { phase, view: View(5), first: Seq(6), count: 3 };
        let each = |phase| run(phase).each(group, stripe).collect::<Vec<_>>();
        let seqs = [6, 10, 14].map(Seq);
        let vote = |seq| Vote { view: View(5), seq, digest: null_digest(group, seq) };
        let proposed =
            seqs.map(|seq| Message::PrePrepare { view: View(5), seq, proposal: Proposal::Null });
        assert_eq!(each(NullPhase::PrePrepare), proposed);
        assert_eq!(each(NullPhase::Prepare), seqs.map(|seq| Message::Prepare(vote(seq))));
        assert_eq!(each(NullPhase::Commit), seqs.map(|seq| Message::Commit(vote(seq))));
    }

    #[test]
    fn a_run_of_none_one_or_too_many_is_no_message() {
        for (count, good) in [(0, false), (1, false), (2, true), (RUN_MAX, true)] {
            let run = Nulls { phase: NullPhase::Commit, view: View(1), first: Seq(2), count };
            let mut bytes = vec![];
            run.encode(15, &mut bytes);
            let got = Nulls::decode(&mut Reader::new(&bytes[1..]));
            assert_eq!(got, if good { Ok(run) } else { Err(Malformed("count of nulls")) });
            bytes[18] = RUN_MAX + 1;
            assert!(Nulls::decode(&mut Reader::new(&bytes[1..])).is_err());
            for phase in [0, 4, 255] {
                bytes[1] = phase;
                let got = Nulls::decode(&mut Reader::new(&bytes[1..]));
                assert_eq!(got, Err(Malformed("phase of nulls")));
            }
        }
    }
}
