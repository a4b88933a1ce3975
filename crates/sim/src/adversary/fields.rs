//! Every field of every message, one after another.
//!
//! Everything is taken apart without `..`, so that a field or a message that is added does not
//! compile before it is covered here. What happens to a field is [`super::touch`]'s business.

use std::sync::Arc;

use base::transfer::{
    Manifest, NODE_DIGESTS_MAX, OBJECTS_PER_REQUEST_MAX, PIECE_BYTES_MAX, Part, StateAnswer,
    StateMessage, StateRequest,
};
use base::{
    AgreedTime, BatchEntry, ClientId, Digest, Frame, FrameId, Incarnation, PillarId, ReplicaId,
    Reply, ReplyStatus, Seq, SessionId, Signature, StableCheckpoint, View, limits,
};
use proto::group::evidence::Proof;
use proto::group::link::{PRE_PREPARED_MAX, SliceEntry};
use proto::group::msg::{GroupMessage, NewView, Recover, ViewChange};
use proto::group::roster::{Exclusion, Roster};
use proto::pbft::msg::{Checkpoint, ENDORSE_MAX, Message, NullPhase, Nulls, Proposal, Vote};

use super::frames::Parts;
use super::touch::{Listed, Pools, Sort, Touch};
use crate::prng::Prng;

impl Touch<'_> {
    /// A message, and the pillar on whose link it travels.
    pub(super) fn packet(&mut self, pillar: &mut PillarId, message: &mut Message) {
        self.tiny("pillar", Sort::Pillar, &mut pillar.0);
        match message {
            Message::PrePrepare { view, seq, proposal } => {
                self.view("view", view);
                self.seq("number", seq);
                self.proposal(proposal);
            }
            Message::Prepare(vote) | Message::Commit(vote) => {
                let Vote { view, seq, digest } = vote;
                self.view("view", view);
                self.seq("number", seq);
                self.digest("digest", digest);
            }
            Message::Nulls(nulls) => self.nulls(nulls),
            Message::Vouch { executed, entries } => {
                self.seq("executed", executed);
                self.entries(entries);
            }
            Message::Fetch { seq, entries } => {
                self.seq("number", seq);
                self.entries(entries);
            }
            Message::Body { vouched, frame } => {
                self.flag("vouched", vouched);
                self.whole_frame(frame);
            }
            Message::Forward(frame) => self.whole_frame(frame),
            Message::Checkpoint(checkpoint) => self.checkpoint(checkpoint),
            Message::Status { view, stable, delivered } => {
                self.view("view", view);
                self.seq("low mark", stable);
                self.seq("delivered", delivered);
            }
            Message::Decided { seq, proposal } | Message::ProposalIs { seq, proposal } => {
                self.seq("number", seq);
                self.proposal(proposal);
            }
            Message::FetchProposal { seq, digest } => {
                self.seq("number", seq);
                self.digest("digest", digest);
            }
            Message::Endorse { view, entries } | Message::Owed { view, entries } => {
                self.view("view", view);
                self.list("endorsed entries", entries);
            }
            Message::Group(message) => self.group(Arc::make_mut(message)),
            Message::State(message) => self.state(Arc::make_mut(message)),
        }
    }

    fn nulls(&mut self, nulls: &mut Nulls) {
        let Nulls { phase, view, first, count } = nulls;
        if self.turn("phase") {
            let another = *phase as usize + 1 + self.prng.below(2) as usize;
            *phase = NullPhase::ALL[another % NullPhase::ALL.len()];
        }
        self.view("view", view);
        self.seq("first", first);
        let mut wide = u64::from(*count);
        self.number("count", Sort::Place, &mut wide, 255);
        *count = wide as u8;
    }

    fn view(&mut self, name: &'static str, view: &mut View) {
        self.number(name, Sort::View, &mut view.0, u64::MAX);
    }

    fn seq(&mut self, name: &'static str, seq: &mut Seq) {
        self.number(name, Sort::Seq, &mut seq.0, u64::MAX);
    }

    fn replica(&mut self, name: &'static str, replica: &mut ReplicaId) {
        self.tiny(name, Sort::Replica, &mut replica.0);
    }

    fn incarnation(&mut self, incarnation: &mut Incarnation) {
        self.number("incarnation", Sort::Incarnation, &mut incarnation.0, u64::MAX);
    }

    fn proposal(&mut self, proposal: &mut Proposal) {
        if self.turn("proposal") {
            *proposal = match proposal {
                Proposal::Null => Proposal::Frames { time: AgreedTime(0), entries: Vec::new() },
                Proposal::Frames { .. } => Proposal::Null,
            };
            return;
        }
        match proposal {
            Proposal::Null => {}
            Proposal::Frames { time, entries } => {
                self.number("time", Sort::Time, &mut time.0, u64::MAX);
                self.entries(entries);
            }
        }
    }

    fn entries(&mut self, entries: &mut Vec<BatchEntry>) {
        self.list("entries", entries);
    }

    fn entry(&mut self, entry: &mut BatchEntry) {
        if self.learns() {
            self.pools.entries.learn(entry, self.prng);
        }
        let BatchEntry { id, digest } = entry;
        self.frame_id(id);
        self.digest("frame digest", digest);
    }

    fn frame_id(&mut self, id: &mut FrameId) {
        let FrameId { client: ClientId(client), session: SessionId(session), stream, id } = id;
        self.small("principal", Sort::Client, client);
        self.number("session", Sort::Session, session, u64::MAX);
        self.small("stream", Sort::Stream, stream);
        self.number("frame id", Sort::FrameId, id, u64::MAX);
    }

    fn whole_frame(&mut self, frame: &mut Arc<Frame>) {
        if self.learns() {
            self.pools.frames.learn(frame, self.prng);
        }
        let mut parts = Parts::of(frame);
        self.frame(&mut parts);
        match parts.build() {
            Some(changed) => *frame = Arc::new(changed),
            None => self.broken = true,
        }
    }

    fn frame(&mut self, parts: &mut Parts) {
        let Parts { head, id, ack, count, ops, authenticator } = parts;
        for (name, byte) in ["version", "kind", "origin", "padding"].into_iter().zip(head) {
            let mut wide = u64::from(*byte);
            self.number(name, Sort::Place, &mut wide, 255);
            *byte = wide as u8;
        }
        self.frame_id(id);
        self.number("acknowledged", Sort::FrameId, ack, u64::MAX);
        self.small("operations", Sort::Place, count);
        self.bytes("operation", ops, 4096);
        self.bytes("authenticator", authenticator, 2048);
    }

    fn checkpoint(&mut self, checkpoint: &mut Checkpoint) {
        let Checkpoint { seq, digest, signature } = checkpoint;
        self.seq("checkpoint", seq);
        self.digest("state digest", digest);
        self.signature("checkpoint signature", signature);
    }

    fn signers(&mut self, proof: &mut Vec<(ReplicaId, Signature)>) {
        self.list("signers", proof);
    }

    fn stable(&mut self, stable: &mut StableCheckpoint) {
        if self.learns() {
            self.pools.certificates.learn(stable, self.prng);
        }
        if self.turn("certificate") {
            let old = self.pools.certificates.pick(self.prng);
            *stable = old.unwrap_or_default();
            return;
        }
        let StableCheckpoint { seq, digest, proof } = stable;
        self.seq("certified number", seq);
        self.digest("certified digest", digest);
        self.signers(Arc::make_mut(proof));
    }

    fn group(&mut self, message: &mut GroupMessage) {
        match message {
            GroupMessage::Wish { wish, installed, recovering } => {
                self.view("wish", wish);
                self.view("installed", installed);
                self.flag("recovering", recovering);
            }
            GroupMessage::ViewChange(change) => self.change(change),
            GroupMessage::NewView(new_view) => self.new_view(new_view),
            GroupMessage::Recover(recover) => self.recover(recover),
            GroupMessage::RecoverAck {
                incarnation,
                view,
                installed,
                stable,
                known,
                recovering,
            } => {
                self.incarnation(incarnation);
                self.view("view", view);
                self.view("installed", installed);
                self.stable(stable);
                self.list("known", known);
                self.flag("recovering", recovering);
            }
            GroupMessage::Seek(seq) => self.seq("number", seq),
            GroupMessage::WantCheckpoint { have, want, stable } => {
                self.seq("have", have);
                self.seq("want", want);
                self.stable(stable);
            }
            GroupMessage::HaveCheckpoint(stable) => self.stable(stable),
            GroupMessage::Evidence(proof) => self.proof(Arc::make_mut(proof)),
            GroupMessage::HaveState { seq, digest, signature, stable } => {
                self.seq("number", seq);
                self.digest("digest", digest);
                self.signature("state signature", signature);
                self.stable(stable);
            }
        }
    }

    fn recover(&mut self, recover: &mut Recover) {
        if self.learns() {
            self.pools.recovers.learn(recover, self.prng);
        }
        let Recover { replica, incarnation, view, signature } = recover;
        self.replica("recovering replica", replica);
        self.incarnation(incarnation);
        self.view("recovering view", view);
        self.signature("recover signature", signature);
    }

    fn change(&mut self, change: &mut Arc<ViewChange>) {
        if self.learns() {
            self.pools.changes.learn(change, self.prng);
        }
        let change = Arc::make_mut(change);
        let ViewChange { replica, incarnation, view, stable, entries, roster, signature } = change;
        self.replica("changing replica", replica);
        self.incarnation(incarnation);
        self.view("next view", view);
        self.stable(stable);
        self.list("promises", entries);
        self.roster(roster);
        self.signature("view-change signature", signature);
    }

    fn roster(&mut self, roster: &mut Roster) {
        let Roster { blames, excluded } = roster;
        if self.turn("blame") {
            *blames = match blames {
                Some(_) => None,
                None => Some(ReplicaId(self.prng.below(5) as u16)),
            };
        }
        if self.turn("exclusions") {
            let one =
                |at: u16| Exclusion { replica: ReplicaId(at), since: Seq(1 << 40), strikes: 9 };
            *excluded = (0..4).map(one).collect();
        }
    }

    fn slice(&mut self, entry: &mut SliceEntry) {
        if self.learns() {
            self.pools.slices.learn(entry, self.prng);
        }
        let SliceEntry { seq, prepared, pre_prepared } = entry;
        self.seq("promised number", seq);
        if self.turn("P") {
            *prepared = match prepared {
                Some(_) => None,
                None => pre_prepared.first().copied(),
            };
        } else if let Some((view, digest)) = prepared {
            self.view("P view", view);
            self.digest("P digest", digest);
        }
        self.list("Q", pre_prepared);
    }

    fn new_view(&mut self, new_view: &mut Arc<NewView>) {
        let NewView { view, changes, signature } = Arc::make_mut(new_view);
        self.view("view", view);
        self.list("view-changes", changes);
        self.signature("new-view signature", signature);
    }

    fn proof(&mut self, proof: &mut Proof) {
        match proof {
            Proof::WrongCheckpoint { signer, said, certified } => {
                self.replica("accused", signer);
                self.checkpoint(said);
                self.stable(certified);
            }
            Proof::TwoViewChanges(one, other) => {
                self.change(if self.salt & 1 == 0 { one } else { other });
            }
            Proof::BadViewChange(change) => self.change(change),
            Proof::BadNewView(new_view) => self.new_view(new_view),
        }
    }

    fn state(&mut self, message: &mut StateMessage) {
        match message {
            StateMessage::Ask { checkpoint, request } => {
                self.seq("checkpoint", checkpoint);
                self.request(request);
            }
            StateMessage::Tell { checkpoint, answer } => {
                self.seq("checkpoint", checkpoint);
                self.answer(answer);
            }
        }
    }

    fn request(&mut self, request: &mut StateRequest) {
        match request {
            StateRequest::Manifest => {}
            StateRequest::Nodes { part, level, first, count } => {
                self.part(part);
                self.level(level);
                self.small("first", Sort::Place, first);
                self.small("count", Sort::Place, count);
            }
            StateRequest::Objects { part, objects } => {
                self.part(part);
                self.list("objects", objects);
            }
            StateRequest::Piece { part, object, offset } => {
                self.part(part);
                self.small("object", Sort::Place, object);
                self.number("offset", Sort::Place, offset, u64::MAX);
            }
        }
    }

    fn answer(&mut self, answer: &mut StateAnswer) {
        match answer {
            StateAnswer::Manifest(manifest) => {
                let Manifest { seq, pillars, time, service, sessions } = manifest;
                self.seq("manifest number", seq);
                self.tiny("pillars", Sort::Pillar, pillars);
                self.number("time", Sort::Time, &mut time.0, u64::MAX);
                self.digest("service root", service);
                self.digest("sessions root", sessions);
            }
            StateAnswer::Nodes { part, level, first, digests } => {
                self.part(part);
                self.level(level);
                self.small("first", Sort::Place, first);
                self.list("digests", digests);
            }
            StateAnswer::Object { part, object, total, offset, bytes } => {
                self.part(part);
                self.small("object", Sort::Place, object);
                self.number("total", Sort::Place, total, u64::MAX);
                self.number("offset", Sort::Place, offset, u64::MAX);
                self.bytes("piece", bytes, PIECE_BYTES_MAX);
            }
            StateAnswer::Gone => {}
        }
    }

    fn part(&mut self, part: &mut Part) {
        if self.turn("part") {
            *part = match part {
                Part::Service => Part::Sessions,
                Part::Sessions => Part::Service,
            };
        }
    }

    fn level(&mut self, level: &mut u8) {
        let mut wide = u64::from(*level);
        self.number("level", Sort::Place, &mut wide, 255);
        *level = wide as u8;
    }

    /// A reply, and the view that it travels with.
    pub(super) fn reply(&mut self, view: &mut View, reply: &mut Reply) {
        self.view("view", view);
        let Reply { frame, seq, status, count, results } = reply;
        self.frame_id(frame);
        self.seq("number", seq);
        if self.turn("status") {
            let arg = self.prng.below(70);
            *status = [
                ReplyStatus::Executed,
                ReplyStatus::Opened,
                ReplyStatus::Closed,
                ReplyStatus::OutOfOrder(arg),
                ReplyStatus::NoSession,
                ReplyStatus::StaleSession(SessionId(arg)),
                ReplyStatus::ReplyGone,
                ReplyStatus::Conflict,
                ReplyStatus::OutOfWindow,
                ReplyStatus::TooLarge,
                ReplyStatus::Unread,
            ][self.prng.below(11) as usize];
        }
        self.small("results", Sort::Place, count);
        self.bytes("result", results, 4096);
    }
}

impl Listed for BatchEntry {
    const MOST: usize = limits::BATCH_FRAMES_MAX;

    fn old(pools: &Pools, prng: &mut Prng) -> Option<BatchEntry> {
        pools.entries.pick(prng)
    }

    fn touch(&mut self, touch: &mut Touch<'_>) {
        touch.entry(self);
    }
}

/// A frame that is endorsed.
impl Listed for (BatchEntry, Seq) {
    const MOST: usize = ENDORSE_MAX;

    fn old(pools: &Pools, prng: &mut Prng) -> Option<(BatchEntry, Seq)> {
        pools.entries.pick(prng).map(|entry| (entry, Seq(0)))
    }

    fn touch(&mut self, touch: &mut Touch<'_>) {
        touch.entry(&mut self.0);
        touch.seq("executed when endorsed", &mut self.1);
    }
}

/// A signature of a certificate.
impl Listed for (ReplicaId, Signature) {
    const MOST: usize = limits::REPLICAS_MAX;

    fn old(pools: &Pools, prng: &mut Prng) -> Option<(ReplicaId, Signature)> {
        pools.signatures.pick(prng).map(|signature| (ReplicaId(0), signature))
    }

    fn touch(&mut self, touch: &mut Touch<'_>) {
        touch.replica("signer", &mut self.0);
        touch.signature("signer's signature", &mut self.1);
    }
}

impl Listed for Recover {
    const MOST: usize = limits::REPLICAS_MAX;

    fn old(pools: &Pools, prng: &mut Prng) -> Option<Recover> {
        pools.recovers.pick(prng)
    }

    fn touch(&mut self, touch: &mut Touch<'_>) {
        touch.recover(self);
    }
}

impl Listed for SliceEntry {
    const MOST: usize = 64;

    fn old(pools: &Pools, prng: &mut Prng) -> Option<SliceEntry> {
        pools.slices.pick(prng)
    }

    fn touch(&mut self, touch: &mut Touch<'_>) {
        touch.slice(self);
    }
}

/// A digest that was pre-prepared in a view.
impl Listed for (View, Digest) {
    const MOST: usize = PRE_PREPARED_MAX;

    fn old(pools: &Pools, prng: &mut Prng) -> Option<(View, Digest)> {
        pools.digests.pick(prng).map(|digest| (View(0), digest))
    }

    fn touch(&mut self, touch: &mut Touch<'_>) {
        touch.view("Q view", &mut self.0);
        touch.digest("Q digest", &mut self.1);
    }
}

impl Listed for Arc<ViewChange> {
    const MOST: usize = 8;

    fn old(pools: &Pools, prng: &mut Prng) -> Option<Arc<ViewChange>> {
        pools.changes.pick(prng)
    }

    fn touch(&mut self, touch: &mut Touch<'_>) {
        touch.change(self);
    }
}

/// The number of an object.
impl Listed for u32 {
    const MOST: usize = OBJECTS_PER_REQUEST_MAX;

    fn old(_: &Pools, prng: &mut Prng) -> Option<u32> {
        Some(prng.below(20) as u32)
    }

    fn touch(&mut self, touch: &mut Touch<'_>) {
        touch.small("object", Sort::Place, self);
    }
}

/// The digest of a node.
impl Listed for Digest {
    const MOST: usize = NODE_DIGESTS_MAX;

    fn old(pools: &Pools, prng: &mut Prng) -> Option<Digest> {
        pools.digests.pick(prng)
    }

    fn touch(&mut self, touch: &mut Touch<'_>) {
        touch.digest("node", self);
    }
}
