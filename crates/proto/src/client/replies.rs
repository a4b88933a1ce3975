//! What becomes of replies to request frames: votes, outcomes, refusals.
//!
//! Not here: the frames that open and close the session ([`super::session`]), nor the counting
//! of votes ([`super::vote`]).

use alloc::sync::Arc;
use alloc::vec::Vec;

use base::reply::ReplyHead;
use base::{Now, ReplicaId, ReplyStatus, SessionId, Time, limits};

use super::line::Timer;
use super::vote::{Accepted, LARGE_BYTES_MAX, LARGE_BYTES_MIN, Said, Voter, What};
use super::{ClientCore, Effect, OpError, Results, SendTo};

impl<T> ClientCore<T> {
    pub(super) fn on_frame_reply(&mut self, now: Now, from: ReplicaId, said: &Said<'_>) {
        let lines = self.lines.len();
        let at = said.frame.stream as usize;
        if at >= lines || said.frame.id >= self.lines[at].next_id() {
            // Answers a frame that was never sent.
            return self.suspect(from);
        }
        let voter = self.voter(from, said);
        let (repliers, weak) = (self.config.repliers, self.config.quorums.weak());
        let line = &mut self.lines[at];
        let short = usize::from(base::mutant!(ReplyQuorumShort));
        let acceptance = self.config.acceptance.short(short);
        let refusal = matches!(said.status, ReplyStatus::OutOfOrder(_));
        let accepted = match line.flight(said.frame.id) {
            // Says once more what was acted upon already.
            Some(flight) if refusal && said.seq <= flight.refused => None,
            Some(flight) if flight.outcome.is_none() => {
                let accepted = flight.ballot.cast(from, said, (voter, acceptance));
                let begun = repliers.need_fallback() && flight.ballot.voters() >= weak;
                if accepted.is_none() && begun && flight.answered.is_none() {
                    flight.answered = Some(now.mono);
                    let due = now.mono.after(self.patience.span());
                    flight.timer.due = flight.timer.due.min(due);
                } else if accepted.is_some() && repliers.need_fallback() && flight.is_first() {
                    let since = flight.answered.unwrap_or(now.mono);
                    self.patience.learn(now.mono.since(since));
                }
                accepted
            }
            _ => {
                if line.contradicts(said) {
                    self.suspect(from);
                }
                self.counters.late_replies += 1;
                return;
            }
        };
        let Some(Accepted { head, content, liars }) = accepted else { return };
        liars.into_iter().for_each(|liar| self.suspect(liar));
        if voter.designated {
            self.relied_on(from);
        }
        self.settle(now, at, &head, content);
    }

    /// What is known about whoever says this.
    fn voter(&self, from: ReplicaId, said: &Said<'_>) -> Voter {
        let repliers = self.config.repliers;
        let What::Content(content) = said.what else { return Voter::default() };
        let one_in_full = repliers.use_digests();
        let designated = one_in_full && repliers.designated(said.frame, self.avoided.0) == from;
        // Where all answer in full nobody's content has to be kept, and the first one saves
        // hashing the others.
        if content.len() < LARGE_BYTES_MIN || (one_in_full && !designated) {
            return Voter { designated, room: 0 };
        }
        let flights = self.lines.iter().flat_map(|line| &line.flying);
        let kept: usize = flights.map(|flight| flight.ballot.kept_bytes()).sum();
        Voter { designated, room: LARGE_BYTES_MAX.saturating_sub(kept) }
    }

    /// Acts upon an accepted reply.
    pub(super) fn settle(&mut self, now: Now, at: usize, head: &ReplyHead, content: Vec<u8>) {
        let line = &mut self.lines[at];
        let Some(flight) = line.flight(head.frame.id) else { return };
        let outcome = match head.status {
            ReplyStatus::Executed => {
                let ops = flight.frame.op_count();
                let content = Arc::new(content);
                let results = Results::new(Arc::clone(&content), ops);
                line.remember(head.frame.id, &content);
                results.ok_or(OpError::BadReply)
            }
            ReplyStatus::TooLarge => Err(OpError::ResultTooLarge),
            ReplyStatus::ReplyGone => Err(OpError::ReplyGone),
            ReplyStatus::OutOfOrder(expected) => {
                flight.refused = head.seq;
                return self.on_refused(now.mono, at, head.frame.id, expected);
            }
            ReplyStatus::Opened
            | ReplyStatus::Closed
            | ReplyStatus::StaleSession(_)
            | ReplyStatus::Unread => Err(OpError::BadReply),
            ReplyStatus::NoSession | ReplyStatus::Conflict | ReplyStatus::OutOfWindow => {
                return self.lose_session(now, SessionId(0));
            }
        };
        self.learn_result_size(&outcome);
        if let Some(flight) = self.lines[at].flight(head.frame.id) {
            flight.outcome = Some(outcome);
        }
        self.tell(at, None);
        while let Some(flight) = self.lines[at].pop_settled() {
            self.held_ops -= flight.frame.op_count();
            self.held_bytes -= flight.bytes;
            self.streams.ended(&flight.streams);
        }
    }

    /// Tells callers of line `at` what became of their operations, in order: up to the first
    /// frame that has neither an outcome nor, at `late`, run out of time. Whoever was told of a
    /// timeout hears no more, so that nobody behind waits for that frame any longer.
    pub(super) fn tell(&mut self, at: usize, late: Option<Time>) {
        for flight in &mut self.lines[at].flying {
            let outcome = match &flight.outcome {
                _ if flight.tokens.is_empty() => continue,
                Some(outcome) => outcome.clone(),
                None if late.is_some_and(|now| flight.expires <= now) => Err(OpError::TimedOut),
                None => break,
            };
            let tokens = core::mem::take(&mut flight.tokens);
            match &outcome {
                Ok(_) => self.counters.completed += tokens.len() as u64,
                Err(_) => self.counters.failed += tokens.len() as u64,
            }
            self.effects.push(Effect::Done { tokens, outcome });
        }
    }

    /// Frame `id` was ordered before its predecessor `expected`: it is no longer on its way
    /// anywhere, and goes again behind the one that is missing.
    pub(super) fn on_refused(&mut self, now: Time, at: usize, id: u64, expected: u64) {
        self.counters.refused += 1;
        let retransmit = self.config.retransmit;
        let line = &mut self.lines[at];
        let recent = retransmit.0 / 8;
        for flight in &mut line.flying {
            let this = flight.frame.id().id;
            // The missing one may be on its way: it is only pushed when that was a while ago.
            let push = this == expected && now.since(flight.timer.sent).0 >= recent;
            if flight.outcome.is_some() || (this != id && !push) {
                continue;
            }
            if this == id {
                flight.ballot.clear();
                (flight.answered, flight.fell_back) = (None, false);
            }
            flight.timer = Timer { sent: now, due: now.after(retransmit), attempts: 0 };
            let frame = Arc::clone(&flight.frame);
            self.counters.resent += 1;
            self.effects.push(Effect::Send { pillar: line.pillar, to: SendTo::All, frame });
        }
    }

    /// Follows the size of results: up at once, down slowly.
    pub(super) fn learn_result_size(&mut self, outcome: &Result<Results, OpError>) {
        let seen = match outcome {
            Ok(results) => results.largest(),
            Err(OpError::ResultTooLarge) => limits::REPLY_BYTES_MAX,
            Err(_) => return,
        };
        self.result_bytes = seen.max(self.result_bytes - self.result_bytes / 16);
    }

    pub(super) fn suspect(&mut self, replica: ReplicaId) {
        self.counters.wrong_replies += 1;
        if let Some(standing) = self.replicas.get_mut(usize::from(replica.0)) {
            standing.wrong_replies += 1;
            // Each time the count doubles: a liar must not fill the log.
            if standing.wrong_replies.is_power_of_two() {
                let wrong_replies = standing.wrong_replies;
                self.effects.push(Effect::Suspect { replica, wrong_replies });
            }
        }
    }
}
