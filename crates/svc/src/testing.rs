//! Runs a service in tests as the execution stage would.

use base::{AgreedTime, ClientId, Digest, FrameId, Seq, SessionId};
use exec::{Context, ObjectTree, Service};

use crate::kv::op;
use crate::kv::reply::Protocol;

/// A service, its tree and its place in the total order.
pub struct Runner<S> {
    pub service: S,
    tree: ObjectTree,
    seq: u64,
    /// Agreed time in milliseconds; moves only when the test moves it.
    pub now_ms: u64,
    pub protocol: Protocol,
}

impl<S: Service> Runner<S> {
    pub fn new(service: S) -> Runner<S> {
        let tree = ObjectTree::new(service.objects());
        Runner { service, tree, seq: 1, now_ms: 1_000_000, protocol: Protocol::Resp2 }
    }

    fn with<R>(&mut self, act: impl FnOnce(&mut S, &mut Context<'_>) -> R) -> R {
        let frame = FrameId { client: ClientId(0), session: SessionId(1), stream: 0, id: self.seq };
        let mut outputs = vec![];
        let time = AgreedTime(self.now_ms * 1_000_000);
        let mut ctx = Context::new(Seq(self.seq), 0, time, frame, &mut self.tree, &mut outputs);
        let result = act(&mut self.service, &mut ctx);
        self.seq += 1;
        result
    }

    /// Executes an operation and returns its result.
    pub fn run(&mut self, op: &[u8]) -> Vec<u8> {
        let mut reply = vec![];
        self.with(|service, ctx| service.execute(op, ctx, &mut reply));
        reply
    }

    /// Executes a command given as words.
    pub fn command(&mut self, line: &str) -> String {
        let args: Vec<&str> = line.split_whitespace().collect();
        String::from_utf8_lossy(&self.args(&args)).replace("\r\n", " ").trim_end().to_owned()
    }

    /// Executes a command.
    pub fn args<A: AsRef<[u8]>>(&mut self, args: &[A]) -> Vec<u8> {
        let mut bytes = vec![];
        op::encode_command(self.protocol, args, &mut bytes);
        self.run(&bytes)
    }

    /// Wakes the service if its deadline has come. True when it had.
    pub fn wake(&mut self) -> bool {
        let now = AgreedTime(self.now_ms * 1_000_000);
        let due = self.service.deadline().is_some_and(|deadline| deadline <= now);
        if due {
            self.with(|service, ctx| service.wake(ctx));
        }
        due
    }

    /// The root of the state.
    pub fn root(&mut self) -> Digest {
        let service = &mut self.service;
        self.tree.refresh(|object| service.digest(object))
    }

    /// Number of objects that were announced since the last root.
    pub fn marked(&self) -> usize {
        self.tree.marked()
    }

    /// Takes the state over from another service.
    pub fn load(&mut self, from: &S) {
        for object in 0..from.objects() {
            let mut bytes = vec![];
            from.get(object, &mut bytes);
            self.service.put(object, &bytes).expect("what the other service wrote");
        }
        self.tree = ObjectTree::new(from.objects());
    }
}
