//! Plays the same commands to two servers and compares the replies.

use std::collections::BTreeSet;
use std::fmt;
use std::net::SocketAddr;

use crate::redis_random::Args;
use crate::redis_wire::{Value, Wire, encode};

/// Commands that are sent at once.
const PIPELINE: usize = 48;

/// One command, from the first or from the other connection.
#[derive(Clone)]
pub struct Step {
    pub args: Args,
    pub other: bool,
}

impl Step {
    pub fn of(line: &str) -> Step {
        let args = line.split(' ').map(|word| word.as_bytes().to_vec()).collect();
        Step { args, other: false }
    }

    fn name(&self) -> String {
        String::from_utf8_lossy(&self.args[0]).to_ascii_lowercase()
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let words: Vec<String> = self
            .args
            .iter()
            .map(|word| match word.escape_ascii().to_string() {
                text if text.is_empty() || text.contains([' ', '\\', '"']) => format!("\"{text}\""),
                text => text,
            })
            .collect();
        write!(f, "{}{}", if self.other { "[other] " } else { "" }, words.join(" "))
    }
}

/// A difference.
pub struct Failure {
    pub step: usize,
    command: String,
    ours: String,
    real: String,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Failure { step, command, ours, real } = self;
        write!(f, "step {step}: {command}\n  gateway: {ours:.2000}\n  redis:   {real:.2000}")
    }
}

/// How two replies to a command compare.
#[derive(Clone, Debug, PartialEq)]
enum Plan {
    Exact,
    /// Aggregates without an order.
    Unordered,
    /// Pairs without an order.
    Pairs,
    /// Integers up to this much apart.
    Near(i64),
    /// The results of a transaction.
    Each(Vec<Plan>),
    /// The sign of zero does not count: whether Redis keeps it depends on how it stores a set.
    Scores,
    /// `HELLO`: but for the number of the connection.
    Hello,
}

fn plan_of(name: &str) -> Plan {
    match name {
        "keys" | "smembers" | "sinter" | "sunion" | "sdiff" | "hkeys" | "hvals" => Plan::Unordered,
        "hgetall" => Plan::Pairs,
        "ttl" | "expiretime" => Plan::Near(5),
        "pttl" | "pexpiretime" => Plan::Near(5000),
        "hello" => Plan::Hello,
        _ if name.starts_with('z') => Plan::Scores,
        _ => Plan::Exact,
    }
}

impl Plan {
    fn agree(&self, ours: &Value, real: &Value) -> bool {
        match (self, ours, real) {
            (Plan::Near(bound), Value::Int(a), Value::Int(b)) => {
                // -1 and -2 have a meaning of their own.
                a == b || (*a > 0 && *b > 0 && a.abs_diff(*b) <= bound.unsigned_abs())
            }
            (Plan::Each(plans), Value::Array(a), Value::Array(b)) => {
                a.len() == b.len()
                    && a.len() == plans.len()
                    && a.iter().zip(b).zip(plans).all(|((a, b), plan)| plan.agree(a, b))
            }
            (Plan::Unordered, a, b) => {
                same_kind(a, b) && sorted(a.items(), 1) == sorted(b.items(), 1)
            }
            (Plan::Pairs, a, b) => same_kind(a, b) && sorted(a.items(), 2) == sorted(b.items(), 2),
            (Plan::Scores, a, b) => a == b || unsigned_zero(a) == unsigned_zero(b),
            (Plan::Hello, Value::Map(a), Value::Map(b)) => a.len() == b.len(),
            _ => ours == real,
        }
    }
}

/// The same reply with every negative zero made positive.
fn unsigned_zero(value: &Value) -> Value {
    match value {
        Value::Bulk(text) if text == b"-0" => Value::Bulk(b"0".to_vec()),
        Value::Double(text) if text == b"-0" => Value::Double(b"0".to_vec()),
        Value::Array(items) => Value::Array(items.iter().map(unsigned_zero).collect()),
        other => other.clone(),
    }
}

/// Whether two replies are the same but for the items they hold.
fn same_kind(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Array(_), Value::Array(_)) => true,
        (Value::Set(_), Value::Set(_)) | (Value::Map(_), Value::Map(_)) => true,
        _ => a == b,
    }
}

/// The items in groups of `size`, sorted.
fn sorted(items: &[Value], size: usize) -> Vec<&[Value]> {
    let mut groups: Vec<&[Value]> = items.chunks(size).collect();
    groups.sort();
    groups
}

/// Two connections to each of two servers.
pub struct Pair {
    ours: [Wire; 2],
    real: [Wire; 2],
    /// Per connection: the plans of the queued commands, inside `MULTI`.
    queued: [Option<Vec<Plan>>; 2],
    resp3: bool,
    /// Plain replies of Redis, and how many of them were errors.
    pub replies: (u64, u64),
}

impl Pair {
    pub fn connect(ours: SocketAddr, real: SocketAddr, resp3: bool) -> Pair {
        let two = |addr| [Wire::connect(addr), Wire::connect(addr)];
        let mut pair =
            Pair { ours: two(ours), real: two(real), queued: [None, None], resp3, replies: (0, 0) };
        pair.restart();
        pair
    }

    pub fn ours(&mut self) -> &mut Wire {
        &mut self.ours[0]
    }

    fn restart(&mut self) {
        for wire in self.ours.iter_mut().chain(&mut self.real) {
            wire.cmd(if self.resp3 { "HELLO 3" } else { "HELLO 2" });
        }
        for wire in [&mut self.ours[0], &mut self.real[0]] {
            assert_eq!(wire.cmd("FLUSHALL"), Value::Simple(b"OK".to_vec()));
        }
    }

    /// Plays commands from an empty key space; the first difference ends it.
    pub fn play(&mut self, steps: &[Step]) -> Result<(), Failure> {
        self.continue_with(steps)
    }

    pub fn continue_with(&mut self, steps: &[Step]) -> Result<(), Failure> {
        let mut at = 0;
        while at < steps.len() {
            let side = usize::from(steps[at].other);
            if is_special(&steps[at].name()) {
                // These take further commands, which MULTI would queue.
                if self.queued[side].is_none() {
                    self.special(at, &steps[at])?;
                }
                at += 1;
                continue;
            }
            let run = steps[at..]
                .iter()
                .take(PIPELINE)
                .take_while(|step| usize::from(step.other) == side && !is_special(&step.name()))
                .count();
            self.batch(at, &steps[at..at + run], side)?;
            at += run;
        }
        Ok(())
    }

    /// Sends plain commands at once and compares the replies.
    fn batch(&mut self, at: usize, steps: &[Step], side: usize) -> Result<(), Failure> {
        let mut bytes = Vec::new();
        steps.iter().for_each(|step| encode(&step.args, &mut bytes));
        self.real[side].send_raw(&bytes);
        self.ours[side].send_raw(&bytes);
        let real: Vec<Value> = steps.iter().map(|_| self.real[side].read()).collect();
        let ours: Vec<Value> = steps.iter().map(|_| self.ours[side].read()).collect();
        self.replies.0 += steps.len() as u64;
        self.replies.1 += real.iter().filter(|reply| reply.is_error()).count() as u64;
        for (i, step) in steps.iter().enumerate() {
            let plan = self.follow(side, &step.name(), &real[i]);
            if !plan.agree(&ours[i], &real[i]) {
                return Err(failure(at + i, step, &ours[i], &real[i]));
            }
        }
        Ok(())
    }

    /// How to compare the reply to a command; keeps track of transactions by what Redis says.
    fn follow(&mut self, side: usize, name: &str, real: &Value) -> Plan {
        let queued = &mut self.queued[side];
        if *real == Value::Simple(b"QUEUED".to_vec()) {
            if let Some(plans) = queued {
                plans.push(plan_of(name));
            }
            return Plan::Exact;
        }
        match name {
            "multi" if !real.is_error() => *queued = Some(Vec::new()),
            "discard" | "reset" if !real.is_error() => *queued = None,
            "exec" if !(real.is_error() && queued.is_none()) => {
                return Plan::Each(queued.take().unwrap_or_default());
            }
            _ => {}
        }
        plan_of(name)
    }

    /// Plays a command whose reply is checked with the help of others.
    fn special(&mut self, at: usize, step: &Step) -> Result<(), Failure> {
        let side = usize::from(step.other);
        let name = step.name();
        if name.ends_with("scan") {
            return self.scan(at, step, side);
        }
        let real_before = self.members(step, &name, side);
        let ours = self.ours[side].call(&step.args);
        let plain = real_before.is_empty() || ours.is_error() || is_null(&ours);
        if name == "spop" && !plain {
            return self.popped(at, step, side, &ours, &real_before);
        }
        let real = self.real[side].call(&step.args);
        let good = if plain || real.is_error() {
            ours == real
        } else {
            valid_choice(step, &ours, &real, &real_before)
        };
        if good { Ok(()) } else { Err(failure(at, step, &ours, &real)) }
    }

    /// What the key of a command about random members holds at Redis, as strings.
    fn members(&mut self, step: &Step, name: &str, side: usize) -> BTreeSet<Vec<u8>> {
        let key = step.args.get(1).cloned().unwrap_or_default();
        let args: Args = match name {
            "randomkey" => vec![b"keys".to_vec(), b"*".to_vec()],
            "hrandfield" => vec![b"hkeys".to_vec(), key],
            "zrandmember" => vec![b"zrange".to_vec(), key, b"0".to_vec(), b"-1".to_vec()],
            _ => vec![b"smembers".to_vec(), key],
        };
        self.real[side].call(&args).items().iter().map(|item| item.bytes().to_vec()).collect()
    }

    /// Repeats at Redis what SPOP took at the gateway.
    fn popped(
        &mut self,
        at: usize,
        step: &Step,
        side: usize,
        ours: &Value,
        before: &BTreeSet<Vec<u8>>,
    ) -> Result<(), Failure> {
        let taken: Vec<Vec<u8>> = match ours {
            Value::Bulk(one) => vec![one.clone()],
            many => many.items().iter().map(|item| item.bytes().to_vec()).collect(),
        };
        let wanted = match step.args.get(2) {
            None => 1,
            Some(count) => {
                let count = String::from_utf8_lossy(count).parse::<usize>().unwrap_or(usize::MAX);
                count.min(before.len())
            }
        };
        let distinct: BTreeSet<&Vec<u8>> = taken.iter().collect();
        let shape = matches!(
            (ours, step.args.len(), self.resp3),
            (Value::Bulk(_), 2, _) | (Value::Array(_), 3, false) | (Value::Set(_), 3, true)
        );
        let fits = shape && distinct.len() == wanted && taken.len() == wanted;
        if !fits || !taken.iter().all(|member| before.contains(member)) {
            let real = Value::Array(before.iter().cloned().map(Value::Bulk).collect());
            return Err(failure(at, step, ours, &real));
        }
        if !taken.is_empty() {
            let mut args: Args = vec![b"srem".to_vec(), step.args[1].clone()];
            args.extend(taken);
            self.real[side].call(&args);
        }
        Ok(())
    }

    /// Iterates to the end at both servers.
    fn scan(&mut self, at: usize, step: &Step, side: usize) -> Result<(), Failure> {
        let name = step.name();
        let cursor_at = if name == "scan" { 1 } else { 2 };
        let pairs = if matches!(&name[..], "hscan" | "zscan") { 2 } else { 1 };
        let mut found = Vec::new();
        for wire in [&mut self.ours[side], &mut self.real[side]] {
            let mut args = step.args.clone();
            let mut items = BTreeSet::new();
            let end = loop {
                let reply = wire.call(&args);
                let [cursor, page] = reply.items() else { break Some(reply) };
                for group in page.items().chunks(pairs) {
                    let mut group = group.to_vec();
                    if name == "zscan" {
                        group[1] = score(&group[1]);
                    }
                    items.insert(group);
                }
                if cursor.bytes() == b"0" || args.len() <= cursor_at {
                    break None;
                }
                args[cursor_at] = cursor.bytes().to_vec();
            };
            found.push((end, items));
        }
        if found[0] == found[1] {
            return Ok(());
        }
        let show = |(end, items): &(Option<Value>, BTreeSet<Vec<Value>>)| match end {
            Some(error) => format!("{error:?}"),
            None => format!("{items:?}"),
        };
        let (ours, real) = (show(&found[0]), show(&found[1]));
        Err(Failure { step: at, command: step.to_string(), ours, real })
    }
}

/// A score in one spelling: that of ZSCAN depends on how Redis happens to store the set.
fn score(value: &Value) -> Value {
    let number: f64 = String::from_utf8_lossy(value.bytes()).parse().expect("a score");
    // Adding zero makes a negative zero positive.
    let number = number + 0.0;
    Value::Double(format!("{number:?}").into_bytes())
}

fn failure(at: usize, step: &Step, ours: &Value, real: &Value) -> Failure {
    let (ours, real) = (format!("{ours:?}"), format!("{real:?}"));
    Failure { step: at, command: step.to_string(), ours, real }
}

fn is_null(value: &Value) -> bool {
    matches!(value, Value::Null | Value::NullBulk | Value::NullArray)
}

/// Commands that [`Pair::special`] plays.
fn is_special(name: &str) -> bool {
    matches!(
        name,
        "srandmember"
            | "hrandfield"
            | "zrandmember"
            | "randomkey"
            | "spop"
            | "scan"
            | "hscan"
            | "sscan"
            | "zscan"
    )
}

/// Whether a random choice is as large as that of Redis, among `members`, and distinct where the
/// count says so. Values and scores are not looked at; other commands do.
fn valid_choice(step: &Step, ours: &Value, real: &Value, members: &BTreeSet<Vec<u8>>) -> bool {
    if let (Value::Bulk(a), Value::Bulk(_)) = (ours, real) {
        return members.contains(a);
    }
    let (a, b) = (ours.items(), real.items());
    if !same_kind(ours, real) || a.len() != b.len() {
        return false;
    }
    // With values, RESP3 nests pairs and RESP2 has them flat.
    let nested = a.iter().any(|item| !item.items().is_empty());
    let heads: Vec<&[u8]> = match (step.args.len() > 3, nested) {
        (true, true) => a.iter().map(|item| item.items()[0].bytes()).collect(),
        (true, false) => a.iter().step_by(2).map(Value::bytes).collect(),
        (false, _) => a.iter().map(Value::bytes).collect(),
    };
    let shape = |items: &[Value]| items.first().map_or(0, |item| item.items().len());
    let may_repeat = step.args.get(2).is_some_and(|count| count.starts_with(b"-"));
    let distinct = heads.iter().collect::<BTreeSet<_>>().len() == heads.len();
    shape(a) == shape(b)
        && heads.iter().all(|head| members.contains(*head))
        && (may_repeat || distinct)
}

/// Finds a small history that still ends in a difference, by leaving steps out.
pub fn shrink(steps: &[Step], fails: impl Fn(&[Step]) -> Option<Failure>) -> Vec<Step> {
    let mut best = steps.to_vec();
    let mut size = best.len() / 2;
    while size >= 1 {
        let mut at = 0;
        while at < best.len() {
            let mut fewer = best.clone();
            fewer.drain(at..(at + size).min(best.len()));
            match fails(&fewer) {
                Some(failure) => best = fewer[..=failure.step].to_vec(),
                None => at += size,
            }
        }
        size /= 2;
    }
    if let Some(failure) = fails(&best) {
        println!("{failure}");
    }
    best
}
