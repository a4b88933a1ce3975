//! Answers other replicas about the checkpoint that is pinned for them.
//!
//! Every asker has a queue and an allowance of bytes per second ([`Pace`]); a turn serves one
//! asker after the other up to a bound. Requests beyond the queue, and requests for what does not
//! exist, are dropped and counted: a correct replica sends neither.

use alloc::collections::{BTreeMap, VecDeque};
use alloc::sync::Arc;
use alloc::vec::Vec;

use base::transfer::{Manifest, PIECE_BYTES_MAX, Part, StateAnswer, StateMessage, StateRequest};
use base::{FromStage, ReplicaId, Seq, Time};

use super::pace::{Load, Pace};
use crate::stage::StageOutbox;
use crate::state::State;
use crate::tree::FAN_OUT;

/// Most requests of one asker that wait.
pub const ASKS_MAX: usize = 64;
/// What an answer costs beyond its bytes.
const ANSWER_BYTES: usize = 128;
/// Bytes of objects larger than a piece that are kept while their pieces are asked for; a single
/// larger one may be kept, alone.
const CACHED_BYTES_MAX: usize = 64 << 20;
/// What it costs to read an object, as a part of its bytes. While it is paid for, the source says
/// nothing, so that it must not take long.
const READ_COST: usize = 32;

/// The asked side of state transfer.
#[derive(Debug)]
pub(crate) struct Source {
    replicas: u16,
    askers: BTreeMap<ReplicaId, Asker>,
    /// Who was served last.
    turn: Option<ReplicaId>,
    /// Large objects, the last one used at the end.
    cached: VecDeque<(Seq, Part, u32, Arc<Vec<u8>>)>,
    /// Memory for the next object that is read; small ones leave it here.
    scratch: Vec<u8>,
    now: Time,
    load: Load,
    pub(crate) bytes: u64,
    pub(crate) dropped: u64,
}

#[derive(Debug)]
struct Asker {
    queue: VecDeque<Ask>,
    pace: Pace,
}

#[derive(Debug)]
struct Ask {
    checkpoint: Seq,
    request: StateRequest,
    /// Objects of it that are answered.
    done: usize,
}

/// What serving ended with.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Served {
    /// Nobody waits.
    All,
    /// Somebody can be served in the next turn.
    More,
    /// Whoever waits has used up its allowance: only time helps.
    Throttled,
}

impl Source {
    /// A source in a group of so many replicas.
    pub(crate) fn new(replicas: u16) -> Source {
        Source {
            replicas,
            askers: BTreeMap::new(),
            turn: None,
            cached: VecDeque::new(),
            scratch: Vec::new(),
            now: Time::ZERO,
            load: Load::default(),
            bytes: 0,
            dropped: 0,
        }
    }

    /// Takes in a request.
    pub(crate) fn ask(&mut self, from: ReplicaId, checkpoint: Seq, request: StateRequest) {
        let fresh = || Asker { queue: VecDeque::new(), pace: Pace::new(self.load, self.replicas) };
        let asker = self.askers.entry(from).or_insert_with(fresh);
        asker.pace.asked(self.now, checkpoint);
        if asker.queue.len() >= ASKS_MAX {
            self.dropped += 1;
            return;
        }
        asker.queue.push_back(Ask { checkpoint, request, done: 0 });
    }

    /// It is `now`, and so many operations were executed so far.
    pub(crate) fn tick(&mut self, now: Time, ops: u64) {
        let passed = now.since(self.now);
        self.now = self.now.max(now);
        self.load.tick(self.now, ops);
        for asker in self.askers.values_mut() {
            asker.pace.tick(passed, self.load);
        }
    }

    /// Whether somebody waits for an answer.
    pub(crate) fn is_idle(&self) -> bool {
        self.askers.values().all(|asker| asker.queue.is_empty())
    }

    /// Whether somebody who waits has an allowance.
    pub(crate) fn may_serve(&self) -> bool {
        self.next_asker().is_some()
    }

    /// Forgets everything that is kept of pinned objects.
    pub(crate) fn forget(&mut self) {
        self.cached.clear();
    }

    /// Bytes of large objects that are kept.
    pub(crate) fn cached_bytes(&self) -> usize {
        self.cached.iter().map(|(.., bytes)| bytes.len()).sum()
    }

    /// Answers within the bounds of one turn, about the checkpoint `held`, if there is one.
    pub(crate) fn serve(
        &mut self,
        held: Option<&Manifest>,
        state: &State,
        out: &mut StageOutbox,
    ) -> Served {
        let mut left = self.load.bytes_per_turn();
        loop {
            let Some(from) = self.next_asker() else {
                return if self.is_idle() { Served::All } else { Served::Throttled };
            };
            if left == 0 {
                return Served::More;
            }
            self.turn = Some(from);
            let spent = self.answer(from, held, state, out);
            left = left.saturating_sub(spent);
        }
    }

    /// The next one, in turn, that waits and has an allowance.
    fn next_asker(&self) -> Option<ReplicaId> {
        let ready =
            |(_, asker): &(&ReplicaId, &Asker)| !asker.queue.is_empty() && asker.pace.may_have();
        let after = |(id, _): &(&ReplicaId, &Asker)| self.turn.is_none_or(|turn| **id > turn);
        let mut others = self.askers.iter().filter(ready);
        let next = self.askers.iter().filter(after).find(ready).or_else(|| others.next());
        next.map(|(id, _)| *id)
    }

    /// Gives one answer to the first request of `from`, and returns what it costs.
    fn answer(
        &mut self,
        from: ReplicaId,
        held: Option<&Manifest>,
        state: &State,
        out: &mut StageOutbox,
    ) -> usize {
        let asker = self.askers.get_mut(&from).expect("it was chosen among the askers");
        let mut ask = asker.queue.pop_front().expect("it was chosen because it waits");
        let (checkpoint, mut read) = (ask.checkpoint, 0);
        let answer = match held.filter(|held| held.seq == checkpoint) {
            None => Some(StateAnswer::Gone),
            Some(held) => {
                let (answer, more) = self.look_up(held, state, &mut ask, &mut read);
                if more {
                    let asker = self.askers.get_mut(&from).expect("nobody removed it");
                    asker.queue.push_front(ask);
                }
                answer
            }
        };
        let Some(answer) = answer else {
            self.dropped += 1;
            return ANSWER_BYTES;
        };
        let message = StateMessage::Tell { checkpoint, answer };
        let cost = message.encoded_len_max() + ANSWER_BYTES + read / READ_COST;
        self.bytes += cost as u64;
        let asker = self.askers.get_mut(&from).expect("nobody removed it");
        asker.pace.took(cost);
        out.coordinator(FromStage::State { to: from, message });
        cost
    }

    /// The next answer to a request, and whether more follow. What had to be read for it beyond
    /// what it holds goes into `read`.
    fn look_up(
        &mut self,
        held: &Manifest,
        state: &State,
        ask: &mut Ask,
        read: &mut usize,
    ) -> (Option<StateAnswer>, bool) {
        match &ask.request {
            StateRequest::Manifest => (Some(StateAnswer::Manifest(*held)), false),
            StateRequest::Nodes { part, level, first, count } => {
                (nodes(held.seq, state, *part, (*level, *first, *count)), false)
            }
            StateRequest::Objects { part, objects } => {
                let Some(object) = objects.get(ask.done).copied() else { return (None, false) };
                let (part, more) = (*part, ask.done + 1 < objects.len());
                ask.done += 1;
                (self.piece(held.seq, state, (part, object, 0), read), more)
            }
            StateRequest::Piece { part, object, offset } => {
                (self.piece(held.seq, state, (*part, *object, *offset), read), false)
            }
        }
    }

    fn piece(
        &mut self,
        at: Seq,
        state: &State,
        (part, object, offset): (Part, u32, u64),
        read: &mut usize,
    ) -> Option<StateAnswer> {
        let cut = |whole: &[u8]| {
            let start = usize::try_from(offset).ok().filter(|start| *start <= whole.len())?;
            let end = whole.len().min(start + PIECE_BYTES_MAX);
            let (total, bytes) = (whole.len() as u64, whole[start..end].to_vec());
            Some(StateAnswer::Object { part, object, total, offset, bytes })
        };
        let known = |entry: &(Seq, Part, u32, _)| (entry.0, entry.1, entry.2) == (at, part, object);
        if let Some(index) = self.cached.iter().position(known) {
            let entry = self.cached.remove(index).expect("it was found there");
            let answer = cut(&entry.3);
            self.cached.push_back(entry);
            return answer;
        }
        let mut whole = core::mem::take(&mut self.scratch);
        whole.clear();
        if !state.append_pinned(at, (part, object), &mut whole) {
            return None;
        }
        let answer = cut(&whole);
        if whole.len() <= PIECE_BYTES_MAX {
            self.scratch = whole;
            return answer;
        }
        *read = whole.len();
        while !self.cached.is_empty() && self.cached_bytes() + whole.len() > CACHED_BYTES_MAX {
            self.cached.pop_front();
        }
        self.cached.push_back((at, part, object, Arc::new(whole)));
        answer
    }
}

/// The digests of the children of `count` nodes from `first` on; `None` when there are no such.
fn nodes(
    at: Seq,
    state: &State,
    part: Part,
    (level, first, count): (u8, u32, u32),
) -> Option<StateAnswer> {
    let tree = state.tree(part);
    let exists = level >= 1 && first.checked_add(count).is_some_and(|end| end <= tree.width(level));
    if !exists {
        return None;
    }
    let children = |node: u32| node.saturating_mul(FAN_OUT as u32).min(tree.width(level - 1));
    let wanted = children(first)..children(first + count);
    let digests = wanted.map(|child| tree.pinned_digest(at, level - 1, child)).collect();
    Some(StateAnswer::Nodes { part, level, first, digests })
}
