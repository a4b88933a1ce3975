//! Which client connection is whose: replies find their way by principal and session, and all
//! connections of one principal share what one of them could have.
//!
//! Where several connections of one session are open, the newest that proved itself gets the
//! replies. In each turn a principal may have so many bytes read, however many connections they
//! come over; less while others want to be read, too. Its packets that are larger than what a
//! connection always has room for share one room: whoever finds it full waits.
//!
//! Who repeats itself too often is not read at all for a while. That is remembered when it hangs
//! up, so that calling again changes nothing; there are only so many principals.
//!
//! Connections that are not read for a while, because their principal has reached its quota, say,
//! wait in one row per principal: one of them is tried at a time, and the next one when that went
//! well. What fills one connection's quota fills that of all, so that trying all of them costs a
//! replica the more the more of them a client makes, and tells it nothing.
//!
//! Making a link costs the lane as much arithmetic as thousands of operations. So a principal whose
//! links end soon makes some anew at once, and then, while others work, one every so often. Links
//! that stay cost it nothing, for all clients come back at once when a replica was away, nor do
//! those over which no frame came: people and programs ask for the status of a group in trouble
//! many times. Only links that have proved to live count, so that nobody can use up what is another
//! one's: a hello can be recorded and said again by anybody. What hellos may take that do not
//! count is bounded in `strangers`.
//!
//! Not here: sockets, packets, and what waits for each client (`unread`).

use std::collections::{BTreeMap, HashMap, VecDeque};

use base::{ClientId, SessionId, Span, Time};

use crate::unread::{Purse, Unread};

/// What a principal may have read in one turn while others want that, too, in bytes.
const SHARE_CONTENDED: usize = 1 << 20;
/// What it may have read in one turn while it is alone, in bytes: votes must not wait for long.
const SHARE_ALONE: usize = 8 << 20;
/// What the large packets of a principal may take together, in bytes, whole or in part, until
/// all their frames are taken. One always fits.
const ROOM_BYTES: usize = 64 << 20;

/// So many links of a principal to a lane may end at once before it has to wait for the next one.
const LINKS_AT_ONCE: u64 = 128;
/// How long it takes until it may make one more.
const LINK_EVERY: Span = Span::millis(125);
/// The time that all of them are worth.
const ALLOWANCE: Span = Span(LINKS_AT_ONCE * LINK_EVERY.0);
/// A link that was there for so long costs nothing when it ends.
const LASTING: Span = Span::secs(60);
/// Who was read so long ago does not work any more. Longer than most view changes.
const GONE_AFTER: Span = Span::secs(3);
/// When so many principals are remembered for their links, those are forgotten that may make all
/// of them again.
const HASTE_KEPT: usize = 1024;

/// The client connections of one lane.
#[derive(Debug)]
pub(crate) struct ClientTable {
    routes: HashMap<(ClientId, SessionId), usize>,
    per_principal: HashMap<ClientId, Principal>,
    /// When each principal some of whose links ended of late has all its allowance again.
    haste: HashMap<ClientId, Time>,
    /// Connections that are not read for a while, of each principal in the order of their turns.
    paused: BTreeMap<ClientId, VecDeque<usize>>,
    /// What waits to be written to them.
    pub(crate) unread: Unread,
    turn: u64,
    /// The last two principals that were read, and when.
    heard: [(ClientId, Option<Time>); 2],
    /// When the turn began.
    now: Time,
    /// Principals that wanted to be read in this turn.
    readers: usize,
    /// Whether there were several in the last one.
    contended: bool,
    total: usize,
    total_max: usize,
    per_principal_max: usize,
}

/// What the connections of one principal share.
#[derive(Clone, Copy, Debug)]
struct Principal {
    connections: usize,
    /// The turn that `share` belongs to.
    turn: u64,
    /// Bytes that may be read in this turn.
    share: usize,
    /// Bytes of room that large packets take.
    reserved: usize,
    /// Until when it is not listened to.
    ignored_until: Time,
    /// The sum of what waits for it.
    purse: Purse,
}

impl Principal {
    /// One without connections.
    fn new(purse: Purse) -> Principal {
        let (turn, ignored_until) = (0, Time::ZERO);
        Principal { connections: 0, turn, share: 0, reserved: 0, ignored_until, purse }
    }
}

/// The limit of connections is reached.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Crowded;

impl ClientTable {
    /// No connections; at most `total_max`, of which one principal may have `per_principal_max`.
    pub(crate) fn new(total_max: usize, per_principal_max: usize) -> ClientTable {
        ClientTable {
            routes: HashMap::new(),
            per_principal: HashMap::new(),
            haste: HashMap::new(),
            paused: BTreeMap::new(),
            unread: Unread::default(),
            turn: 0,
            heard: [(ClientId(0), None); 2],
            now: Time::ZERO,
            readers: 0,
            contended: false,
            total: 0,
            total_max,
            per_principal_max,
        }
    }

    /// Whether too many links of `client` have ended of late for one more now, while others work.
    pub(crate) fn hurries(&self, client: ClientId, now: Time) -> bool {
        let calm = self.haste.get(&client);
        calm.is_some_and(|calm| calm.since(now).0 + LINK_EVERY.0 > ALLOWANCE.0)
            && self.others_work(client, now)
    }

    /// Whether somebody else than `client` was read of late.
    fn others_work(&self, client: ClientId, now: Time) -> bool {
        let late = |at: Option<Time>| at.is_some_and(|at| now.since(at) < GONE_AFTER);
        self.heard.iter().any(|(other, at)| *other != client && late(*at))
    }

    /// A link of `client` that proved to live is over, after so long.
    fn ended(&mut self, client: ClientId, lived: Span, now: Time) {
        if lived >= LASTING || !self.others_work(client, now) {
            return;
        }
        if self.haste.len() >= HASTE_KEPT {
            self.haste.retain(|_, calm| *calm > now);
        }
        let calm = self.haste.entry(client).or_insert(now);
        *calm = (*calm).max(now).after(LINK_EVERY);
    }

    /// There was no room for a link of `client`: it has too many, or others have all.
    pub(crate) fn turned_away(&mut self, client: ClientId, now: Time) {
        let own = self.per_principal.get(&client).map_or(0, |own| own.connections);
        if own >= self.per_principal_max {
            self.ended(client, Span(0), now);
        }
    }

    /// The connection `slot` is authenticated and its other end lives.
    ///
    /// # Errors
    /// When there are too many: close it.
    pub(crate) fn up(
        &mut self,
        client: ClientId,
        session: SessionId,
        slot: usize,
    ) -> Result<(), Crowded> {
        let own = self.per_principal.get(&client).map_or(0, |own| own.connections);
        if self.total >= self.total_max || own >= self.per_principal_max {
            return Err(Crowded);
        }
        self.total += 1;
        let unread = &mut self.unread;
        let own = self.per_principal.entry(client);
        let own = own.or_insert_with(|| Principal::new(unread.begin()));
        own.connections += 1;
        unread.up(slot, own.purse);
        self.routes.insert((client, session), slot);
        Ok(())
    }

    /// The connection `slot`, which was up, is gone, and what it had reserved. `lived` says how
    /// long it was there, if frames came over it.
    pub(crate) fn down(
        &mut self,
        client: ClientId,
        session: SessionId,
        (slot, reserved): (usize, usize),
        lived: Option<Span>,
        now: Time,
    ) {
        if let Some(lived) = lived {
            self.ended(client, lived, now);
        }
        self.total -= 1;
        self.resumed(client, slot);
        self.unread.down(slot);
        if let Some(own) = self.per_principal.get_mut(&client) {
            own.connections -= 1;
            own.reserved -= reserved;
            if own.connections == 0 && own.ignored_until == Time::ZERO {
                self.unread.end(own.purse);
                self.per_principal.remove(&client);
            }
        }
        if self.routes.get(&(client, session)) == Some(&slot) {
            self.routes.remove(&(client, session));
        }
    }

    /// Where replies to this session go.
    pub(crate) fn route(&self, client: ClientId, session: SessionId) -> Option<usize> {
        self.routes.get(&(client, session)).copied()
    }

    /// A turn of reading begins: everybody has its share anew.
    pub(crate) fn begin_turn(&mut self, now: Time) {
        self.turn += 1;
        self.now = now;
        self.contended = std::mem::take(&mut self.readers) > 1;
    }

    /// Bytes that the connections of `client` may still have read in this turn.
    pub(crate) fn share(&mut self, client: ClientId) -> usize {
        let Some(own) = self.per_principal.get_mut(&client) else { return 0 };
        if own.turn != self.turn {
            own.turn = self.turn;
            own.share = if self.contended { SHARE_CONTENDED } else { SHARE_ALONE };
            self.readers += 1;
            if self.heard[0].0 != client {
                self.heard.swap(0, 1);
            }
            self.heard[0] = (client, Some(self.now));
        }
        own.share
    }

    /// A connection of `client` had `bytes` read.
    pub(crate) fn spend(&mut self, client: ClientId, bytes: usize) {
        if let Some(own) = self.per_principal.get_mut(&client) {
            own.share = own.share.saturating_sub(bytes);
        }
    }

    /// Nothing is to be read from `client` for `span` more.
    pub(crate) fn ignore(&mut self, client: ClientId, now: Time, span: Span) {
        if let Some(own) = self.per_principal.get_mut(&client).filter(|_| span > Span(0)) {
            own.ignored_until = own.ignored_until.max(now).after(span);
        }
    }

    /// Whether nothing is to be read from `client` now.
    pub(crate) fn ignores(&self, client: ClientId, now: Time) -> bool {
        self.per_principal.get(&client).is_some_and(|own| own.ignored_until > now)
    }

    /// The connection `slot` of `client` is not read for a while.
    pub(crate) fn pause(&mut self, client: ClientId, slot: usize) {
        let row = self.paused.entry(client).or_default();
        if !row.contains(&slot) {
            row.push_back(slot);
        }
    }

    /// The connection `slot` of `client` is read again, or is gone.
    pub(crate) fn resumed(&mut self, client: ClientId, slot: usize) {
        if let Some(row) = self.paused.get_mut(&client) {
            row.retain(|waits| *waits != slot);
            if row.is_empty() {
                self.paused.remove(&client);
            }
        }
    }

    /// The connection of `client` whose turn it is to be tried again, of those that pause.
    pub(crate) fn first_paused(&self, client: ClientId) -> Option<usize> {
        self.paused.get(&client)?.front().copied()
    }

    /// The same of each principal that has one.
    pub(crate) fn all_first_paused(&self) -> Vec<usize> {
        self.paused.values().filter_map(|row| row.front().copied()).collect()
    }

    /// Whether any connection pauses.
    pub(crate) fn any_paused(&self) -> bool {
        !self.paused.is_empty()
    }

    /// Takes room for a large packet of `client`. False when it has to wait for others of its.
    pub(crate) fn reserve(&mut self, client: ClientId, bytes: usize) -> bool {
        let Some(own) = self.per_principal.get_mut(&client) else { return false };
        let fits = own.reserved == 0 || own.reserved + bytes <= ROOM_BYTES;
        if fits {
            own.reserved += bytes;
        }
        fits
    }

    /// Gives back what was taken for a packet.
    pub(crate) fn release(&mut self, client: ClientId, bytes: usize) {
        if let Some(own) = self.per_principal.get_mut(&client) {
            own.reserved -= bytes;
        }
    }

    /// Number of connections.
    pub(crate) fn count(&self) -> usize {
        self.total
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const C: ClientId = ClientId(1);
    const S: SessionId = SessionId(2);

    #[test]
    fn the_newest_connection_gets_the_replies_and_the_older_may_go() {
        let mut table = ClientTable::new(8, 8);
        assert_eq!(table.up(C, S, 1), Ok(()));
        assert_eq!(table.up(C, S, 2), Ok(()));
        assert_eq!(table.route(C, S), Some(2));
        table.down(C, S, (1, 0), None, Time::ZERO);
        assert_eq!(table.route(C, S), Some(2));
        table.down(C, S, (2, 0), None, Time::ZERO);
        assert_eq!((table.route(C, S), table.count()), (None, 0));
        assert!(table.per_principal.is_empty() && table.routes.is_empty());
    }

    #[test]
    fn both_limits_hold() {
        let mut table = ClientTable::new(3, 2);
        assert_eq!(table.up(C, S, 1), Ok(()));
        assert_eq!(table.up(C, S, 2), Ok(()));
        assert_eq!(table.up(C, S, 3), Err(Crowded), "one principal");
        assert_eq!(table.up(ClientId(9), S, 3), Ok(()));
        assert_eq!(table.up(ClientId(8), S, 4), Err(Crowded), "all together");
        table.down(C, S, (1, 0), None, Time::ZERO);
        assert_eq!(table.up(ClientId(8), S, 4), Ok(()));
    }

    #[test]
    fn all_connections_of_a_principal_share_what_one_of_them_could_have_read() {
        let mut table = ClientTable::new(300, 200);
        let other = ClientId(9);
        for slot in 0..100 {
            table.up(C, SessionId(slot), slot as usize).expect("room");
        }
        table.up(other, S, 100).expect("room");
        // Nobody is known to compete in the first turn.
        table.begin_turn(Time::ZERO);
        assert_eq!((table.share(C), table.share(other)), (SHARE_ALONE, SHARE_ALONE));
        table.begin_turn(Time::ZERO);
        assert_eq!(table.share(C), SHARE_CONTENDED);
        for _ in 0..100 {
            let some = table.share(C).min(300 << 10);
            table.spend(C, some);
        }
        assert_eq!((table.share(C), table.share(other)), (0, SHARE_CONTENDED));
        table.begin_turn(Time::ZERO);
        table.share(C);
        table.begin_turn(Time::ZERO);
        assert_eq!(table.share(C), SHARE_ALONE, "the other one was silent");
    }

    #[test]
    fn large_packets_of_a_principal_share_a_room_in_which_one_always_fits() {
        let mut table = ClientTable::new(8, 8);
        for slot in 1..=3 {
            table.up(C, SessionId(slot), slot as usize).expect("room");
        }
        assert!(table.reserve(C, 2 * ROOM_BYTES), "one fits");
        assert!(!table.reserve(C, 1), "and no other one then");
        table.release(C, 2 * ROOM_BYTES);
        assert!(table.reserve(C, ROOM_BYTES / 2) && table.reserve(C, ROOM_BYTES / 2));
        assert!(!table.reserve(C, 1));
        table.down(C, SessionId(1), (1, ROOM_BYTES / 2), None, Time::ZERO);
        assert!(table.reserve(C, 1), "a lost connection gives its room back");
    }

    /// What it sent too often counts for all its connections, adds up, and is not forgotten when
    /// it hangs up.
    #[test]
    fn a_principal_is_ignored_for_as_long_as_it_earned() {
        let mut table = ClientTable::new(8, 8);
        table.up(C, S, 1).expect("room");
        let (now, span) = (Time(1_000), Span::millis(1));
        table.ignore(C, now, Span(0));
        assert!(!table.ignores(C, now));
        table.ignore(C, now, span);
        table.ignore(C, now, span);
        table.down(C, S, (1, 0), None, Time::ZERO);
        table.up(C, S, 2).expect("room");
        assert!(table.ignores(C, now.after(span)));
        assert!(!table.ignores(C, now.after(span).after(span)));
        assert!(!table.ignores(ClientId(C.0 + 1), now));
    }

    /// However many connections a principal has, one is tried, and each in its turn.
    #[test]
    fn of_the_connections_of_one_principal_that_pause_one_is_tried_at_a_time() {
        let mut table = ClientTable::new(600, 600);
        let other = ClientId(9);
        for slot in 0..500 {
            table.up(C, SessionId(slot), slot as usize).expect("room");
            table.pause(C, slot as usize);
            table.pause(C, slot as usize);
        }
        table.up(other, S, 500).expect("room");
        table.pause(other, 500);
        let mut tried = vec![];
        for _ in 0..500 {
            let first = table.all_first_paused();
            assert_eq!((first.len(), first[1]), (2, 500));
            tried.push(first[0]);
            // It is refused once more.
            table.resumed(C, first[0]);
            table.pause(C, first[0]);
        }
        assert_eq!(tried, (0..500).collect::<Vec<_>>());
        // One that is gone is not tried, and does not stay in the row.
        table.down(C, SessionId(0), (0, 0), None, Time::ZERO);
        assert_eq!(table.first_paused(C), Some(1));
        (1..500).for_each(|slot| table.resumed(C, slot));
        table.resumed(other, 500);
        assert!(!table.any_paused() && table.paused.is_empty());
    }

    fn at(ms: u64) -> Time {
        Time(ms * 1_000_000)
    }

    fn read(table: &mut ClientTable, clients: &[ClientId], ms: u64) {
        table.begin_turn(at(ms));
        assert!(clients.iter().all(|client| table.share(*client) > 0));
    }

    /// A link of `client` that ends at once, if it may make one.
    fn make(table: &mut ClientTable, client: ClientId, ms: u64) -> u64 {
        let free = !table.hurries(client, at(ms));
        if free {
            table.ended(client, Span(0), at(ms));
        }
        u64::from(free)
    }

    fn table_of_two(other: ClientId) -> ClientTable {
        let mut table = ClientTable::new(8, 8);
        for (slot, client) in [(1, C), (2, other)] {
            table.up(client, S, slot).expect("room");
        }
        table
    }

    #[test]
    fn links_that_are_made_too_fast_have_to_wait_while_others_work() {
        let other = ClientId(9);
        let mut table = table_of_two(other);
        read(&mut table, &[C], 1_000);
        let alone: u64 = (0..500).map(|_| make(&mut table, C, 1_000)).sum();
        assert_eq!(alone, 500, "nobody is there whom that could harm");
        read(&mut table, &[C, other, C], 1_000);
        let at_once: u64 = (0..500).map(|_| make(&mut table, C, 1_000)).sum();
        assert_eq!(at_once, LINKS_AT_ONCE, "nothing is owed for those");
        assert_eq!(make(&mut table, other, 1_000), 1, "nobody else waits");
        let later = (1_000..7_000).map(|ms| {
            read(&mut table, &[other, C], ms);
            make(&mut table, C, ms)
        });
        let later: u64 = later.sum();
        assert!((47..=48).contains(&later), "{later} in six seconds");
        assert_eq!(make(&mut table, C, 10_100), 1, "the others are gone");
    }

    #[test]
    fn links_that_end_together_are_owed_for_each() {
        let other = ClientId(9);
        let mut table = table_of_two(other);
        read(&mut table, &[C, other], 1_000);
        let ended = LINKS_AT_ONCE + 48;
        (0..ended).for_each(|_| table.ended(C, Span::secs(1), at(1_000)));
        read(&mut table, &[other], 6_900);
        assert!(table.hurries(C, at(6_900)), "48 more than there may be, one every 125 ms");
        assert!(!table.hurries(C, at(7_200)));
        (0..500).for_each(|_| table.ended(C, LASTING, at(7_200)));
        assert!(!table.hurries(C, at(7_200)), "those were no waste");
    }

    #[test]
    fn only_ones_own_crowd_counts() {
        let other = ClientId(9);
        let mut table = ClientTable::new(3, 2);
        for (slot, client) in [(1, C), (2, C), (3, other)] {
            table.up(client, S, slot).expect("room");
        }
        read(&mut table, &[C, other], 1_000);
        (0..LINKS_AT_ONCE).for_each(|_| table.turned_away(C, at(1_000)));
        (0..LINKS_AT_ONCE).for_each(|_| table.turned_away(other, at(1_000)));
        assert!(table.hurries(C, at(1_000)) && !table.hurries(other, at(1_000)));
    }

    #[test]
    fn who_made_links_long_ago_is_forgotten() {
        let mut table = table_of_two(ClientId(9));
        for id in 10..10 + 3 * u32::try_from(HASTE_KEPT).expect("few") {
            read(&mut table, &[C], id.into());
            table.ended(ClientId(id), Span(0), at(id.into()));
            assert!(table.haste.len() <= HASTE_KEPT);
        }
        assert!(table.haste.len() > 60, "who has just come is not: {}", table.haste.len());
    }
}
