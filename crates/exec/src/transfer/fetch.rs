//! The asking side of state transfer: makes the own state that of a certified checkpoint.
//!
//! 1. The own trees are brought up to date; after a divergence every object is put into place
//!    anew first, so that nothing that was derived from it is believed.
//! 2. All sources are asked for the manifest; the one with the certified digest is it.
//! 3. From the roots down, the children of every node that differs from the own one are asked
//!    for, and so, in the end, the objects that differ.
//! 4. When nothing is missing, both roots are computed from the state and compared.
//!
//! What does not verify is not used; its source is dropped and named. Execution stands still
//! meanwhile, so that a half-fetched state is never executed on.

use alloc::collections::BTreeMap;

use base::transfer::{Manifest, Part, StateAnswer, StateMessage, StateRequest};
use base::{Digest, FromStage, GroupId, ReplicaId, Seq, StableCheckpoint, Time};

use super::large::{BUFFER_BYTES_MAX, Large, OBJECT_BYTES_MAX, Piece, UNDISPUTED_BYTES_MAX};
use super::peer::{Ask, PIECES_PER_PEER_MAX, Peers};
use super::wanted::Wanted;
use crate::stage::StageOutbox;
use crate::state::{PARTS, State};

/// Objects written after which the trees are brought up to date, so that the end is no long pause.
const MARKED_MAX: usize = 256;
/// Bytes of own objects that are put into place anew in one turn.
const RENEWED_BYTES_PER_TURN: usize = 1 << 20;
/// Objects that are put into place anew in one turn.
const RENEWED_PER_TURN: usize = 1024;

/// A fetch under way.
#[derive(Debug)]
pub(crate) struct Fetch {
    group: GroupId,
    target: StableCheckpoint,
    manifest: Option<Manifest>,
    own: Own,
    peers: Peers,
    wanted: Wanted,
    failed: bool,
    /// Objects and bytes that came and were used.
    pub(crate) objects: u64,
    pub(crate) bytes: u64,
}

/// How far the own state may be compared.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Own {
    /// Objects from this one on are still to be put into place anew.
    Renewing(Part, u32),
    /// The trees are right; nothing is compared yet.
    Known { renewed: bool },
    /// What differs is known or asked for.
    Compared { renewed: bool },
}

/// How a fetch stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Outcome {
    /// It goes on.
    Going,
    /// The state is that of this manifest.
    Done(Manifest),
    /// No source is left.
    Failed,
}

/// What an answer is worth.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Verdict {
    /// It verifies.
    Right,
    /// No correct source says that.
    Wrong,
    /// It cannot be judged yet, or nobody has asked (any more).
    Open,
}

impl Verdict {
    fn of(right: bool) -> Verdict {
        if right { Verdict::Right } else { Verdict::Wrong }
    }
}

impl Fetch {
    /// A fetch of `target`. When the own state is not `trusted`, all of it is put into place
    /// anew before it is compared.
    pub(crate) fn new(
        group: GroupId,
        target: StableCheckpoint,
        sources: &[ReplicaId],
        trusted: bool,
    ) -> Fetch {
        let mut peers = Peers::default();
        peers.add(sources);
        let own =
            if trusted { Own::Known { renewed: false } } else { Own::Renewing(Part::Service, 0) };
        Fetch {
            group,
            target,
            manifest: None,
            own,
            peers,
            wanted: Wanted::new(),
            failed: false,
            objects: 0,
            bytes: 0,
        }
    }

    /// Goes on with another target; what is in place already and still fits is kept. With the
    /// same target, these are more sources.
    pub(crate) fn retarget(&mut self, target: StableCheckpoint, sources: &[ReplicaId]) {
        let same = (self.target.seq, self.target.digest) == (target.seq, target.digest);
        if !same || self.failed {
            self.peers.clear();
            self.wanted = Wanted::new();
            self.manifest = None;
            if let Own::Compared { renewed } = self.own {
                self.own = Own::Known { renewed };
            }
            self.failed = false;
        }
        self.target = target;
        self.peers.add(sources);
    }

    pub(crate) fn target(&self) -> &StableCheckpoint {
        &self.target
    }

    /// Objects that are known to be missing.
    pub(crate) fn missing(&self) -> u64 {
        self.wanted.objects() as u64
    }

    pub(crate) fn now(&self) -> Option<Time> {
        self.peers.now()
    }

    /// Whether it has failed and waits for another target.
    pub(crate) fn is_over(&self) -> bool {
        self.failed
    }

    /// Whether [`Fetch::proceed`] has work that needs no answer.
    pub(crate) fn is_busy(&self) -> bool {
        matches!(self.own, Own::Renewing(..)) && !self.failed
    }

    /// Bytes of objects in the making.
    pub(crate) fn buffered(&self) -> u64 {
        self.peers.buffered()
    }

    /// It is `now`.
    pub(crate) fn tick(&mut self, now: Time) {
        let back = self.peers.tick(now);
        back.into_iter().for_each(|ask| self.wanted.put_back(ask));
    }

    /// Takes in an answer.
    pub(crate) fn tell(
        &mut self,
        from: ReplicaId,
        (checkpoint, answer): (Seq, StateAnswer),
        state: &mut State,
        out: &mut StageOutbox,
    ) {
        if checkpoint != self.target.seq || !self.peers.is_source(from) {
            return;
        }
        let verdict = match answer {
            StateAnswer::Gone => return self.drop_source(from, false),
            StateAnswer::Manifest(manifest) => self.on_manifest(from, manifest),
            StateAnswer::Nodes { part, level, first, digests } => {
                self.on_nodes(from, (part, level, first), &digests, state)
            }
            StateAnswer::Object { part, object, total, offset, bytes } => {
                let piece = Piece { part, object, total, offset, bytes: &bytes };
                if offset == 0 && self.asked_whole(from, part, object) {
                    self.on_first_piece(from, piece, state, out)
                } else {
                    self.on_next_piece(from, piece, state, out)
                }
            }
        };
        match verdict {
            Verdict::Right => self.peers.praise(from),
            Verdict::Wrong => self.lie(from, out),
            Verdict::Open => {}
        }
    }

    /// Does what can be done now: a bounded amount of own work, and requests to all sources that
    /// have room.
    pub(crate) fn proceed(&mut self, state: &mut State, out: &mut StageOutbox) -> Outcome {
        let seq = self.target.seq;
        for source in self.peers.take_lost() {
            out.coordinator(FromStage::LostSource { seq, source });
        }
        if let Own::Renewing(part, object) = self.own {
            self.renew(part, object, state);
        }
        if let (Own::Known { renewed }, Some(manifest)) = (self.own, self.manifest) {
            self.own = Own::Compared { renewed };
            self.compare(&manifest, state);
        }
        if self.manifest.is_none() {
            self.ask_for_manifest(out);
        }
        self.ask_more(out);
        let complete = self.wanted.is_empty() && self.peers.is_idle();
        match (self.own, self.manifest) {
            (Own::Compared { renewed }, Some(manifest)) if complete => {
                self.finish(manifest, renewed, state)
            }
            _ if self.peers.is_empty() => self.fail(),
            _ => Outcome::Going,
        }
    }

    /// Compares the whole. Every object was verified, so roots that differ mean that something
    /// else here is not what its tree says: everything is put into place anew, once.
    fn finish(&mut self, manifest: Manifest, renewed: bool, state: &mut State) -> Outcome {
        let left_out = |part| part == Part::Sessions && base::mutant!(SessionsNotFetched);
        let right = |p: &Part| left_out(*p) || state.refresh(*p) == root_of(&manifest, *p);
        if PARTS.iter().all(right) || base::mutant!(StateUnverified) {
            return Outcome::Done(manifest);
        }
        if renewed {
            return self.fail();
        }
        self.own = Own::Renewing(Part::Service, 0);
        Outcome::Going
    }

    fn fail(&mut self) -> Outcome {
        self.failed = true;
        Outcome::Failed
    }

    fn renew(&mut self, mut part: Part, mut object: u32, state: &mut State) {
        let mut left = RENEWED_BYTES_PER_TURN;
        for _ in 0..RENEWED_PER_TURN {
            if object == state.tree(part).objects() {
                state.refresh(part);
                if part == Part::Sessions {
                    self.own = Own::Known { renewed: true };
                    return;
                }
                (part, object) = (Part::Sessions, 0);
            }
            left = left.saturating_sub(state.renew(part, object));
            object += 1;
            if left == 0 {
                break;
            }
        }
        state.refresh(part);
        self.own = Own::Renewing(part, object);
    }

    fn compare(&mut self, manifest: &Manifest, state: &mut State) {
        for part in PARTS {
            if part == Part::Sessions && base::mutant!(SessionsNotFetched) {
                continue;
            }
            state.refresh(part);
            let (tree, root) = (state.tree(part), root_of(manifest, part));
            self.wanted.want(part, (tree.top(), 0), tree, root);
        }
    }

    fn ask_for_manifest(&mut self, out: &mut StageOutbox) {
        for id in self.peers.ids() {
            if !self.peers.is_asked(id, |ask| matches!(ask, Ask::Manifest)) {
                self.ask(id, Ask::Manifest, out);
            }
        }
    }

    fn ask_more(&mut self, out: &mut StageOutbox) {
        let best = self.peers.best();
        let mut any = true;
        while any {
            any = false;
            for id in &best {
                if !self.peers.has_room(*id) {
                    continue;
                }
                let room = self.room(*id);
                let later = self.wanted.later.take(*id, &best, room);
                let ask = match later {
                    Some((part, object, leaf)) => {
                        Some(Ask::Objects { part, left: BTreeMap::from([(object, leaf)]) })
                    }
                    None => self.wanted.take(),
                };
                if let Some(ask) = ask {
                    self.ask(*id, ask, out);
                    any = true;
                }
            }
        }
    }

    /// Whether an object that `from` says is so long may be put together now.
    fn room(&self, from: ReplicaId) -> impl Fn(u64) -> bool + use<> {
        let (buffered, pieces) = (self.peers.buffered(), self.peers.pieces(from));
        move |total| {
            let fits = buffered == 0 || buffered + total <= BUFFER_BYTES_MAX;
            fits && pieces < PIECES_PER_PEER_MAX
        }
    }

    fn ask(&mut self, to: ReplicaId, ask: Ask, out: &mut StageOutbox) {
        let (checkpoint, request) = (self.target.seq, ask.request());
        let bytes = self.wanted.estimate(&ask);
        self.peers.ask(to, ask, bytes);
        let message = StateMessage::Ask { checkpoint, request };
        out.coordinator(FromStage::State { to, message });
    }

    fn on_manifest(&mut self, from: ReplicaId, manifest: Manifest) -> Verdict {
        if self.peers.take(from, |ask| matches!(ask, Ask::Manifest)).is_none() {
            return Verdict::Open;
        }
        let right = manifest.seq == self.target.seq
            && (manifest.digest(self.group) == self.target.digest
                || base::mutant!(ManifestUnverified));
        if right {
            self.manifest = Some(manifest);
        }
        Verdict::of(right)
    }

    fn on_nodes(
        &mut self,
        from: ReplicaId,
        node: (Part, u8, u32),
        children: &[Digest],
        state: &State,
    ) -> Verdict {
        let wanted = |ask: &Ask| {
            let Ask::Nodes { part, level, first, .. } = ask else { return false };
            (*part, *level, *first) == node
        };
        let Some(ask) = self.peers.take(from, wanted) else { return Verdict::Open };
        let Ask::Nodes { expected, .. } = &ask else { return Verdict::Open };
        let right = self.wanted.descend(node, expected, children, state.tree(node.0));
        if !right {
            self.wanted.put_back(ask);
        }
        Verdict::of(right)
    }

    /// Whether `from` is asked for this object, from its beginning.
    fn asked_whole(&self, from: ReplicaId, part: Part, object: u32) -> bool {
        self.peers.is_asked(from, |ask| is_for(ask, part, object))
    }

    fn on_first_piece(
        &mut self,
        from: ReplicaId,
        piece: Piece<'_>,
        state: &mut State,
        out: &mut StageOutbox,
    ) -> Verdict {
        let (part, object, total) = (piece.part, piece.object, piece.total);
        let ask = self.peers.find(from, |ask| is_for(ask, part, object));
        let Some(Ask::Objects { left, .. }) = ask else { return Verdict::Open };
        let Some(leaf) = left.remove(&object) else { return Verdict::Open };
        if left.is_empty() {
            self.peers
                .take(from, |ask| matches!(ask, Ask::Objects { left, .. } if left.is_empty()));
        }
        let large = |bytes: &[u8]| Large { part, object, leaf, total, bytes: bytes.to_vec() };
        if !piece.is_regular() {
            self.wanted.put_back(Ask::Pieces(large(&[])));
            return Verdict::Wrong;
        }
        if total == piece.bytes.len() as u64 {
            self.peers.gave(from, piece.total);
            return self.on_object(from, large(piece.bytes), state, out);
        }
        if total > OBJECT_BYTES_MAX {
            // Either a lie or a group whose objects are too large for anybody to fetch.
            self.wanted.put_back(Ask::Pieces(large(&[])));
            self.drop_source(from, false);
            return Verdict::Open;
        }
        let (key, fits) = ((part, object), self.room(from)(total));
        let put_off = self.wanted.later.has(key);
        let mut begins = !put_off && fits && total <= UNDISPUTED_BYTES_MAX;
        if !begins {
            if !self.wanted.later.claim(key, leaf, from, total) {
                return Verdict::Wrong;
            }
            begins = fits && self.wanted.later.is_least(key, from, &self.peers.best());
        }
        if begins {
            self.wanted.later.hold(key);
            self.ask(from, Ask::Pieces(large(piece.bytes)), out);
        }
        Verdict::Open
    }

    fn on_next_piece(
        &mut self,
        from: ReplicaId,
        piece: Piece<'_>,
        state: &mut State,
        out: &mut StageOutbox,
    ) -> Verdict {
        let is_next = |ask: &Ask| {
            let Ask::Pieces(large) = ask else { return false };
            (large.part, large.object, large.bytes.len() as u64)
                == (piece.part, piece.object, piece.offset)
        };
        let Some(Ask::Pieces(large)) = self.peers.find(from, is_next) else { return Verdict::Open };
        if !piece.is_regular() || piece.total != large.total {
            return Verdict::Wrong;
        }
        large.bytes.extend_from_slice(piece.bytes);
        let (part, object, offset) = (large.part, large.object, large.bytes.len() as u64);
        let is_whole = offset >= large.total;
        self.peers.gave(from, piece.bytes.len() as u64);
        if !is_whole {
            let request = StateRequest::Piece { part, object, offset };
            let message = StateMessage::Ask { checkpoint: self.target.seq, request };
            out.coordinator(FromStage::State { to: from, message });
            return Verdict::Open;
        }
        let whole = |ask: &Ask| {
            matches!(ask, Ask::Pieces(large)
                if (large.part, large.object) == (piece.part, piece.object))
        };
        let Some(Ask::Pieces(large)) = self.peers.take(from, whole) else { return Verdict::Open };
        self.on_object(from, large, state, out)
    }

    /// Verifies a whole object and puts it into place.
    fn on_object(
        &mut self,
        from: ReplicaId,
        whole: Large,
        state: &mut State,
        out: &mut StageOutbox,
    ) -> Verdict {
        let (part, object) = (whole.part, whole.object);
        if !state.put_if(part, object, &whole.bytes, whole.leaf) {
            self.wanted.put_back(Ask::Pieces(whole));
            return Verdict::Wrong;
        }
        if state.marked(part) >= MARKED_MAX {
            state.refresh(part);
        }
        self.objects += 1;
        self.bytes += whole.total;
        self.wanted.came(whole.total);
        for liar in self.wanted.later.came((part, object), whole.total) {
            if liar != from {
                self.lie(liar, out);
            }
        }
        Verdict::Right
    }

    fn lie(&mut self, source: ReplicaId, out: &mut StageOutbox) {
        let known = self.peers.has_lied(source);
        self.drop_source(source, true);
        if !known {
            out.coordinator(FromStage::LyingSource { source });
        }
    }

    fn drop_source(&mut self, source: ReplicaId, lied: bool) {
        let asks = self.peers.remove(source, lied);
        asks.into_iter().for_each(|ask| self.wanted.put_back(ask));
    }
}

fn is_for(ask: &Ask, wanted: Part, object: u32) -> bool {
    matches!(ask, Ask::Objects { part, left } if *part == wanted && left.contains_key(&object))
}

fn root_of(manifest: &Manifest, part: Part) -> Digest {
    match part {
        Part::Service => manifest.service,
        Part::Sessions => manifest.sessions,
    }
}
