//! The session: opening it, losing it, closing it.

use alloc::sync::Arc;

use base::{Frame, FrameBuilder, FrameKind, Now, PillarId, ReplicaId, ReplyStatus, SessionId};

use super::line::Timer;
use super::vote::{Accepted, Ballot, Said, Voter};
use super::{ClientConfig, ClientCore, Effect, Errand, OpError, Phase, SendTo, held_bytes};

/// Who opens a session above one that is ahead of its clock goes beyond it by less than this, in
/// nanoseconds, as the clock happens to stand: several processes of one principal may be told
/// the same highest number, and a session that two of them believe to be their own would give
/// each the other's answers.
const APART: u64 = 1 << 20;

impl<T> ClientCore<T> {
    pub(super) fn on_errand_reply(&mut self, now: Now, from: ReplicaId, said: &Said<'_>) {
        let acceptance = self.config.acceptance;
        let (Phase::Opening(errand) | Phase::Closing(errand)) = &mut self.phase else {
            self.counters.late_replies += 1;
            return;
        };
        if errand.frame.id() != said.frame {
            self.counters.late_replies += 1;
            return;
        }
        let accepted = errand.ballot.cast(from, said, (Voter::default(), acceptance));
        let Some(Accepted { head, liars, .. }) = accepted else { return };
        let opening = errand.frame.kind() == FrameKind::Open;
        liars.into_iter().for_each(|liar| self.suspect(liar));
        match head.status {
            ReplyStatus::Opened if opening => {
                self.phase = Phase::Open;
                self.effects.push(Effect::SessionOpened(self.session));
            }
            ReplyStatus::StaleSession(highest) if opening => self.open(now, highest),
            ReplyStatus::Closed | ReplyStatus::NoSession if !opening => {
                self.phase = Phase::Closed;
                self.effects.push(Effect::Closed);
            }
            // Anything else is no answer to this; the timer sends the frame again.
            _ => {}
        }
    }

    /// Begins a session above `highest` and above the current one: the time, or where that is
    /// not above them, a number that another process of the same principal hardly chooses.
    pub(super) fn open(&mut self, now: Now, highest: SessionId) {
        let above = self.session.0.max(highest.0).saturating_add(1);
        let behind = above > now.wall.0;
        let apart = if behind { now.wall.0 % APART } else { 0 };
        self.session = SessionId(above.max(now.wall.0).saturating_add(apart));
        let ClientConfig { group, client, .. } = self.config;
        let sign = |digest| self.keys.authenticate(digest);
        let frame = Arc::new(FrameBuilder::open(group, client, self.session, sign));
        self.effects.push(Effect::SessionChanged(self.session));
        self.phase = Phase::Opening(self.errand(now, frame));
    }

    /// The group does not know the session, or not as this client does: what is in flight may
    /// or may not have been executed. What is queued goes into the next session.
    pub(super) fn lose_session(&mut self, now: Now, highest: SessionId) {
        self.counters.sessions_lost += 1;
        // Those changed nothing: they go into the next session, too.
        self.order_all_reads(now.mono);
        self.fail_flights(OpError::SessionLost);
        self.open(now, highest);
    }

    /// Sends the frame that opens or closes the session, always through pillar 0.
    pub(super) fn errand(&mut self, now: Now, frame: Arc<Frame>) -> Errand {
        let sent = Arc::clone(&frame);
        self.effects.push(Effect::Send { pillar: PillarId(0), to: SendTo::All, frame: sent });
        let due = now.mono.after(self.config.retransmit);
        Errand {
            frame,
            ballot: Ballot::default(),
            timer: Timer { sent: now.mono, due, attempts: 0 },
        }
    }

    pub(super) fn fail_flights(&mut self, error: OpError) {
        for line in &mut self.lines {
            for flight in line.flying.drain(..) {
                self.held_ops -= flight.frame.op_count();
                self.held_bytes -= flight.bytes;
                self.streams.ended(&flight.streams);
                // A later frame of the line may be answered while an earlier one is not.
                let outcome = flight.outcome.unwrap_or(Err(error));
                match &outcome {
                    Ok(_) => self.counters.completed += flight.tokens.len() as u64,
                    Err(_) => self.counters.failed += flight.tokens.len() as u64,
                }
                if !flight.tokens.is_empty() {
                    self.effects.push(Effect::Done { tokens: flight.tokens, outcome });
                }
            }
            line.acked = 0;
            line.recent.clear();
        }
    }

    pub(super) fn fail_drafts(&mut self, error: OpError) {
        for line in &mut self.lines {
            for draft in line.drafts.drain(..) {
                self.held_ops -= draft.tokens.len();
                self.held_bytes -= held_bytes(draft.builder.bytes());
                self.streams.ended(&draft.streams);
                self.counters.failed += draft.tokens.len() as u64;
                self.effects.push(Effect::Done { tokens: draft.tokens, outcome: Err(error) });
            }
        }
    }
}
