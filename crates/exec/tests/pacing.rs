//! How fast a source gives its state away: at leisure while it executes, but in the end faster
//! than the group moves on.

mod common;

use std::sync::Arc;

use base::transfer::{Part, SnapshotReader, StateMessage, StateRequest};
use base::{Frame, FromStage, ReplicaId, Seq, Span, Time, ToStage};
use common::group::{Blobs, Group, INTERVAL, append, blobs, certified, config, digest};
use common::{batch, id, open, request};
use exec::transfer::{BUSY, BUSY_OPS_PER_S, BUSY_SHARE_MIN, HASTE_FORGOTTEN_AFTER, IDLE};
use exec::{Stage, StageConfig, StageOutbox, Turn};

/// Far more than an asker may have in the time that the tests let pass.
const OBJECTS: u32 = 16;
const KIB: u16 = 64;

/// What one of the three other replicas gives.
const BUSY_SHARE: u64 = BUSY.bytes_per_s / 3;

/// A source under a load of so many operations per second, with an asker that never has enough.
struct Busy {
    stage: Stage,
    ops_per_ms: u64,
    now: Time,
    seq: u64,
    checkpoint: Seq,
    frame: u64,
}

impl Busy {
    fn new(ops_per_ms: u64) -> Busy {
        Busy::one_of(4, ops_per_ms)
    }

    fn one_of(replicas: u16, ops_per_ms: u64) -> Busy {
        let config = StageConfig { replicas, ..config() };
        let stage = Stage::new(config, Blobs::boxed(OBJECTS as usize));
        let checkpoint = Seq(0);
        let mut busy = Busy { stage, ops_per_ms: 0, now: Time(1), seq: 0, checkpoint, frame: 0 };
        busy.deliver(vec![open(1, 1)]);
        let fill: Vec<_> = (0..u64::from(OBJECTS)).map(|at| append(at, 1, KIB)).collect();
        let frame = busy.next_frame(&fill);
        busy.deliver(vec![frame]);
        busy.ops_per_ms = ops_per_ms;
        busy.checkpoint();
        busy
    }

    fn next_frame(&mut self, ops: &[Vec<u8>]) -> Arc<Frame> {
        self.frame += 1;
        let ops: Vec<&[u8]> = ops.iter().map(Vec::as_slice).collect();
        request(id(1, 1, 0, self.frame), self.frame - 1, &ops)
    }

    fn deliver(&mut self, frames: Vec<Arc<Frame>>) {
        self.seq += 1;
        let batch = batch(self.seq * 10, &frames);
        self.tell(ToStage::Deliver { seq: Seq(self.seq), batch });
    }

    fn tell(&mut self, message: ToStage) {
        let mut out = StageOutbox::new();
        self.stage.on(message, &mut out).expect("it is taken");
        self.run();
    }

    /// Runs until there is nothing to do, and returns the bytes that it says.
    fn run(&mut self) -> u64 {
        let mut out = StageOutbox::new();
        while self.stage.run(1000, &mut out) == Turn::More {}
        let bytes = out.messages.iter().map(|(_, told)| match told {
            FromStage::State { message, .. } => message.encoded_len_max() as u64,
            _ => 0,
        });
        bytes.sum()
    }

    /// Goes on to the next checkpoint, which the asker asks about from now on.
    fn checkpoint(&mut self) {
        let seq = Seq((self.seq / INTERVAL + 1) * INTERVAL);
        self.tell(ToStage::Pin { seq, reader: SnapshotReader::Transfer });
        while self.seq < seq.0 {
            self.deliver(vec![]);
        }
        self.checkpoint = seq;
    }

    /// Somebody asks for the first objects.
    fn ask(&mut self, objects: u32) {
        let request =
            StateRequest::Objects { part: Part::Service, objects: (0..objects).collect() };
        let message = StateMessage::Ask { checkpoint: self.checkpoint, request };
        let ask = ToStage::State { from: ReplicaId(1), message };
        self.stage.on(ask, &mut StageOutbox::new()).expect("it is taken");
    }

    /// What an asker gets in this time if it asks for more than it can get.
    fn gives(&mut self, span: Span) -> u64 {
        let end = self.now.after(span);
        let mut bytes = 0;
        while self.now < end {
            self.now = self.now.after(Span::millis(1));
            (0..8).for_each(|_| self.ask(OBJECTS));
            if self.ops_per_ms > 0 {
                let ops: Vec<_> = (0..self.ops_per_ms).map(|_| append(0, 1, 0)).collect();
                let frame = self.next_frame(&ops);
                let seq = Seq(self.seq + 1);
                self.seq += 1;
                let batch = batch(self.seq * 10, &[frame]);
                let mut out = StageOutbox::new();
                self.stage.on(ToStage::Deliver { seq, batch }, &mut out).expect("it is taken");
            }
            let mut out = StageOutbox::new();
            self.stage.on(ToStage::Tick(self.now), &mut out).expect("it is taken");
            bytes += self.run();
        }
        bytes
    }

    /// The same per second, once it has settled.
    fn rate(&mut self) -> u64 {
        self.gives(Span::millis(700));
        self.gives(Span::secs(1))
    }
}

/// Within a twentieth, for answers are not cut.
fn is_about(rate: u64, wanted: u64) -> bool {
    rate.abs_diff(wanted) <= wanted / 20
}

#[test]
fn a_source_that_executes_gives_less_and_one_that_does_not_gives_all_it_can() {
    let mut idle = Busy::new(0);
    let rate = idle.rate();
    assert!(is_about(rate, IDLE.bytes_per_s), "{rate}");
    let mut busy = Busy::new(2 * BUSY_OPS_PER_S / 1000);
    let rate = busy.rate();
    assert!(is_about(rate, BUSY_SHARE), "{rate}");
    // To be held up for a moment is not to be idle.
    busy.ops_per_ms = 0;
    let given = busy.gives(Span::millis(300));
    assert!(given < BUSY_SHARE, "{given}");
    busy.ops_per_ms = 2 * BUSY_OPS_PER_S / 1000;
    let rate = busy.rate();
    assert!(is_about(rate, BUSY_SHARE), "{rate}");
    // When its clients go, it notices.
    busy.ops_per_ms = 0;
    let rate = busy.rate();
    assert!(is_about(rate, IDLE.bytes_per_s), "{rate}");
}

#[test]
fn the_others_share_the_pace() {
    for (replicas, wanted) in [
        (2, BUSY.bytes_per_s),
        (4, BUSY.bytes_per_s / 3),
        (7, BUSY.bytes_per_s / 6),
        (31, BUSY_SHARE_MIN),
    ] {
        let rate = Busy::one_of(replicas, 2 * BUSY_OPS_PER_S / 1000).rate();
        assert!(is_about(rate, wanted), "one of {replicas}: {rate}");
    }
}

#[test]
fn whoever_comes_back_for_a_newer_checkpoint_gets_twice_as_much_each_time_for_a_while() {
    let mut busy = Busy::new(2 * BUSY_OPS_PER_S / 1000);
    for round in 0..6 {
        let rate = busy.rate();
        let wanted = (BUSY_SHARE << round).min(IDLE.bytes_per_s);
        assert!(is_about(rate, wanted), "round {round}: {rate}");
        busy.checkpoint();
    }
    // The same checkpoint again, or an older one, is no return.
    busy.now = busy.now.after(HASTE_FORGOTTEN_AFTER);
    let rate = busy.rate();
    assert!(is_about(rate, BUSY_SHARE), "{rate}");
}

/// A state that is fetched before any pace shows was not late because of it: whoever got one and
/// soon needs another, such as a replica that is emptied twice, is no reason to hurry.
#[test]
fn whoever_got_what_it_asked_for_at_once_and_comes_back_is_not_hurried() {
    let mut busy = Busy::new(2 * BUSY_OPS_PER_S / 1000);
    for _ in 0..4 {
        busy.ask(OBJECTS / 2);
        let given = busy.run();
        assert!(given > 0, "it was given nothing");
        busy.checkpoint();
        busy.now = busy.now.after(Span::secs(1));
    }
    let rate = busy.rate();
    assert!(is_about(rate, BUSY_SHARE), "{rate}");
}

/// The state is written all over again in less time than it takes to fetch it at leisure: at one
/// pace whoever fetches would be as far behind after each checkpoint as before it.
#[test]
fn a_fetch_catches_up_with_a_group_that_writes_faster_than_a_busy_source_gives() {
    const SOURCES: [usize; 3] = [0, 1, 2];
    const STATE: u64 = 200;
    let mut group = Group::new((0..4).map(|_| blobs(STATE as usize)).collect(), 1);
    let mut seq = 0;
    let mut number = 0;
    let mut advance = |group: &mut Group| {
        seq += 1;
        let mut ops: Vec<Vec<u8>> = vec![];
        // Cut to a half and filled up again: 64 KiB for ever, once they have grown to that.
        for at in 0..3 {
            let object = (seq * 3 + at) % STATE;
            ops.extend([append(object, 1, 0), append(object, seq as u8, KIB / 2)]);
        }
        let ops: Vec<&[u8]> = ops.iter().map(Vec::as_slice).collect();
        number += u64::from(seq > 1);
        let frame = match seq {
            1 => open(1, 1),
            _ => request(id(1, 1, 0, number), number - 1, &ops),
        };
        group.deliver(&SOURCES, seq, &batch(seq * 10, &[frame]));
        let end = group.now.after(Span::millis(2));
        group.settle(Span::millis(2));
        group.now = end;
        seq
    };
    while advance(&mut group) < 8 * STATE / 3 {}
    let began = group.now;
    let mut behind = vec![];
    while behind.last().is_none_or(|batches| *batches > 4 * INTERVAL) {
        let pinned = (advance(&mut group) / INTERVAL + 2) * INTERVAL;
        group.pin(&SOURCES, pinned, SnapshotReader::Transfer);
        while advance(&mut group) < pinned {}
        let target = certified(&group.stages[0]);
        group.fetch(3, &target, &SOURCES);
        let now = loop {
            let now = advance(&mut group);
            if group.fetched(3) == Some(Seq(pinned)) {
                break now;
            }
        };
        behind.push(now - pinned);
        assert!(group.now < began.after(Span::secs(20)), "it does not end: {behind:?}");
    }
    assert!(behind.len() > 2, "there was no need to hurry: {behind:?}");
    assert!(group.liars(3).is_empty() && !group.failed(3));
    let fetched = group.fetched(3).expect("it ends");
    assert_eq!(group.stages[3].report().executed, fetched);
    digest(&mut group.stages[3]);
}
