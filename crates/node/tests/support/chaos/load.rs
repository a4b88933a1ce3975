//! Load over real Redis connections whose every effect is remembered: in the ledger what was
//! acknowledged, in the history what was seen of shared keys, and when replies came.
//!
//! Each connection has one command under way at a time, paced. An error or a lost connection
//! leaves open what happened to the command; both are counted and kept.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::history::{Event, History, Op};
use super::ledger::{Ledger, Reader};

/// Far beyond what a gateway takes to give up: a hang is a failure.
const HANG: Duration = Duration::from_secs(90);
/// Operations of one connection after which the keys change: what is unsure stays with the old
/// ones, so that histories stay short.
const GENERATION: u64 = 200;
/// Shared registers and counters of one generation.
const SHARED: u64 = 3;
/// Errors that are kept with their text.
const ERRORS_KEPT: usize = 50;

/// A connection that reports errors instead of panicking.
pub struct Connection(BufReader<TcpStream>);

/// What a gateway answers.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Reply {
    Line(String),
    Number(i64),
    Bulk(Option<Vec<u8>>),
    Many(Vec<Reply>),
}

impl Connection {
    pub fn open(port: u16) -> std::io::Result<Connection> {
        let stream = TcpStream::connect(("127.0.0.1", port))?;
        stream.set_read_timeout(Some(HANG))?;
        stream.set_nodelay(true)?;
        Ok(Connection(BufReader::with_capacity(64 << 10, stream)))
    }

    /// Sends a command and reads its reply.
    ///
    /// # Errors
    /// The error reply, or why there is none.
    pub fn call(&mut self, words: &[&str]) -> Result<Reply, String> {
        self.send(words).map_err(|error| error.to_string())?;
        self.reply()
    }

    pub fn send(&mut self, words: &[&str]) -> std::io::Result<()> {
        let mut out = format!("*{}\r\n", words.len());
        for word in words {
            out.push_str(&format!("${}\r\n{word}\r\n", word.len()));
        }
        self.0.get_mut().write_all(out.as_bytes())
    }

    /// Reads one reply.
    ///
    /// # Errors
    /// The error reply, or why there is none.
    pub fn reply(&mut self) -> Result<Reply, String> {
        let mut line = String::new();
        match self.0.read_line(&mut line) {
            Ok(0) => return Err("the connection was closed".to_owned()),
            Ok(_) => {}
            Err(error) => return Err(error.to_string()),
        }
        let (kind, rest) = line.trim_end().split_at(1);
        let number = || rest.parse::<i64>().map_err(|_| format!("no number in {line:?}"));
        match kind {
            "+" => Ok(Reply::Line(rest.to_owned())),
            "-" => Err(rest.to_owned()),
            ":" => Ok(Reply::Number(number()?)),
            "$" => {
                let Ok(len) = usize::try_from(number()?) else { return Ok(Reply::Bulk(None)) };
                let mut bytes = vec![0; len + 2];
                self.0.read_exact(&mut bytes).map_err(|error| error.to_string())?;
                bytes.truncate(len);
                Ok(Reply::Bulk(Some(bytes)))
            }
            "*" => (0..number()?).map(|_| self.reply()).collect::<Result<_, _>>().map(Reply::Many),
            _ => Err(format!("no reply: {line:?}")),
        }
    }
}

impl Reply {
    /// The number in a bulk string or an integer; `None` for nothing.
    pub fn value(&self) -> Option<u64> {
        match self {
            Reply::Number(number) => u64::try_from(*number).ok(),
            Reply::Bulk(bytes) => {
                let text = std::str::from_utf8(bytes.as_ref()?).expect("our own values");
                Some(text.parse().expect("our own values"))
            }
            other => panic!("no value: {other:?}"),
        }
    }
}

/// Reads the books' keys; what fails for want of an answer is asked again.
impl Reader for Connection {
    fn get(&mut self, key: &str) -> Option<u64> {
        crate::cluster::until("a GET is answered", || self.call(&["GET", key])).value()
    }

    fn list(&mut self, key: &str) -> Vec<u64> {
        let words = ["LRANGE", key, "0", "-1"];
        match crate::cluster::until("a LRANGE is answered", || self.call(&words)) {
            Reply::Many(items) => items.iter().filter_map(Reply::value).collect(),
            other => panic!("no list: {other:?}"),
        }
    }
}

/// Where a load goes and how hard.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Ports of gateways; connections take them in turn.
    pub gateways: Vec<u16>,
    pub connections: u64,
    /// Least time from one command of a connection to its next.
    pub pace: Duration,
    /// What the names of all keys begin with: another one for each load on a group.
    pub keys: String,
}

/// A request with a good reply: the moments of both, in microseconds.
type Request = (u64, u64);

/// What all connections share.
struct Shared {
    began: Instant,
    stop: AtomicBool,
    unique: AtomicU64,
    history: History,
    ledger: Ledger,
    requests: Mutex<Vec<Request>>,
    errors: Mutex<(u64, Vec<String>)>,
}

impl Shared {
    fn now(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_nanos()).expect("not for centuries")
    }
}

/// A load that runs until it is stopped.
pub struct Load {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
    events: Vec<(u64, String)>,
    forgiven: u64,
}

impl Load {
    pub fn start(plan: &Plan) -> Load {
        let shared = Arc::new(Shared {
            began: Instant::now(),
            stop: AtomicBool::new(false),
            unique: AtomicU64::new(1),
            history: History::default(),
            ledger: Ledger::default(),
            requests: Mutex::default(),
            errors: Mutex::default(),
        });
        let threads = (0..plan.connections)
            .map(|id| {
                let at = usize::try_from(id).expect("few") % plan.gateways.len();
                let (port, pace, keys) = (plan.gateways[at], plan.pace, plan.keys.clone());
                let shared = Arc::clone(&shared);
                std::thread::spawn(move || Worker { id, port, pace, keys, shared }.run())
            })
            .collect();
        Load { shared, threads, events: Vec::new(), forgiven: 0 }
    }

    /// Good replies so far.
    pub fn replies(&self) -> u64 {
        self.shared.requests.lock().expect("nobody panics with it").len() as u64
    }

    /// Something happens now that may cost a pause.
    pub fn event(&mut self, what: &str) {
        self.events.push((self.shared.now() / 1000, what.to_owned()));
    }

    /// Waits until `count` more requests, sent from now on, got good replies.
    pub fn flows(&self, count: u64) {
        let after = self.shared.now() / 1000;
        crate::cluster::until("the load goes on", || {
            let requests = self.shared.requests.lock().expect("nobody panics with it");
            let later = requests.iter().rev().take_while(|(_, end)| *end > after);
            let new = later.filter(|(start, _)| *start > after).count() as u64;
            let last = || self.shared.errors.lock().expect("nobody panics with it").clone();
            if new >= count { Ok(()) } else { Err(format!("{new} of {count}; {:?}", last())) }
        });
    }

    /// So far, no answer within the gateway's patience was nobody's fault: there was no network to
    /// answer over. Any other error still counts, and so does every one from now on.
    pub fn forgive_silence(&mut self) {
        let (errors, texts) = self.shared.errors.lock().expect("as above").clone();
        let silent = |text: &String| text.contains("the command may or may not be executed");
        assert!(texts.iter().all(silent), "more than silence: {texts:#?}");
        self.forgiven = errors;
    }

    /// Ends the load and returns what came of it.
    pub fn stop(mut self) -> Outcome {
        self.shared.stop.store(true, Ordering::Relaxed);
        self.threads.drain(..).for_each(|thread| thread.join().expect("no worker panics"));
        let mut requests = std::mem::take(&mut *self.shared.requests.lock().expect("as above"));
        requests.sort_unstable();
        let end_us = self.shared.now() / 1000;
        let (errors, texts) = self.shared.errors.lock().expect("as above").clone();
        let pauses = pauses(&self.events, &requests, end_us);
        let (shared, forgiven) = (Arc::clone(&self.shared), self.forgiven);
        Outcome { shared, requests, end_us, errors, forgiven, texts, pauses }
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
    }
}

/// What an event cost the clients.
#[derive(Clone, Debug)]
pub struct Pause {
    pub event: String,
    /// The longest time without a good reply to anybody, in microseconds.
    pub silence_us: u64,
    /// The slowest request, in microseconds.
    pub slowest_us: u64,
}

/// Per event, what happened from it to the next one.
fn pauses(events: &[(u64, String)], requests: &[Request], end_us: u64) -> Vec<Pause> {
    let mut ends: Vec<u64> = requests.iter().map(|(_, end)| *end).collect();
    ends.sort_unstable();
    let until = events.iter().skip(1).map(|(at, _)| *at).chain([end_us]);
    let pause = |((from, event), until): (&(u64, String), u64)| {
        let inside = ends.iter().filter(|end| (*from..until).contains(*end));
        let moments: Vec<u64> = [*from].into_iter().chain(inside.copied()).chain([until]).collect();
        let silence_us = moments.windows(2).map(|two| two[1] - two[0]).max().unwrap_or(0);
        let touched = requests.iter().filter(|(start, end)| *start < until && *end >= *from);
        let slowest_us = touched.map(|(start, end)| end - start).max().unwrap_or(0);
        Pause { event: event.clone(), silence_us, slowest_us }
    };
    events.iter().zip(until).map(pause).collect()
}

/// What came of a load.
pub struct Outcome {
    shared: Arc<Shared>,
    requests: Vec<Request>,
    end_us: u64,
    /// Error replies and lost connections.
    pub errors: u64,
    /// As many of them were to be expected.
    forgiven: u64,
    /// The first of them.
    pub texts: Vec<String>,
    pub pauses: Vec<Pause>,
}

impl Outcome {
    pub fn ledger(&self) -> &Ledger {
        &self.shared.ledger
    }

    /// That what clients saw is linearizable, and that nothing acknowledged is lost.
    pub fn verify(&self, port: u16) {
        if let Err(why) = self.check(port) {
            panic!("{why}");
        }
    }

    /// The same, without a panic.
    ///
    /// # Errors
    /// What is not linearizable, or lost.
    pub fn check(&self, port: u16) -> Result<(), String> {
        assert!(!self.requests.is_empty(), "a load without replies proves nothing");
        let mut reader = Connection::open(port).expect("the gateway listens");
        let lost = self.shared.ledger.verify(&mut reader);
        lost.map_err(|why| format!("acknowledged writes are lost:\n{why}"))?;
        self.shared.history.check()
    }

    /// That no client saw an error but those that were forgiven.
    pub fn without_errors(&self) -> &Outcome {
        assert_eq!(self.errors, self.forgiven, "{:#?}", self.texts);
        self
    }

    /// Good replies per second over the whole load.
    pub fn rate(&self) -> u64 {
        self.requests.len() as u64 * 1_000_000 / self.end_us.max(1)
    }

    /// Median and worst pause over the events, in milliseconds, and how much went through.
    pub fn figures(&self) -> serde_json::Value {
        let sorted = |of: fn(&Pause) -> u64| {
            let mut all: Vec<u64> = self.pauses.iter().map(|pause| of(pause) / 1000).collect();
            all.sort_unstable();
            let (median, worst) = (all.get(all.len() / 2).copied(), all.last().copied());
            serde_json::json!({ "median": median, "worst": worst })
        };
        serde_json::json!({
            "events": self.pauses.len(),
            "silence_ms": sorted(|pause| pause.silence_us),
            "slowest_request_ms": sorted(|pause| pause.slowest_us),
            "requests": self.requests.len(),
            "requests_per_s": self.rate(),
            "errors": self.errors,
            "acknowledged_writes": self.shared.ledger.acknowledged(),
        })
    }
}

/// One connection.
struct Worker {
    id: u64,
    port: u16,
    pace: Duration,
    keys: String,
    shared: Arc<Shared>,
}

impl Worker {
    fn run(&self) {
        let mut connection = None;
        let mut turn = 0;
        let mut due = Instant::now();
        while !self.shared.stop.load(Ordering::Relaxed) {
            std::thread::sleep(due.saturating_duration_since(Instant::now()));
            due = (due + self.pace).max(Instant::now());
            let Some(open) = connection.as_mut() else {
                connection = Connection::open(self.port).ok();
                due += Duration::from_millis(20);
                continue;
            };
            let failed = self.one(open, turn);
            turn += 1;
            if let Err(why) = failed {
                // An error reply leaves the connection in order; anything else does not.
                let in_order = ["UNKNOWN", "TRYAGAIN", "ERR"];
                if !in_order.iter().any(|code| why.starts_with(code)) {
                    connection = None;
                }
                let mut errors = self.shared.errors.lock().expect("nobody panics with it");
                errors.0 += 1;
                if errors.1.len() < ERRORS_KEPT {
                    let at = self.shared.now() / 1_000_000;
                    errors.1.push(format!("connection {} after {at} ms: {why}", self.id));
                }
            }
        }
    }

    /// One operation, of another kind each time.
    fn one(&self, connection: &mut Connection, turn: u64) -> Result<(), String> {
        let unique = self.shared.unique.fetch_add(1, Ordering::Relaxed);
        let (value, generation) = (unique.to_string(), turn / GENERATION);
        let keys = &self.keys;
        let shared = format!("{keys}shared:{generation}:{}", unique % SHARED);
        match (turn + self.id) % 8 {
            0 | 1 => self.seen(connection, &["SET", &shared, &value], |_| Op::Write(unique)),
            2 | 3 => self
                .seen(connection, &["GET", &shared], |seen| Op::Read(seen.and_then(Reply::value))),
            4 => self.seen(connection, &["GETSET", &shared, &value], |seen| match seen {
                Some(old) => Op::Swap { new: unique, old: old.value() },
                None => Op::Write(unique),
            }),
            5 => {
                let key = format!("{keys}count:{generation}");
                let ledger = &self.shared.ledger;
                let result = self
                    .seen(connection, &["INCR", &key], |sum| Op::Add(sum.and_then(Reply::value)));
                ledger.incr(&key, result.is_ok());
                result
            }
            6 => {
                let key = format!("{keys}own:{}:{}", self.id, turn % 64);
                let result = self.timed(connection, &["SET", &key, &value]);
                self.shared.ledger.set(&key, unique, result.is_ok());
                result.map(drop)
            }
            _ => {
                let key = format!("{keys}list:{}:{generation}", self.id % 2);
                let result = self.timed(connection, &["RPUSH", &key, &value]);
                self.shared.ledger.append(&key, unique, result.is_ok());
                result.map(drop)
            }
        }
    }

    fn timed(&self, connection: &mut Connection, words: &[&str]) -> Result<Reply, String> {
        let start = self.shared.now() / 1000;
        let reply = connection.call(words)?;
        let mut requests = self.shared.requests.lock().expect("nobody panics with it");
        requests.push((start, self.shared.now() / 1000));
        Ok(reply)
    }

    /// An operation on a shared key. `op` says what it was, given the reply.
    fn seen(
        &self,
        connection: &mut Connection,
        words: &[&str],
        op: impl Fn(Option<&Reply>) -> Op,
    ) -> Result<(), String> {
        let call = self.shared.now();
        let result = self.timed(connection, words);
        let reply = result.is_ok().then(|| self.shared.now());
        let op = op(result.as_ref().ok());
        self.shared.history.note(words[1], Event { op, call, reply });
        result.map(drop)
    }
}
