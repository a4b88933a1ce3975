//! For the tests of services: runs operations as the execution stage would, without a group.
//!
//! Not for production: nothing here is replicated, and mistakes of the service are panics.
//! Depends on the service trait and the digest tree alone, but for [`check_taken_back`], which
//! runs stages.

mod tentative;

use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;

use base::{AgreedTime, ClientId, Digest, FrameId, Seq, SessionId};

use crate::engine::WAKE_INDEX;
use crate::read::{ReadContext, Stamps};
use crate::service::{
    Completion, Context, Footprint, Offload, Output, Service, Touch, Writes, Written,
};
use crate::tree::{self, ObjectTree};

pub use tentative::{batch, check_taken_back, opening};

/// Polls after which a result that was promised for later is taken to never come.
const POLLS_MAX: u32 = 1_000_000;

/// A service with what the execution stage keeps for it. Each operation is a batch of its own.
pub struct Harness<S> {
    /// The service, to look at and to change behind its back.
    pub service: S,
    /// Whom operations come from. Principal 1, session 1, stream 0 unless changed.
    pub frame: FrameId,
    /// Everything that the service produced beyond replies.
    pub outputs: Vec<Output>,
    tree: ObjectTree,
    stamps: Stamps,
    /// Where the last root was computed.
    pinned: Option<Seq>,
    offload: Option<Arc<dyn Offload>>,
    seq: Seq,
    time: AgreedTime,
    /// What is known of the declarations, where they are checked.
    declared: Option<Declared>,
}

/// What a service declares, against what its operations do.
#[derive(Default)]
struct Declared {
    /// Per object, what the operations that wrote it declared to write: each set once.
    writers: BTreeMap<u32, Vec<(Vec<u64>, String)>>,
    /// Whether operations execute through [`crate::ParallelService`], where there is one.
    parallel: bool,
    /// Operations whose declaration was checked.
    checked: u64,
}

impl<S: Service> Harness<S> {
    /// A harness around `service` at agreed time 0.
    ///
    /// # Panics
    /// When the service's number of objects is out of range.
    #[must_use]
    pub fn new(service: S) -> Harness<S> {
        let tree = ObjectTree::new(service.objects());
        Harness {
            stamps: Stamps::new(tree.objects(), Seq(0)),
            tree,
            pinned: None,
            offload: service.offload(),
            service,
            frame: FrameId { client: ClientId(1), session: SessionId(1), stream: 0, id: 0 },
            outputs: Vec::new(),
            seq: Seq(0),
            time: AgreedTime(0),
            declared: None,
        }
    }

    /// From now on each operation is held against what the service declares of it
    /// ([`Service::footprint`]): what it touches, as far as the service tells with
    /// [`Context::reads`] and [`Context::writes`]; which objects it announces to write; whether
    /// it brings the deadline forward. One that is no barrier executes through
    /// [`Service::parallel`], where the service has that.
    ///
    /// An operation that does what it did not declare fails the test, with the operation and the
    /// class or object named.
    #[must_use]
    pub fn checking_declarations(mut self) -> Harness<S> {
        self.declared = Some(Declared { parallel: true, ..Declared::default() });
        self
    }

    /// Operations that were no barriers and were found to do what they declare.
    #[must_use]
    pub fn declarations_checked(&self) -> u64 {
        self.declared.as_ref().map_or(0, |declared| declared.checked)
    }

    /// Orders an empty batch that proposes `time`: wakes the service when it is due. Operations
    /// after it have later times.
    pub fn tick(&mut self, time: AgreedTime) {
        self.seq = self.seq.next();
        self.time = self.time.advance(time);
        if self.service.deadline().is_some_and(|deadline| deadline <= self.time) {
            self.with_context(WAKE_INDEX, |service, ctx| service.wake(ctx));
        }
    }

    /// Executes one operation and returns its result.
    ///
    /// # Panics
    /// When a result that was promised for later does not come.
    pub fn run(&mut self, op: &[u8]) -> Vec<u8> {
        self.frame.id += 1;
        // The proposed time is in the past: agreed time moves by the least step.
        self.tick(AgreedTime(0));
        if let Some(Err(refusal)) = self.offload.as_ref().map(|offload| offload.before(op)) {
            return refusal;
        }
        let mut result = Vec::new();
        let completion = match self.declared.take() {
            Some(mut declared) => {
                let completion = self.checked(op, &mut declared, &mut result);
                self.declared = Some(declared);
                completion
            }
            None => self
                .with_context(WAKE_INDEX + 1, |service, ctx| service.execute(op, ctx, &mut result)),
        };
        if let Completion::Later(ticket) = completion {
            result.clear();
            let done = (0..POLLS_MAX).any(|_| self.service.poll(ticket, &mut result));
            assert!(done, "the result of ticket {ticket} does not come");
        }
        let Some(offload) = &self.offload else { return result };
        let mut reply = Vec::new();
        offload.after(op, &result, &mut reply);
        reply
    }

    /// Answers an operation without an order, and says since which batch the answer is what it
    /// is: as long as that stays the same, so must the answer. `None` when it is no read.
    #[must_use]
    pub fn read(&self, op: &[u8]) -> Option<(Vec<u8>, Seq)> {
        if let Some(Err(refusal)) = self.offload.as_ref().map(|offload| offload.before(op)) {
            return Some((refusal, Seq(0)));
        }
        let mut ctx = ReadContext::new(self.frame, (self.seq, self.time), &self.stamps);
        let mut result = Vec::new();
        if !self.service.read(op, &mut ctx, &mut result) {
            return None;
        }
        let since = ctx.since();
        let Some(offload) = &self.offload else { return Some((result, since)) };
        let mut reply = Vec::new();
        offload.after(op, &result, &mut reply);
        Some((reply, since))
    }

    /// Executes an operation and holds it against what it declares.
    fn checked(&mut self, op: &[u8], known: &mut Declared, result: &mut Vec<u8>) -> Completion {
        let mut declared = Footprint::default();
        self.service.footprint(op, &mut declared);
        let name = format!("operation {}", op.escape_ascii());
        let deadline = self.service.deadline();
        if declared.barrier {
            let index = WAKE_INDEX + 1;
            let done = self.with_context(index, |service, ctx| service.execute(op, ctx, result));
            self.check_deadline(&name, &declared, deadline);
            return done;
        }
        let mut writes = Writes::new(true, self.tree.share_frozen());
        let mut touched = Vec::new();
        let at = (self.seq, WAKE_INDEX + 1);
        let ctx = Context::apart(at, self.time, self.frame, &mut writes, &mut self.outputs);
        let mut ctx = ctx.watched(&mut touched);
        let handle = if known.parallel { self.service.parallel() } else { None };
        let completion = match handle {
            Some(handle) => {
                handle.execute(op, &mut ctx, result);
                Completion::Done
            }
            None => self.service.execute(op, &mut ctx, result),
        };
        for touch in &touched {
            check_touch(&name, &declared, *touch);
        }
        self.check_deadline(&name, &declared, deadline);
        for Written { object, seq, bytes, digest } in &writes.objects {
            known.check_object(&name, &declared, *object);
            self.stamps.written(*object, *seq);
            if let Some(digest) = digest {
                self.tree.has_digest(*object, *digest);
            }
            self.tree.modify(*object, |out| out.extend_from_slice(bytes));
        }
        known.checked += 1;
        completion
    }

    fn check_deadline(&self, name: &str, declared: &Footprint, before: Option<AgreedTime>) {
        let sooner = self.service.deadline().is_some_and(|now| before.is_none_or(|d| now < d));
        let says = declared.schedules;
        assert!(!sooner || says, "{name} brings the deadline forward and does not say so");
    }

    /// The digest of the state.
    ///
    /// # Panics
    /// When the service wrote an object without announcing it with [`Context::modify`], or did
    /// not save there what the object was at the last call of this, or gave another digest
    /// ([`Context::digest`]) than it had.
    pub fn root(&mut self) -> Digest {
        self.check_saved();
        let service = &mut self.service;
        let root = self.tree.refresh(|object| service.digest(object));
        let whole = ObjectTree::new(service.objects()).refresh(|object| service.digest(object));
        assert_eq!(root, whole, "an object was written without being announced");
        self.tree.pin(self.seq);
        self.pinned = Some(self.seq);
        self.tree.watch_digests();
        root
    }

    /// Looks at the copies of objects that were written since the last root.
    fn check_saved(&mut self) {
        let Some(at) = self.pinned.take() else { return };
        self.tree.end_watch();
        for (object, bytes) in self.tree.pins().objects(at) {
            let digest = self.service.digest_of(object, bytes).map(|own| tree::leaf(object, own));
            let was = self.tree.pinned_digest(at, 0, object);
            assert_eq!(digest, Ok(was), "object {object} was not saved as it was");
            // Where a digest was given before the write it is there by now.
            let given = self.tree.digest(0, object);
            assert_eq!(given, was, "another digest was given than object {object} had");
        }
        self.tree.unpin(at);
    }

    /// Objects announced as written since the last [`Harness::root`].
    #[must_use]
    pub fn written(&self) -> usize {
        self.tree.marked()
    }

    /// Carries the state over to `blank`, object by object, as state transfer does.
    ///
    /// # Panics
    /// When `blank` refuses an object, or has another digest afterwards.
    pub fn transfer(&mut self, blank: S) -> Harness<S> {
        let root = self.root();
        let mut copy = Harness::new(blank);
        assert_eq!(copy.tree.objects(), self.tree.objects(), "replicas differ in objects");
        for object in 0..self.tree.objects() {
            let mut bytes = Vec::new();
            self.service.get(object, &mut bytes);
            let foretold = copy.service.digest_of(object, &bytes);
            let digest = self.service.digest(object);
            assert_eq!(foretold, Ok(digest), "object {object} and its bytes differ in digest");
            let put = copy.service.put(object, &bytes);
            assert_eq!(put, Ok(()), "object {object} is refused");
        }
        (copy.seq, copy.time, copy.frame) = (self.seq, self.time, self.frame);
        assert_eq!(copy.root(), root, "the copy is another state");
        copy
    }

    fn with_context<R>(
        &mut self,
        index: u32,
        step: impl FnOnce(&mut S, &mut Context<'_>) -> R,
    ) -> R {
        let Harness { service, tree, stamps, outputs, .. } = self;
        let ctx = Context::new(self.seq, index, self.time, self.frame, tree, outputs);
        step(service, &mut ctx.stamped(Some(stamps)))
    }
}

fn check_touch(name: &str, declared: &Footprint, touch: Touch) {
    let Touch { class, written } = touch;
    let writes = declared.writes.contains(&class);
    if written {
        assert!(writes, "{name} writes class {class:#x}, which it does not declare");
    } else {
        let reads = declared.reads.contains(&class);
        assert!(reads || writes, "{name} reads class {class:#x}, which it does not declare");
    }
}

/// Declarations that are remembered per object.
const WRITERS_MAX: usize = 64;

impl Declared {
    /// Whoever may write the same object has a class in common.
    fn check_object(&mut self, name: &str, declared: &Footprint, object: u32) {
        let writers = self.writers.entry(object).or_default();
        for (other, who) in writers.iter() {
            assert!(
                declared.writes.iter().any(|class| other.contains(class)),
                "{name} and {who} write object {object}, and declare no class in common"
            );
        }
        let new = writers.iter().all(|(other, _)| *other != declared.writes);
        if new && writers.len() < WRITERS_MAX {
            writers.push((declared.writes.clone(), String::from(name)));
        }
    }
}

/// Executes one operation on `service`, from nobody in particular, and returns its result. For
/// more than one operation, or where time and digests matter, use [`Harness`].
///
/// # Panics
/// When the service answers later.
pub fn run_op(service: &mut dyn Service, op: &[u8]) -> Vec<u8> {
    let frame = FrameId { client: ClientId(1), session: SessionId(1), stream: 0, id: 1 };
    let (mut tree, mut outputs) = (ObjectTree::new(service.objects()), Vec::new());
    let mut ctx = Context::new(Seq(1), 1, AgreedTime(1), frame, &mut tree, &mut outputs);
    let mut result = Vec::new();
    let completion = service.execute(op, &mut ctx, &mut result);
    assert_eq!(completion, Completion::Done, "use a harness for services that answer later");
    result
}
