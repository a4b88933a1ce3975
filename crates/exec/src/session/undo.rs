//! What the table was before a batch that is executed tentatively, so that it can be taken back.
//!
//! A note of what changes is made with each change and costs what changes: the entries that a
//! frame acknowledges move into it, the one that it claims is named by it. Only what concerns
//! whole sessions (opened, closed, evicted, too many bytes) keeps a copy of the principal, one for
//! all that follows: what a batch makes of a principal must not cost a copy of it each time.
//!
//! Invariants:
//! 1. taken back from the last to the first, the notes lead to the table that was there when they
//!    were begun;
//! 2. a principal is kept once, and nothing is noted of it after that.

use alloc::collections::BTreeSet;
use alloc::vec::Vec;

use base::{ClientId, Digest, FrameId, Seq};

use super::{Client, Session, SessionCounts, Sessions};
use crate::window::Earlier;

/// The notes since the beginning.
#[derive(Clone, Debug, Default)]
pub(super) struct Undo {
    /// What was counted at the beginning; `None` while no notes are made.
    began: Option<(usize, SessionCounts)>,
    notes: Vec<Note>,
    /// Principals that are kept whole.
    whole: BTreeSet<ClientId>,
}

#[derive(Clone, Debug)]
enum Note {
    /// A principal before its sessions changed.
    Client(ClientId, Option<Client>),
    /// A session before a request.
    Request(FrameId, Was),
}

/// A session before a request, as far as a request may change it.
#[derive(Clone, Debug)]
pub(super) struct Was {
    used: Seq,
    orders: u64,
    bytes: usize,
    digest: Option<Digest>,
    pub(super) stream: Earlier,
    /// The stream has come to be with the request.
    pub(super) is_new: bool,
}

impl Was {
    pub(super) fn of(session: &Session) -> Was {
        let Session { used, orders, bytes, digest, .. } = *session;
        Was { used, orders, bytes, digest, stream: Earlier::default(), is_new: false }
    }
}

impl Undo {
    pub(super) fn keeps(&self) -> bool {
        self.began.is_some()
    }

    pub(super) fn request(&mut self, frame: FrameId, was: Was) {
        if !self.whole.contains(&frame.client) {
            self.notes.push(Note::Request(frame, was));
        }
    }
}

impl Session {
    fn restore(&mut self, stream: u32, was: Was) {
        let Was { used, orders, bytes, digest, stream: earlier, is_new } = was;
        (self.used, self.orders, self.bytes, self.digest) = (used, orders, bytes, digest);
        if is_new {
            self.streams.remove(&stream);
        } else if let Some(stream) = self.streams.get_mut(&stream) {
            stream.restore(earlier);
        }
    }
}

impl Sessions {
    /// Begins to note what changes.
    pub(crate) fn begin(&mut self) {
        self.undo.notes.clear();
        self.undo.whole.clear();
        self.undo.began = Some((self.open, self.counts));
    }

    /// What has changed since the beginning stays.
    pub(crate) fn keep(&mut self) {
        self.undo.began = None;
        self.undo.notes.clear();
        self.undo.whole.clear();
    }

    /// What has changed since the beginning never was.
    pub(crate) fn take_back(&mut self) {
        let Some((open, counts)) = self.undo.began.take() else { return };
        let mut notes = core::mem::take(&mut self.undo.notes);
        for note in notes.drain(..).rev() {
            match note {
                Note::Client(id, Some(client)) => drop(self.bucket_mut(id).insert(id, client)),
                Note::Client(id, None) => drop(self.bucket_mut(id).remove(&id)),
                Note::Request(frame, was) => {
                    if let Some(session) = self.session_mut(frame) {
                        session.restore(frame.stream, was);
                    }
                }
            }
        }
        self.undo.notes = notes;
        self.undo.whole.clear();
        // Digests stay, and so does their count.
        let rehashed = self.counts.rehashed;
        (self.open, self.counts) = (open, SessionCounts { rehashed, ..counts });
    }

    /// Comes before every change of a principal's sessions that is no request.
    pub(super) fn keep_client(&mut self, id: ClientId) {
        if self.undo.keeps() && self.undo.whole.insert(id) {
            let client = self.bucket(id).get(&id).cloned();
            self.undo.notes.push(Note::Client(id, client));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Replies that a batch makes the table drop, one after the other, must not cost a copy of
    /// the principal each: with a large table that would be more memory than there is.
    #[test]
    fn a_principal_is_kept_once_for_a_batch() {
        let (mut table, client) = (Sessions::new(), ClientId(7));
        for _ in 0..2 {
            table.begin();
            (0..1000).for_each(|_| table.keep_client(client));
            assert_eq!(table.undo.notes.len(), 1);
            table.take_back();
        }
        table.begin();
        table.keep_client(ClientId(8));
        table.keep();
        table.begin();
        table.keep_client(ClientId(8));
        assert_eq!(table.undo.notes.len(), 1, "another batch, another copy");
    }
}
