//! Principals whose connections brought what no correct client sends: counted, and shut out for
//! a while once that happens too often.
//!
//! Only what was sealed by the principal on a link that proved to live counts against it: bytes
//! that anybody on the way may have changed never do, nor being slow, coming often, or having
//! more to say than the quota allows. A few offences are forgiven, and forgotten in time. Who
//! exceeds that is shut out of all pillars of this replica for a second, then for twice as long
//! each time, up to a minute.
//!
//! Shared by the lanes of a replica. Nobody takes the lock but whoever makes a link or has an
//! offence to tell; all others look at a counter. Bounded: one row per principal of the group
//! that ever offended. Depends on `base` and `throttle` alone.

use std::collections::BTreeMap;

use base::{ClientId, Span, Time};
use serde::{Deserialize, Serialize};

use crate::sync::{AtomicU64, Mutex, MutexGuard, Ordering};
use crate::throttle::Throttle;

/// So many offences are forgiven; the next one is not.
const FORGIVEN: u64 = 4;
/// One offence is forgotten whenever so much time has passed without a ban.
const FORGOTTEN_EVERY: Span = Span::secs(30);
/// The first ban.
const BAN_MIN: Span = Span::secs(1);
/// The longest ban.
const BAN_MAX: Span = Span::secs(60);
/// Most rows in a report.
pub(crate) const ROWS_SHOWN_MAX: usize = 64;

/// What no correct client does.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Offence {
    /// A packet that means nothing, or that only replicas send. The text says which.
    Garbage(&'static str),
    /// A frame of another principal.
    Impostor,
    /// A frame whose authenticator does not convince this replica.
    Forged,
    /// A frame further ahead of its acknowledgements than a stream's window.
    Window,
    /// More questions at a time than anybody has who waits for an answer.
    Questions,
}

impl Offence {
    fn text(self) -> &'static str {
        match self {
            Offence::Garbage(what) => what,
            Offence::Impostor => "frame of another principal",
            Offence::Forged => "authenticator that is not genuine",
            Offence::Window => "frame beyond the window of its stream",
            Offence::Questions => "flood of status queries",
        }
    }
}

/// A principal that sent what no correct client sends.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct ClientRow {
    /// Who.
    pub principal: u32,
    /// How often, since the start.
    pub offences: u64,
    /// What it was the last time.
    pub last: String,
    /// How often it was shut out.
    pub bans: u64,
    /// Seconds until it may come back, rounded up; 0 when it may.
    pub banned_seconds: u64,
}

/// What one principal has done.
#[derive(Clone, Copy, Debug, Default)]
struct Row {
    offences: u64,
    last: &'static str,
    bans: u64,
    /// Offences that are neither forgotten nor punished.
    held: u64,
    /// Bans that are not forgotten: how long the next one is.
    level: u32,
    until: Time,
    /// Up to when forgetting is done.
    mark: Time,
}

/// Who is shut out. One for all lanes of a replica.
#[derive(Debug, Default)]
pub(crate) struct Bans {
    ledger: Mutex<Ledger>,
    /// How many bans there were.
    count: AtomicU64,
}

#[derive(Debug, Default)]
struct Ledger {
    rows: BTreeMap<ClientId, Row>,
    complaints: Throttle,
}

impl Bans {
    /// `client` did what no correct client does.
    pub(crate) fn offend(&self, client: ClientId, offence: Offence, now: Time) {
        let mut ledger = self.lock();
        let Ledger { rows, complaints } = &mut *ledger;
        let row = rows.entry(client).or_default();
        let banned = row.offend(offence, now);
        let seconds = banned.map(|span| span.0 / Span::secs(1).0);
        if complaints.allow(now) {
            let (offences, more) = (row.offences, complaints.suppressed());
            let what = offence.text();
            tracing::warn!(principal = %client, what, offences, ?seconds, more, "client offends");
        }
        if banned.is_some() {
            self.count.fetch_add(1, Ordering::Release);
        }
    }

    /// Whether `client` is shut out.
    pub(crate) fn holds(&self, client: ClientId, now: Time) -> bool {
        self.lock().rows.get(&client).is_some_and(|row| now < row.until)
    }

    /// How many bans there were: whoever sees another number than before looks who is shut out.
    pub(crate) fn count(&self) -> u64 {
        self.count.load(Ordering::Acquire)
    }

    /// What reports show: those that are shut out first, then who offended most.
    pub(crate) fn rows(&self, now: Time) -> Vec<ClientRow> {
        let show = |(client, row): (&ClientId, &Row)| ClientRow {
            principal: client.0,
            offences: row.offences,
            last: row.last.to_owned(),
            bans: row.bans,
            banned_seconds: row.until.since(now).0.div_ceil(Span::secs(1).0),
        };
        let mut shown: Vec<ClientRow> = self.lock().rows.iter().map(show).collect();
        shown.sort_by_key(|row| {
            (row.banned_seconds == 0, std::cmp::Reverse(row.offences), row.principal)
        });
        shown.truncate(ROWS_SHOWN_MAX);
        shown
    }

    fn lock(&self) -> MutexGuard<'_, Ledger> {
        self.ledger.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

impl Row {
    /// One more; for how long that shuts the principal out, if it does.
    fn offend(&mut self, offence: Offence, now: Time) -> Option<Span> {
        self.forget(now);
        self.offences += 1;
        self.last = offence.text();
        if now < self.until {
            // From a connection that is about to be closed.
            return None;
        }
        self.held += 1;
        if self.held <= FORGIVEN {
            return None;
        }
        // From now on each one is punished, until some are forgotten.
        self.held = FORGIVEN;
        let ban = Span(BAN_MIN.0.saturating_mul(1 << self.level.min(16)).min(BAN_MAX.0));
        self.level = self.level.saturating_add(1);
        self.bans += 1;
        self.until = now.after(ban);
        self.mark = self.until;
        Some(ban)
    }

    /// Forgets what time heals: offences, and how long the last ban was.
    fn forget(&mut self, now: Time) {
        let steps = now.since(self.mark).0 / FORGOTTEN_EVERY.0;
        self.mark = self.mark.after(Span(steps * FORGOTTEN_EVERY.0));
        self.held = self.held.saturating_sub(steps);
        self.level = self.level.saturating_sub(u32::try_from(steps).unwrap_or(u32::MAX));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const C: ClientId = ClientId(7);

    fn at(ms: u64) -> Time {
        Time(ms * 1_000_000)
    }

    #[test]
    fn a_few_offences_are_forgiven_and_then_bans_double_up_to_a_minute() {
        let bans = Bans::default();
        for i in 0..FORGIVEN {
            bans.offend(C, Offence::Impostor, at(i));
            assert!(!bans.holds(C, at(i)) && bans.count() == 0);
        }
        let mut now = at(10);
        let mut lengths = vec![];
        for i in 1..=9 {
            bans.offend(C, Offence::Forged, now);
            assert_eq!(bans.count(), i);
            assert!(!bans.holds(ClientId(8), now), "nobody else");
            let row = &bans.rows(now)[0];
            assert_eq!(row.last, Offence::Forged.text());
            lengths.push(row.banned_seconds);
            now = now.after(Span::secs(row.banned_seconds));
            assert!(!bans.holds(C, now), "over");
        }
        assert_eq!(lengths, [1, 2, 4, 8, 16, 32, 60, 60, 60]);
    }

    #[test]
    fn what_comes_from_connections_that_are_being_closed_makes_no_ban_longer() {
        let bans = Bans::default();
        (0..100).for_each(|_| bans.offend(C, Offence::Window, at(5)));
        let rows = bans.rows(at(5));
        assert_eq!((rows[0].offences, rows[0].bans, rows[0].banned_seconds), (100, 1, 1));
    }

    #[test]
    fn rare_offences_are_never_punished_and_old_ones_are_forgotten() {
        let bans = Bans::default();
        for i in 0..1_000 {
            bans.offend(C, Offence::Questions, at(31_000 * i));
        }
        assert_eq!(bans.count(), 0);
        let last = at(31_000 * 1_000);
        (0..FORGIVEN + 1).for_each(|_| bans.offend(C, Offence::Questions, last));
        assert_eq!(bans.count(), 1);
        // Ten minutes later it begins as it did at first.
        let later = last.after(Span::secs(600));
        (0..FORGIVEN).for_each(|_| bans.offend(C, Offence::Questions, later));
        assert_eq!(bans.count(), 1);
        bans.offend(C, Offence::Questions, later);
        assert_eq!(bans.rows(later)[0].banned_seconds, 1);
    }

    #[test]
    fn reports_show_the_worst_and_are_bounded() {
        let bans = Bans::default();
        for client in 0..200 {
            (0..=client % 7)
                .for_each(|_| bans.offend(ClientId(client), Offence::Garbage("x"), at(0)));
        }
        let rows = bans.rows(at(0));
        assert_eq!(rows.len(), ROWS_SHOWN_MAX);
        assert!(rows[0].banned_seconds > 0 && rows[0].offences == 7);
        assert!(rows.iter().all(|row| row.offences >= 5));
    }
}
