//! Clients that die, and that their ephemeral nodes go in time, by agreed time: not before the
//! session's timeout after the group last heard of it, and not later than the documentation says.
//!
//! Agreed time is what the group writes into a node that is written: a node is looked at between
//! two writes, and was there, or gone, at some agreed time between theirs. Between consecutive
//! writes the group may have ordered nothing, and then nobody's time runs.

use std::time::Duration;

use svc::zk::kind;

use super::client::{Client, Failure, NO_NODE, jute};
use super::crowd::{Crowd, LIVE, create, plain, set};

/// Timeouts of sessions whose clients die.
const TIMEOUTS_MS: [u64; 3] = [2_000, 2_500, 4_000];
/// How many of them may be dying at a time.
const DYING_MAX: usize = 4;
/// What the documentation says: how old the record of a sign of life may be, and how often the
/// service is woken.
const BOUND_MS: i64 = 100 + 500;
/// As long as this is ordering a tick; if nothing is ordered for longer, the group stood still.
const LULL_MS: i64 = 250;

/// What became of the clients that died.
#[derive(Clone, Copy, Default, Debug)]
pub struct Deaths {
    pub dead: u64,
    /// The least and the most by which one outlived its timeout, in ms of agreed time.
    pub earliest_ms: i64,
    pub latest_ms: i64,
    /// The same without the time in which the group stood still.
    pub latest_running_ms: i64,
    /// The longest time in which it did.
    pub standstill_ms: i64,
}

/// A session whose client is dead.
struct Dying {
    path: String,
    /// Agreed time of its last request.
    heard: i64,
    timeout_ms: i64,
    /// For how long the group ordered nothing since then.
    standstill_ms: i64,
    /// Its connection, of one that is not closed.
    _silent: Option<Client>,
}

/// Whoever looks on.
struct Wake {
    client: Client,
    /// The agreed time that was seen last.
    now: i64,
    dying: Vec<Dying>,
    deaths: Deaths,
}

impl Crowd {
    /// Lets clients die until it is told to stop, and sees to the end of all of them.
    ///
    /// # Errors
    /// When one ends too early or too late.
    pub fn bury(&self) -> Result<Deaths, String> {
        let (client, deaths) = (self.client(1, LIVE), Deaths::default());
        let mut wake = Wake { client, now: 0, dying: vec![], deaths };
        let mut number = 0;
        while !self.stops() || !wake.dying.is_empty() {
            if !self.stops() && wake.dying.len() < DYING_MAX {
                number += 1;
                wake.dying.extend(self.doom(number));
            }
            match wake.look() {
                Ok(seen) => seen?,
                Err(Failure::Lost) => {}
                Err(Failure::Expired) => return Err("the session of who looks on is over".into()),
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(wake.deaths)
    }

    /// A client that makes an ephemeral node and is never heard of again; `None` when it is not
    /// known when it was heard of last.
    fn doom(&self, number: usize) -> Option<Dying> {
        let timeout_ms = TIMEOUTS_MS[number % TIMEOUTS_MS.len()];
        let mut client = self.client(number, Duration::from_millis(timeout_ms));
        let path = format!("/e/dying-{number}");
        let made = client.call(kind::CREATE2, &create(&path, 1)).ok()?;
        let heard = made.stat()?.mtime;
        // One that had to wait has pinged meanwhile, and may be heard of once more.
        let is_known = client.pings == 0;
        // Every other one keeps its connection, and says nothing on it.
        let silent = number.is_multiple_of(2).then_some(client);
        let timeout_ms = i64::try_from(timeout_ms).expect("some seconds");
        let dying = Dying { path, heard, timeout_ms, standstill_ms: 0, _silent: silent };
        is_known.then_some(dying)
    }
}

impl Wake {
    /// Agreed time goes on to what a write says.
    fn time(&mut self) -> Result<i64, Failure> {
        let reply = self.client.call(kind::SET_DATA, &set("/probe", b""))?;
        let now = reply.stat().expect("it is there").mtime;
        let gap = now - self.now;
        if gap > LULL_MS && self.now > 0 {
            self.deaths.standstill_ms = self.deaths.standstill_ms.max(gap);
            self.dying.iter_mut().for_each(|dying| dying.standstill_ms += gap);
        }
        self.now = now;
        Ok(now)
    }

    /// Looks at everybody between two writes.
    fn look(&mut self) -> Result<Result<(), String>, Failure> {
        let from = self.time()?;
        let mut gone = vec![];
        for dying in &self.dying {
            let reply = self.client.call(kind::EXISTS, &plain(&dying.path))?;
            assert!(matches!(reply.error, 0 | NO_NODE), "{}", reply.error);
            gone.push(reply.error == NO_NODE);
        }
        let until = self.time()?;
        for (dying, gone) in self.dying.iter().zip(&gone) {
            if let Err(why) = dying.judge(*gone, (from, until)) {
                return Ok(Err(why));
            }
        }
        let deaths = &mut self.deaths;
        for dying in self.dying.iter().zip(&gone).filter(|(_, gone)| **gone).map(|(own, _)| own) {
            let late = until - dying.heard - dying.timeout_ms;
            let first = deaths.dead == 0;
            deaths.dead += 1;
            deaths.earliest_ms = if first { late } else { deaths.earliest_ms.min(late) };
            deaths.latest_ms = deaths.latest_ms.max(late);
            deaths.latest_running_ms = deaths.latest_running_ms.max(late - dying.standstill_ms);
        }
        let mut gone = gone.into_iter();
        self.dying.retain(|_| !gone.next().expect("one each"));
        Ok(Ok(()))
    }
}

impl Dying {
    /// It was there, or gone, at an agreed time in this span.
    fn judge(&self, gone: bool, (from, until): (i64, i64)) -> Result<(), String> {
        let Dying { path, heard, timeout_ms, standstill_ms, .. } = self;
        let ends = heard + timeout_ms;
        if gone && until < ends {
            return Err(format!("{path} is gone at {until}, heard of at {heard} + {timeout_ms}"));
        }
        let bound = ends + BOUND_MS + LULL_MS + standstill_ms;
        if !gone && from > bound {
            return Err(format!("{path} is there at {from}: {heard} + {timeout_ms}, {bound}"));
        }
        Ok(())
    }
}
