//! What a connection is about between its commands, and where each command is answered.
//!
//! Three kinds of commands: those that the replicated service answers become operations; those
//! about the connection or the gateway are answered at once ([`super::commands`]); and `MULTI`
//! with its kin is played here, so that a transaction is one operation of the service.
//!
//! Not here: sockets and the order of replies ([`super::conn`]).
//!
//! Invariants:
//! 1. [`Session::handle`] is called in the order of the requests and [`Session::finish`] in the
//!    order of the operations submitted.
//! 2. `EXEC` is submitted only when the versions of all watched keys are known; the connection
//!    holds back everything behind it until then.

use std::sync::Arc;

use svc::kv::info;
use svc::kv::op::{self, STEPS_MAX, Step};
use svc::kv::reply::{Protocol, Resp, TOO_LARGE};
use svc::kv::table::{self, CommandSpec, Run, flags};
use tokio::time::Instant;

use super::backend::{BackendError, Refusals};
use super::commands::{self, Flow, Local};
use super::parse::{ProtocolError, Request};
use super::registry::Client;
use super::{REQUEST_BYTES_MAX, Shared};

/// What a connection is to do about a request, apart from sending the local bytes.
pub(super) enum Action {
    /// Nothing more.
    None,
    /// Close when everything so far is answered.
    Close,
    /// Submit this operation and hand its result to [`Session::finish`].
    Submit(Vec<u8>, Then),
}

/// What becomes of an operation's result.
pub(super) struct Then {
    kind: Kind,
    muted: bool,
    /// The operation changes nothing: it may be submitted again when its result is lost.
    pub(super) repeatable: bool,
    /// It looks at the keys that it names and does nothing else: it may be answered without an
    /// order.
    pub(super) reads: bool,
}

enum Kind {
    /// It is the reply.
    Forward,
    /// It holds the versions of watched keys.
    Watch { epoch: u64 },
}

/// A command of a transaction.
struct Queued {
    /// What answers it, if that is the gateway.
    local: Option<&'static Local>,
    args: Vec<Vec<u8>>,
}

/// A transaction that is being queued.
#[derive(Default)]
struct Transaction {
    queue: Vec<Queued>,
    /// Commands so far, and no fewer bytes than they take in an operation.
    steps: usize,
    bytes: usize,
    /// A command could not be queued: EXEC refuses.
    failed: bool,
}

/// What `WATCH` has asked for.
#[derive(Default)]
struct Watching {
    /// Keys with their versions, once known.
    keys: Vec<(Vec<u8>, u64)>,
    /// Keys of WATCH commands without a result yet, in order.
    asked: Vec<Vec<Vec<u8>>>,
    /// Bytes that both take in an operation.
    bytes: usize,
    /// A WATCH without a result: EXEC must take the keys for changed.
    failed: bool,
    /// Grows with each UNWATCH: results of older WATCHes do not count.
    epoch: u64,
}

/// Which replies the client wants (`CLIENT REPLY`).
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Replies {
    On,
    Off,
    /// None to the next command.
    SkipNext,
    /// None to this command.
    Skip,
}

/// Says what the backend is now.
pub(super) type Describe = Box<dyn Fn() -> String + Send>;

/// The state of one connection between commands.
pub(super) struct Session {
    pub(super) shared: Arc<Shared>,
    pub(super) client: Arc<Client>,
    /// Says what the backend is, for INFO.
    pub(super) describe: Describe,
    /// What the backend does not take.
    refusals: Option<Refusals>,
    pub(super) protocol: Protocol,
    pub(super) replies: Replies,
    transaction: Option<Transaction>,
    watching: Watching,
    /// EXEC was asked for and waits for the versions of watched keys.
    exec_held: bool,
    last_active: Instant,
}

impl Then {
    /// The result is the reply.
    pub(super) const FORWARD: Then =
        Then { kind: Kind::Forward, muted: false, repeatable: false, reads: false };
}

impl Session {
    pub(super) fn new(
        shared: Arc<Shared>,
        client: Arc<Client>,
        (describe, refusals): (Describe, Option<Refusals>),
    ) -> Session {
        Session {
            shared,
            client,
            describe,
            refusals,
            protocol: Protocol::Resp2,
            replies: Replies::On,
            transaction: None,
            watching: Watching::default(),
            exec_held: false,
            last_active: Instant::now(),
        }
    }

    /// Notes that the client has sent something.
    pub(super) fn active(&mut self) {
        self.last_active = Instant::now();
        self.client.state().active = self.last_active;
    }

    /// When the client last sent something.
    pub(super) fn last_active(&self) -> Instant {
        self.last_active
    }

    /// Whether an EXEC waits for the versions of watched keys.
    pub(super) fn exec_is_held(&self) -> bool {
        self.exec_held
    }

    /// Whether the versions of watched keys are still on their way.
    pub(super) fn awaits_watch(&self) -> bool {
        !self.watching.asked.is_empty()
    }

    /// Back to the state of a new connection (`RESET`).
    pub(super) fn reset(&mut self) {
        self.protocol = Protocol::Resp2;
        self.replies = Replies::On;
        self.leave_transaction();
        self.watching.clear();
        let mut state = self.client.state();
        state.name.clear();
        state.resp = 2;
    }

    /// Writes the last reply of a connection that sent no requests.
    pub(super) fn protocol_error(&mut self, error: &ProtocolError, local: &mut Vec<u8>) {
        Resp::new(local, self.protocol).error(format!("ERR {error}").as_bytes());
    }

    /// Decides about a request; what is answered here is appended to `local`.
    pub(super) fn handle(&mut self, request: &Request<'_>, local: &mut Vec<u8>) -> Action {
        self.replies = match self.replies {
            Replies::SkipNext => Replies::Skip,
            Replies::Skip => Replies::On,
            stays => stays,
        };
        let mut action = self.route(request, local);
        if self.is_muted() {
            local.clear();
            if let Action::Submit(_, then) = &mut action {
                then.muted = true;
            }
        }
        action
    }

    fn is_muted(&self) -> bool {
        matches!(self.replies, Replies::Off | Replies::Skip)
    }

    fn route(&mut self, request: &Request<'_>, local: &mut Vec<u8>) -> Action {
        let found = match resolve(request) {
            Ok(found) => found,
            Err(error) => {
                self.refuse(request, &error, local);
                return Action::None;
            }
        };
        let immediate = match &found {
            Found::Service(_) => false,
            Found::Local(command) => command.is_immediate(),
        };
        if self.transaction.is_some() && !immediate {
            self.queue(found, request, local);
            return Action::None;
        }
        match found {
            Found::Service(spec) => {
                self.client.state().command = spec.name;
                let args: Vec<&[u8]> = request.iter().collect();
                let mut op = Vec::with_capacity(request.bytes() + OP_OVERHEAD * (args.len() + 2));
                op::encode_command(self.protocol, &args, &mut op);
                if let Some(answer) = self.refusal(&op) {
                    local.extend_from_slice(answer);
                    return Action::None;
                }
                let repeatable = spec.flags & flags::READONLY != 0;
                let reads = repeatable && info::is_read(&args);
                Action::Submit(op, Then { repeatable, reads, ..Then::FORWARD })
            }
            Found::Local(command) => {
                self.client.state().command = command.name;
                let args: Vec<&[u8]> = request.iter().collect();
                self.run_local(command, &args, local)
            }
        }
    }

    /// With what an operation is answered that the backend does not take.
    fn refusal(&self, op: &[u8]) -> Option<&'static [u8]> {
        self.refusals.as_ref().and_then(|refusal| refusal(op))
    }

    /// The same for a command that is to be part of a transaction: it would not be taken alone.
    fn refused_step(&self, request: &Request<'_>) -> Option<&'static [u8]> {
        self.refusals.as_ref()?;
        let mut op = Vec::new();
        op::encode_command(self.protocol, &request.iter().collect::<Vec<_>>(), &mut op);
        self.refusal(&op)
    }

    /// Answers a request that is no command with its error.
    fn refuse(&mut self, request: &Request<'_>, error: &[u8], local: &mut Vec<u8>) {
        let mut reply = Resp::new(local, self.protocol);
        if request.arg(0).eq_ignore_ascii_case(b"exec") {
            // An EXEC that is refused ends the transaction, so that nothing of it is left over.
            self.leave_transaction();
            self.watching.clear();
            let why = error.strip_prefix(b"ERR ").unwrap_or(error);
            let prefix = b"EXECABORT Transaction discarded because of: ";
            return reply.error(&[&prefix[..], why].concat());
        }
        if let Some(transaction) = &mut self.transaction {
            transaction.failed = true;
        }
        reply.error(error);
    }

    /// Runs a command that is answered here. A reply that would be too large gives way to an error:
    /// without one, or with half of one, all replies behind it would be taken for others.
    fn run(&mut self, command: &Local, args: &[&[u8]], out: &mut Vec<u8>) -> Flow {
        let mut reply = Resp::new(out, self.protocol);
        let flow = (command.run)(self, args, &mut reply);
        if reply.overflowed() {
            reply.clear();
            reply.error(TOO_LARGE);
        }
        flow
    }

    fn run_local(&mut self, command: &Local, args: &[&[u8]], local: &mut Vec<u8>) -> Action {
        match self.run(command, args, local) {
            Flow::Answered => Action::None,
            Flow::Greet => {
                commands::greet(self, &mut Resp::new(local, self.protocol));
                Action::None
            }
            Flow::Close => Action::Close,
            Flow::Exec => self.exec(local),
            Flow::Watch => self.watch(args, local),
        }
    }

    /// Puts a command into the transaction.
    fn queue(&mut self, found: Found, request: &Request<'_>, local: &mut Vec<u8>) {
        let refused = match found {
            Found::Service(_) => self.refused_step(request),
            Found::Local(_) => None,
        };
        let Some(transaction) = &mut self.transaction else { return };
        if let Some(answer) = refused {
            transaction.failed = true;
            local.extend_from_slice(answer);
            return;
        }
        let mut reply = Resp::new(local, self.protocol);
        transaction.steps += 1;
        transaction.bytes += request.bytes() + OP_OVERHEAD * (request.len() + 1);
        if transaction.bytes > REQUEST_BYTES_MAX || transaction.steps > STEPS_MAX {
            transaction.failed = true;
            transaction.queue = Vec::new();
            return reply.error(b"ERR transaction is larger than an operation may be");
        }
        let local = match found {
            Found::Service(_) => None,
            Found::Local(command) if command.no_multi => {
                transaction.failed = true;
                return reply.error(b"ERR Command not allowed inside a transaction");
            }
            Found::Local(command) => Some(command),
        };
        if !transaction.failed {
            let args = request.iter().map(<[u8]>::to_vec).collect();
            transaction.queue.push(Queued { local, args });
            self.client.state().queued = Some(transaction.queue.len());
        }
        reply.simple("QUEUED");
    }

    /// `MULTI`.
    pub(super) fn begin(&mut self, reply: &mut Resp<'_>) {
        if self.transaction.is_some() {
            return reply.error(b"ERR MULTI calls can not be nested");
        }
        self.transaction = Some(Transaction::default());
        self.client.state().queued = Some(0);
        reply.ok();
    }

    /// `DISCARD`.
    pub(super) fn discard(&mut self, reply: &mut Resp<'_>) {
        if self.transaction.is_none() {
            return reply.error(b"ERR DISCARD without MULTI");
        }
        self.leave_transaction();
        self.watching.clear();
        reply.ok();
    }

    /// `UNWATCH`.
    pub(super) fn unwatch(&mut self, reply: &mut Resp<'_>) {
        self.watching.clear();
        reply.ok();
    }

    /// Whether commands are being queued.
    pub(super) fn in_transaction(&self) -> bool {
        self.transaction.is_some()
    }

    fn leave_transaction(&mut self) -> Option<Transaction> {
        self.client.state().queued = None;
        self.transaction.take()
    }

    /// `WATCH`, outside a transaction: asks for the versions of the keys.
    fn watch(&mut self, args: &[&[u8]], local: &mut Vec<u8>) -> Action {
        let keys = &args[1..];
        let mut op = Vec::new();
        op::encode_watch(self.protocol, keys, &mut op);
        if let Some(answer) = self.refusal(&op) {
            local.extend_from_slice(answer);
            return Action::None;
        }
        let bytes: usize = keys.iter().map(|key| key.len() + VERSION_OVERHEAD).sum();
        self.watching.bytes += bytes;
        if self.watching.bytes > REQUEST_BYTES_MAX {
            // EXEC could not name them all.
            self.watching.failed = true;
            let text = b"ERR watched keys are larger than an operation may be";
            Resp::new(local, self.protocol).error(text);
            return Action::None;
        }
        self.watching.asked.push(keys.iter().map(|key| key.to_vec()).collect());
        let kind = Kind::Watch { epoch: self.watching.epoch };
        Action::Submit(op, Then { kind, ..Then::FORWARD })
    }

    /// `EXEC`: refuses, waits for versions, or goes on.
    fn exec(&mut self, local: &mut Vec<u8>) -> Action {
        let mut reply = Resp::new(local, self.protocol);
        match &self.transaction {
            None => {
                reply.error(b"ERR EXEC without MULTI");
                Action::None
            }
            Some(transaction) if transaction.failed => {
                reply.error(b"EXECABORT Transaction discarded because of previous errors.");
                self.leave_transaction();
                self.watching.clear();
                Action::None
            }
            Some(_) if self.awaits_watch() => {
                self.exec_held = true;
                Action::None
            }
            Some(_) => self.release_exec(local),
        }
    }

    /// `EXEC`, once the versions of all watched keys are known: one operation for everything.
    pub(super) fn release_exec(&mut self, local: &mut Vec<u8>) -> Action {
        self.exec_held = false;
        let transaction = self.leave_transaction().unwrap_or_default();
        let watching = self.watching.clear();
        let muted = self.is_muted();
        if watching.failed {
            if !muted {
                Resp::new(local, self.protocol).null_array();
            }
            return Action::None;
        }
        let Some(replies) = self.rehearse(&transaction, watching.bytes) else {
            if !muted {
                Resp::new(local, self.protocol).error(
                    b"EXECABORT Transaction discarded because of: larger than an operation may be",
                );
            }
            return Action::None;
        };
        let steps: Vec<Step<'_>> = transaction
            .queue
            .iter()
            .zip(&replies)
            .map(|(queued, reply)| match queued.local {
                Some(_) => Step::Reply(reply),
                None => Step::Command(queued.args.iter().map(Vec::as_slice).collect()),
            })
            .collect();
        let watched: Vec<(&[u8], u64)> =
            watching.keys.iter().map(|(key, version)| (&key[..], *version)).collect();
        let mut op = Vec::new();
        op::encode_transaction(self.protocol, &watched, &steps, &mut op);
        if let Some(answer) = self.refusal(&op) {
            if !muted {
                local.extend_from_slice(answer);
            }
            return Action::None;
        }
        Action::Submit(op, Then { muted, ..Then::FORWARD })
    }

    /// The replies to the commands of a transaction that the gateway answers, empty for others;
    /// `None` when no operation has room for them and for `watched` bytes of keys.
    fn rehearse(&mut self, transaction: &Transaction, watched: usize) -> Option<Vec<Vec<u8>>> {
        let mut bytes = transaction.bytes + watched;
        let mut replies = Vec::new();
        for queued in &transaction.queue {
            let mut reply = Vec::new();
            if let Some(command) = queued.local {
                let args: Vec<&[u8]> = queued.args.iter().map(Vec::as_slice).collect();
                self.run(command, &args, &mut reply);
            }
            bytes += reply.len();
            if bytes > REQUEST_BYTES_MAX {
                return None;
            }
            replies.push(reply);
        }
        Some(replies)
    }

    /// Turns an operation's result into the reply.
    pub(super) fn finish(
        &mut self,
        then: Then,
        result: Result<Vec<u8>, BackendError>,
        out: &mut Vec<u8>,
    ) {
        let before = out.len();
        match (then.kind, result) {
            (Kind::Watch { epoch }, result) => self.watched(epoch, result, out),
            (_, Err(error)) => unanswered(&error, out),
            (Kind::Forward, Ok(result)) => out.extend_from_slice(&result),
        }
        if then.muted {
            out.truncate(before);
        }
    }

    /// The result of a WATCH.
    fn watched(&mut self, epoch: u64, result: Result<Vec<u8>, BackendError>, out: &mut Vec<u8>) {
        let current = epoch == self.watching.epoch;
        let keys = if current && !self.watching.asked.is_empty() {
            self.watching.asked.remove(0)
        } else {
            Vec::new()
        };
        match result {
            Ok(result) => {
                match op::decode_versions(&result, keys.len()) {
                    Ok(versions) => self.watching.keys.extend(keys.into_iter().zip(versions)),
                    Err(_) => self.watching.failed |= current,
                }
                out.extend_from_slice(b"+OK\r\n");
            }
            Err(error) => {
                self.watching.failed |= current;
                unanswered(&error, out);
            }
        }
    }
}

/// Bytes that an argument or a command costs in an encoded operation beyond its own, at most.
const OP_OVERHEAD: usize = 8;
/// Bytes that a watched key costs there beyond its own.
const VERSION_OVERHEAD: usize = 12;

impl Watching {
    /// Forgets everything, and what is still on its way; returns what there was.
    fn clear(&mut self) -> Watching {
        let epoch = self.epoch + 1;
        std::mem::replace(self, Watching { epoch, ..Watching::default() })
    }
}

/// The error for a command whose result did not come. Libraries send again by themselves what is
/// answered with `TRYAGAIN`: so that stands only before what was certainly not executed, and
/// nothing that they know before what may have been.
fn unanswered(error: &BackendError, out: &mut Vec<u8>) {
    let prefix = match error {
        BackendError { unsent: true, .. } => "TRYAGAIN not sent to the group:",
        BackendError { unavailable: true, .. } => "UNKNOWN group is not answering:",
        _ => "ERR",
    };
    Resp::new(out, Protocol::Resp2).error(format!("{prefix} {error}").as_bytes());
}

/// Where a command is answered.
#[derive(Clone, Copy)]
enum Found {
    Service(&'static CommandSpec),
    Local(&'static Local),
}

/// Finds the command of a request and checks the number of its arguments.
fn resolve(request: &Request<'_>) -> Result<Found, Vec<u8>> {
    let name = request.arg(0);
    let Some(spec) = table::lookup(name) else {
        return Err(table::unknown_command(&request.iter().collect::<Vec<_>>()));
    };
    if !spec.takes(request.len()) {
        return Err(wrong_arity(spec.name));
    }
    if let Run::Service(_) = spec.run {
        return Ok(Found::Service(spec));
    }
    let sub = (request.len() > 1).then(|| request.arg(1));
    let Some(local) = commands::local(spec.name, sub) else {
        let parent = spec.name.to_ascii_uppercase();
        let sub = &request.arg(1)[..request.arg(1).len().min(128)];
        let mut text = b"ERR unknown subcommand '".to_vec();
        text.extend_from_slice(sub);
        text.extend_from_slice(format!("'. Try {parent} HELP.").as_bytes());
        return Err(text);
    };
    if !local.takes(request.len()) {
        return Err(wrong_arity(local.name));
    }
    Ok(Found::Local(local))
}

fn wrong_arity(name: &str) -> Vec<u8> {
    format!("ERR wrong number of arguments for '{name}' command").into_bytes()
}
