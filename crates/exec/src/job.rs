//! Operations on their way to a worker and back: what several threads execute at the same time.
//!
//! A job is some operations that may execute now, one after the other, on whatever thread its
//! owner chooses; it is a value, and running it needs nothing else. What comes of it goes back
//! to the stage, which is the only one to touch the digest tree, the replies and the graph.
//!
//! Not here: which operations may execute when (`parallel`), and threads (`rt`).

use alloc::sync::Arc;
use alloc::vec::Vec;

use base::{AgreedTime, Frame, OpPlace, Seq};

use crate::parallel::Ticket;
use crate::service::{Context, Offload, Output, ParallelService, Writes};

/// Bytes of results after which a job begins no further operation: one small frame may ask for
/// much, and many jobs are out at the same time.
const RESULTS_MAX: usize = 1 << 20;

/// Operations to execute apart from the stage.
pub struct Job {
    pub(crate) service: Arc<dyn ParallelService>,
    pub(crate) offload: Option<Arc<dyn Offload>>,
    /// Which flight of the stage it belongs to.
    pub(crate) flight: u64,
    /// Whether objects are to be saved before they are written.
    pub(crate) saves: bool,
    /// One bit per object: whether its digest is wanted before it is written.
    pub(crate) frozen: Option<Arc<Vec<u64>>>,
    pub(crate) tasks: Vec<(Ticket, Task)>,
}

/// One operation, and its place in the total order.
pub(crate) struct Task {
    pub(crate) frame: Arc<Frame>,
    pub(crate) place: OpPlace,
    pub(crate) seq: Seq,
    pub(crate) time: AgreedTime,
    /// Its index in the batch.
    pub(crate) index: u32,
    /// Which of the frames that were let through its frame is.
    pub(crate) number: u64,
    /// Which operation of its frame it is.
    pub(crate) op: u32,
}

/// What came of a job.
pub struct Finished {
    pub(crate) flight: u64,
    pub(crate) ended: Vec<Ended>,
    /// The results, one after the other.
    pub(crate) results: Arc<Vec<u8>>,
    pub(crate) writes: Writes,
    /// What was produced beyond replies; each with its frame and operation.
    pub(crate) outputs: Vec<(u64, u32, Output)>,
    /// What was not begun.
    pub(crate) left: Vec<(Ticket, Task)>,
}

impl Finished {
    /// Number of operations that were executed.
    #[must_use]
    pub fn ops(&self) -> usize {
        self.ended.len()
    }
}

/// An operation that is done.
pub(crate) struct Ended {
    pub(crate) ticket: Ticket,
    pub(crate) number: u64,
    pub(crate) op: u32,
    /// Where its result is.
    pub(crate) start: u32,
    pub(crate) end: u32,
}

impl Job {
    /// Executes the operations, at least one, until their results take much memory. No handle on
    /// the service is left behind.
    ///
    /// # Panics
    /// When the service does, or a result is longer than 4 GiB.
    #[must_use]
    pub fn run(self) -> Finished {
        let Job { service, offload, flight, saves, frozen, tasks } = self;
        let mut results = Vec::with_capacity(tasks.len() * 16);
        let mut writes = Writes::new(saves, frozen);
        let (mut outputs, mut emitted, mut raw) = (Vec::new(), Vec::new(), Vec::new());
        let mut ended = Vec::with_capacity(tasks.len());
        let mut tasks = tasks.into_iter();
        while results.len() < RESULTS_MAX
            && let Some((ticket, task)) = tasks.next()
        {
            let start = results.len();
            let Task { frame, place, seq, time, index, number, op } = task;
            let bytes = frame.op_at(place);
            let refusal = offload.as_ref().and_then(|offload| offload.before(bytes).err());
            let at = (seq, index);
            let mut ctx = Context::apart(at, time, frame.id(), &mut writes, &mut emitted);
            match (refusal, &offload) {
                (Some(refusal), _) => results.extend_from_slice(&refusal),
                (None, None) => service.execute(bytes, &mut ctx, &mut results),
                (None, Some(offload)) => {
                    raw.clear();
                    service.execute(bytes, &mut ctx, &mut raw);
                    offload.after(bytes, &raw, &mut results);
                }
            }
            outputs.extend(emitted.drain(..).map(|output| (number, op, output)));
            let short = |n: usize| u32::try_from(n).expect("results are shorter");
            let (start, end) = (short(start), short(results.len()));
            ended.push(Ended { ticket, number, op, start, end });
        }
        drop((service, offload));
        let left = tasks.collect();
        Finished { flight, ended, results: Arc::new(results), writes, outputs, left }
    }
}
