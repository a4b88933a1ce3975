//! Results in batches, without a channel per operation: for gateways and load generators.

use std::fmt;
use std::ops::{Deref, Range};
use std::sync::Arc;

use base::limits;
use tokio::sync::mpsc;

use crate::error::CallError;
use crate::inbox::{Control, Inbox, Intake, Item, Token};
use crate::parts::{Parts, SharedSink};

/// The result of one operation: bytes inside the frame's reply, shared with its neighbours. As
/// long as one of them is kept, so is the whole reply: copy what is to be kept for long.
#[derive(Clone, PartialEq, Eq)]
pub struct OpResult {
    content: Arc<Vec<u8>>,
    start: u32,
    end: u32,
}

impl OpResult {
    pub(crate) fn new(content: &Arc<Vec<u8>>, range: Range<usize>) -> OpResult {
        let narrow = |at: usize| u32::try_from(at).expect("replies are below 4 GiB");
        let (start, end) = (narrow(range.start), narrow(range.end));
        OpResult { content: Arc::clone(content), start, end }
    }
}

impl Deref for OpResult {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.content[self.start as usize..self.end as usize]
    }
}

impl AsRef<[u8]> for OpResult {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl fmt::Debug for OpResult {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.escape_ascii().fmt(f)
    }
}

/// An operation has come to its end.
#[derive(Clone, Debug)]
pub struct Completion {
    /// What the caller gave it.
    pub tag: u64,
    /// Its result, or why there is none.
    pub result: Result<OpResult, CallError>,
}

/// Takes completions, on the driver's thread, between two reads of the network: it must not
/// block, nor do much work.
pub trait CompletionSink: Send {
    /// Takes out of `batch` what has come, in order; what it leaves is dropped.
    fn complete(&mut self, batch: &mut Vec<Completion>);
}

/// Numbers a sink within its client.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct SinkId(pub(crate) u64);

/// A sink as the driver holds it, with what has come for it in this turn.
pub(crate) struct SinkState {
    pub(crate) sink: Box<dyn CompletionSink>,
    pub(crate) batch: Vec<Completion>,
}

/// Submits operations whose results go to a [`CompletionSink`]. Dropping it drops the sink, and
/// what was still to come for it.
pub struct Submitter {
    /// Keeps the client open.
    parts: Arc<Parts>,
    /// What the sink is called in each partition.
    sinks: Vec<SinkId>,
}

impl Submitter {
    pub(crate) fn new(parts: Arc<Parts>, sink: Box<dyn CompletionSink>) -> Submitter {
        let mut sinks = Vec::with_capacity(parts.len());
        let mut add = |inbox: &Inbox, sink| {
            let id = inbox.sink_id();
            // When the driver has ended, every submission will say so.
            inbox.control(Control::AddSink(id, SinkState { sink, batch: Vec::new() }));
            sinks.push(id);
        };
        if parts.len() == 1 {
            add(&parts.first().inbox, sink);
        } else {
            let shared = SharedSink::new(sink);
            parts.iter().for_each(|part| add(&part.inbox, Box::new(shared.clone())));
        }
        Submitter { parts, sinks }
    }

    /// Submits an operation of `stream`. Those of one stream execute in the order of calls; the
    /// completion carries `tag`.
    ///
    /// # Errors
    /// When it was not taken: then there is no completion.
    pub fn submit(&self, stream: u32, op: &[u8], tag: u64) -> Result<(), CallError> {
        self.push(stream, (op, false), tag)
    }

    /// The same for an operation that only reads: see [`crate::Client::read`].
    ///
    /// # Errors
    /// When it was not taken: then there is no completion.
    pub fn submit_read(&self, stream: u32, op: &[u8], tag: u64) -> Result<(), CallError> {
        self.push(stream, (op, true), tag)
    }

    fn push(&self, stream: u32, op: (&[u8], bool), tag: u64) -> Result<(), CallError> {
        let (part, stream) = self.parts.place(stream, op.0)?;
        let sink = self.sinks[part];
        self.parts.get(part).inbox.push(stream, op, || Token::Sink { sink, tag })
    }

    /// Submits all that `batch` holds, in order and together: one lock for all of it. The batch
    /// is empty afterwards and may be filled again.
    ///
    /// # Errors
    /// When nothing was taken; then the batch is as before.
    pub fn submit_batch(&self, batch: &mut Batch) -> Result<(), CallError> {
        if batch.0.items.is_empty() {
            return Ok(());
        }
        if self.parts.len() > 1 {
            return self.share_out(batch);
        }
        for item in &mut batch.0.items {
            if let Token::Sink { sink, .. } = &mut item.token {
                *sink = self.sinks[0];
            }
        }
        self.parts.first().inbox.push_all(&mut batch.0)
    }

    /// The same over several partitions. What one of them has no room for, none takes.
    fn share_out(&self, batch: &mut Batch) -> Result<(), CallError> {
        let empty = |part: &crate::parts::Part| (Arc::clone(&part.inbox), Intake::default());
        let mut staged: Vec<_> = self.parts.iter().map(empty).collect();
        let mut rest = &batch.0.arena[..];
        for item in &batch.0.items {
            let (op, more) = rest.split_at(item.len);
            rest = more;
            let (part, stream) = self.parts.place(item.stream, op)?;
            let Token::Sink { tag, .. } = item.token else { continue };
            let token = Token::Sink { sink: self.sinks[part], tag };
            let intake = &mut staged[part].1;
            intake.arena.extend_from_slice(op);
            intake.items.push(Item { stream, len: item.len, read: item.read, token });
        }
        Inbox::push_each(&mut staged)?;
        batch.clear();
        Ok(())
    }
}

/// Operations that are to be submitted together with [`Submitter::submit_batch`].
#[derive(Default)]
pub struct Batch(Intake);

impl Batch {
    /// An empty batch.
    #[must_use]
    pub fn new() -> Batch {
        Batch::default()
    }

    /// Adds an operation of `stream`; its completion will carry `tag`.
    ///
    /// # Errors
    /// [`CallError::TooLarge`].
    pub fn push(&mut self, stream: u32, op: &[u8], tag: u64) -> Result<(), CallError> {
        self.add(stream, (op, false), tag)
    }

    /// The same for an operation that only reads: see [`crate::Client::read`].
    ///
    /// # Errors
    /// [`CallError::TooLarge`].
    pub fn push_read(&mut self, stream: u32, op: &[u8], tag: u64) -> Result<(), CallError> {
        self.add(stream, (op, true), tag)
    }

    fn add(&mut self, stream: u32, (op, read): (&[u8], bool), tag: u64) -> Result<(), CallError> {
        if op.len() > limits::OP_BYTES_MAX {
            return Err(CallError::TooLarge { bytes: op.len() });
        }
        self.0.arena.extend_from_slice(op);
        let token = Token::Sink { sink: SinkId(0), tag };
        self.0.items.push(Item { stream, len: op.len(), read, token });
        Ok(())
    }

    /// Number of operations.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.items.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.items.is_empty()
    }

    /// Drops all operations.
    pub fn clear(&mut self) {
        self.0.items.clear();
        self.0.arena.clear();
    }
}

impl fmt::Debug for Batch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Batch").field("len", &self.len()).finish_non_exhaustive()
    }
}

impl Drop for Submitter {
    fn drop(&mut self) {
        for (part, sink) in self.parts.iter().zip(&self.sinks) {
            part.inbox.control(Control::DropSink(*sink));
        }
    }
}

impl fmt::Debug for Submitter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Submitter").field("sinks", &self.sinks).finish_non_exhaustive()
    }
}

/// The receiving end of [`crate::Client::pipe`].
#[derive(Debug)]
pub struct Completions(mpsc::UnboundedReceiver<Vec<Completion>>);

impl Completions {
    /// Everything that came together, in order; `None` when the submitter or the client is gone.
    pub async fn recv(&mut self) -> Option<Vec<Completion>> {
        self.0.recv().await
    }

    /// What is there without waiting.
    pub fn try_recv(&mut self) -> Option<Vec<Completion>> {
        self.0.try_recv().ok()
    }

    /// Waits on a thread that is not a runtime's.
    ///
    /// # Panics
    /// Inside an asynchronous runtime.
    pub fn blocking_recv(&mut self) -> Option<Vec<Completion>> {
        self.0.blocking_recv()
    }
}

/// A sink that passes batches on through a channel. As many operations can be under way as the
/// client allows, so the channel needs no bound of its own.
pub(crate) fn channel() -> (Box<dyn CompletionSink>, Completions) {
    let (sender, receiver) = mpsc::unbounded_channel();
    (Box::new(ChannelSink(sender)), Completions(receiver))
}

struct ChannelSink(mpsc::UnboundedSender<Vec<Completion>>);

impl CompletionSink for ChannelSink {
    fn complete(&mut self, batch: &mut Vec<Completion>) {
        // A receiver that is gone wants nothing.
        let _ = self.0.send(std::mem::take(batch));
    }
}
