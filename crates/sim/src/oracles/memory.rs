//! Bounded memory (catalogue O8, design §6): what a correct replica holds is bounded by its
//! configuration and by what is under way, whatever the others send, for how long it runs, and
//! however often leaders change.
//!
//! Looks, once in a while, at what lanes, stage and log of every correct replica count: slots,
//! votes per slot, proposals per slot, signatures of checkpoints, early messages, frames in all
//! and per client and peer, places that wait for them; batches that wait in the merge, sessions,
//! bytes of cached replies, of pinned checkpoints, of objects in the making. The bounds follow
//! from windows, from what a log keeps for a restart, and from quotas. What is kept for every
//! number passes them within a run if it leaks; what is bounded by a client's or peer's quota only
//! if the quota is not kept. Does not see what nobody counts, nor bytes of the allocator.

use std::collections::BTreeMap;

use base::limits::{
    PENDING_BYTES_PER_CLIENT_MAX, PENDING_FRAMES_PER_CLIENT_MAX, REPLICAS_MAX,
    SESSIONS_PER_CLIENT_MAX, STREAM_WINDOW,
};
use base::{PillarId, ReplicaId};
use exec::stage::Stage;
use proto::pbft::Holdings;

use super::Verdict;
use crate::options::Options;

/// The largest of everything that was seen.
#[derive(Clone, Copy, Debug, Default)]
pub struct Peak {
    /// Of a lane.
    pub lane: Holdings,
    /// Batches that waited in a merge.
    pub merge: u64,
    /// Bytes of cached replies.
    pub replies: usize,
    /// Bytes of pinned checkpoints and of objects in the making.
    pub pinned: u64,
}

/// What a life finds in the log of an earlier one.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Found {
    /// Numbers of which it says something, for each pillar.
    pub numbers: Vec<usize>,
    /// A checkpoint is on disk beside it, so that it could be cut.
    pub saved: bool,
}

/// What must not be exceeded in a world.
#[derive(Debug)]
pub struct Memory {
    options: Options,
    /// Numbers that a replica found in its log when its life began, per pillar.
    restored: BTreeMap<(ReplicaId, PillarId), usize>,
    peak: Peak,
}

impl Memory {
    /// The bounds of a world.
    #[must_use]
    pub fn new(options: &Options) -> Memory {
        Memory { options: *options, restored: BTreeMap::new(), peak: Peak::default() }
    }

    /// The largest of everything that was seen.
    #[must_use]
    pub fn peak(&self) -> Peak {
        self.peak
    }

    /// A life begins with what the log of an earlier one says.
    ///
    /// # Errors
    /// When that is too much.
    pub fn reborn(&mut self, replica: ReplicaId, found: &Found) -> Verdict {
        for (pillar, numbers) in (0..).map(PillarId).zip(&found.numbers) {
            self.restored.insert((replica, pillar), *numbers);
        }
        let all: usize = found.numbers.iter().sum();
        let most = if found.saved { RECORDS } else { RECORDS_UNCUT };
        match all > most {
            true => Err(format!("the log of {replica:?} has {all} numbers, {most} at most")),
            false => Ok(()),
        }
    }

    /// What a lane holds.
    ///
    /// # Errors
    /// When that is too much.
    pub fn lane(&mut self, replica: ReplicaId, pillar: PillarId, held: &Holdings) -> Verdict {
        self.note(held);
        let Options { n, window, checkpoint_interval: k, pillars, clients, .. } = self.options;
        let (n, clients) = (usize::from(n).min(REPLICAS_MAX), clients as usize + 1);
        let stripe = usize::try_from(window / u64::from(pillars)).unwrap_or(usize::MAX) + 1;
        let restored = self.restored.get(&(replica, pillar)).copied().unwrap_or(0);
        let of_client = PROPOSED * PENDING_FRAMES_PER_CLIENT_MAX;
        let behind = restored * usize::from(pillars);
        let per_window = (6 * window / k) as usize + 2 + behind.div_ceil(k as usize);
        let frames = &held.frames;
        let bounds = [
            ("slots", held.slots, 4 * stripe + restored),
            ("votes of a slot", held.votes, n),
            ("proposals of a slot", held.proposals, n),
            ("checkpoints", held.checkpoints, per_window.max(SIGNED)),
            ("early messages of a sender", held.early.messages, 3 * stripe),
            ("frames of a client", frames.of_one_client, of_client),
            (
                "bytes of a client",
                frames.bytes_of_one_client,
                PROPOSED * PENDING_BYTES_PER_CLIENT_MAX,
            ),
            ("names of a peer", frames.of_one_peer, NAMES_OF_PEER),
            ("names of frames", frames.names, clients * of_client + n * NAMES_OF_PEER),
            ("places that wait", frames.wants, (4 * stripe + restored) * BATCH),
            ("names that are queued", frames.queued, 2 * (clients * of_client + n * NAMES_OF_PEER)),
            ("names of executed frames", frames.recent, RECENT),
        ];
        let over = bounds.into_iter().find(|(_, held, most)| held > most);
        match over {
            Some((what, held, most)) => {
                Err(format!("{replica:?} {pillar:?} holds {held} {what}, {most} at most"))
            }
            None => Ok(()),
        }
    }

    /// What a stage holds.
    ///
    /// # Errors
    /// When that is too much.
    pub fn stage(&mut self, replica: ReplicaId, stage: &Stage) -> Verdict {
        let report = stage.report();
        // While it fetches, batches above the target wait.
        let base = report.executed.max(report.transfer.target.unwrap_or_default());
        let merge = report.highest.0.saturating_sub(base.0);
        let replies = stage.sessions().cached_bytes();
        let pinned = report.transfer.saved_bytes + report.transfer.buffered_bytes;
        let peak = &mut self.peak;
        peak.merge = peak.merge.max(merge);
        peak.replies = peak.replies.max(replies);
        peak.pinned = peak.pinned.max(pinned);
        let clients = u64::from(self.options.clients);
        // The faulty client opens as many as it may.
        let sessions = clients + SESSIONS_PER_CLIENT_MAX as u64;
        let streams = sessions * STREAM_WINDOW * STREAMS;
        let bounds = [
            ("batches that wait", merge, 2 * self.options.window),
            ("sessions", report.sessions, sessions),
            ("bytes of cached replies", replies as u64, streams * REPLY_BYTES),
            ("bytes of checkpoints", pinned, PINNED_BYTES),
        ];
        let over = bounds.into_iter().find(|(_, held, most)| held > most);
        match over {
            Some((what, held, most)) => {
                Err(format!("{replica:?} holds {held} {what}, {most} at most"))
            }
            None => Ok(()),
        }
    }

    fn note(&mut self, held: &Holdings) {
        let peak = &mut self.peak.lane;
        let raise = |peak: &mut usize, held: usize| *peak = held.max(*peak);
        raise(&mut peak.slots, held.slots);
        raise(&mut peak.votes, held.votes);
        raise(&mut peak.proposals, held.proposals);
        raise(&mut peak.checkpoints, held.checkpoints);
        raise(&mut peak.early.messages, held.early.messages);
        raise(&mut peak.early.bytes, held.early.bytes);
        raise(&mut peak.frames.names, held.frames.names);
        raise(&mut peak.frames.of_one_client, held.frames.of_one_client);
        raise(&mut peak.frames.bytes_of_one_client, held.frames.bytes_of_one_client);
        raise(&mut peak.frames.of_one_peer, held.frames.of_one_peer);
        raise(&mut peak.frames.wants, held.frames.wants);
        raise(&mut peak.frames.queued, held.frames.queued);
        raise(&mut peak.frames.recent, held.frames.recent);
    }
}

/// Signatures of its own that a lane keeps, however few checkpoints a window has.
const SIGNED: usize = 16;
/// How far proposed frames may exceed a client's quota, in times it.
const PROPOSED: usize = 4;
/// Names that a lane keeps on the word of one peer.
const NAMES_OF_PEER: usize = 16_384;
/// Names of executed frames that a lane remembers.
const RECENT: usize = 8_192;
/// Numbers that a log may speak of at a start: those since the checkpoint before the last one on
/// disk, and as many as are agreed on while that one is written.
const RECORDS: usize = 8_192;
/// The same before there is a checkpoint on disk. What calls for one is bytes, numbers may be
/// small, and nothing is cut until the first is written: swarm seed 1707273 agrees on 16,448 within
/// 70 ms.
const RECORDS_UNCUT: usize = 32_768;
/// Bytes of a reply at most, of those that services here give.
const REPLY_BYTES: u64 = 8_192;
/// Frames of a batch at most.
const BATCH: usize = 64;
/// Streams of a session.
const STREAMS: u64 = 8;
/// Bytes that checkpoints take at most: the whole state, twice.
const PINNED_BYTES: u64 = 4 << 20;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::work::Work;
    use base::{GroupId, Stripe};
    use exec::stage::StageConfig;

    #[test]
    fn too_much_of_anything_is_seen() {
        let over = |alter: fn(&mut Holdings)| {
            let mut held = Holdings::default();
            alter(&mut held);
            let mut memory = Memory::new(&Options::default());
            memory.lane(ReplicaId(0), PillarId(0), &held).is_err()
        };
        assert!(!over(|_| ()));
        assert!(!over(|held| held.slots = 64));
        assert!(over(|held| held.slots = 1_300), "a slot for every number of a run");
        assert!(over(|held| held.votes = 5), "messages are counted and not senders");
        assert!(over(|held| held.proposals = 5));
        assert!(over(|held| held.checkpoints = 200));
        assert!(over(|held| held.early.messages = 100));
        assert!(over(|held| held.frames.of_one_client = 5_000));
        assert!(over(|held| held.frames.bytes_of_one_client = 1 << 30));
        assert!(over(|held| held.frames.of_one_peer = 20_000));
        assert!(over(|held| held.frames.names = 1 << 20));
        assert!(over(|held| held.frames.queued = 1 << 20));
        assert!(over(|held| held.frames.wants = 1 << 20));
        assert!(over(|held| held.frames.recent = 8_193));
    }

    #[test]
    fn a_life_may_hold_what_its_log_has_left_and_no_more() {
        let (r0, p0) = (ReplicaId(0), PillarId(0));
        let mut memory = Memory::new(&Options::default());
        let held = |slots| Holdings { slots, ..Holdings::default() };
        assert!(memory.lane(r0, p0, &held(1_000)).is_err());
        let found = |numbers, saved| Found { numbers: vec![numbers], saved };
        assert_eq!(memory.reborn(r0, &found(1_000, true)), Ok(()));
        assert_eq!(memory.lane(r0, p0, &held(1_000)), Ok(()));
        assert!(memory.lane(r0, p0, &held(1_300)).is_err(), "a slot for each number of a gap");
        assert!(memory.lane(ReplicaId(1), p0, &held(1_000)).is_err(), "that was another's log");
        assert!(memory.reborn(r0, &found(9_000, true)).is_err(), "a log that is never cut");
        assert_eq!(memory.reborn(r0, &found(17_000, false)), Ok(()), "nothing lets it be cut");
        assert!(memory.reborn(r0, &found(33_000, false)).is_err(), "no checkpoint ever comes");
    }

    #[test]
    fn a_lane_keeps_its_last_signatures_where_a_window_has_few_checkpoints() {
        let options = Options { checkpoint_interval: 32, window: 64, ..Options::default() };
        let mut memory = Memory::new(&options);
        let held = |checkpoints| Holdings { checkpoints, ..Holdings::default() };
        assert_eq!(memory.lane(ReplicaId(0), PillarId(0), &held(16)), Ok(()));
        assert!(memory.lane(ReplicaId(0), PillarId(0), &held(17)).is_err());
    }

    #[test]
    fn a_merge_that_holds_too_much_is_seen() {
        let config = StageConfig {
            group: GroupId([7; 32]),
            stripe: Stripe::new(1).expect("one"),
            checkpoint_interval: 8,
            window: 1_000,
            nulls_ahead: false,
            replicas: 4,
        };
        let mut stage = Stage::new(config, Work::Counters.service());
        let mut memory = Memory::new(&Options::default());
        assert_eq!(memory.stage(ReplicaId(0), &stage), Ok(()));
        let batch = crate::oracles::testing::batch(&[]);
        let deliver = base::ToStage::Deliver { seq: base::Seq(70), batch };
        assert_eq!(stage.on(deliver, &mut exec::StageOutbox::new()), Ok(()));
        assert!(memory.stage(ReplicaId(0), &stage).is_err(), "the window is 32");
    }
}
