//! Tentative execution from the outside: what is taken back leaves no trace, and what is
//! tentative is told nobody as if it were not (design, trap 7).

mod common;

use std::sync::Arc;

use base::transfer::SnapshotReader;
use base::{
    AgreedTime, Batch, ClientId, Frame, FromStage, Malformed, PillarId, Reader, ReplyStatus, Seq,
    SessionId, ToStage, View, Writer,
};
use common::{GROUP, Random, batch, close, id, open, request, statuses};
use exec::testing::check_taken_back;
use exec::{
    Completion, Context, Output, Service, Stage, StageConfig, StageOutbox, Target, Tentative, Turn,
    Undo,
};

const CELLS: u32 = 40;

/// Cells, and an alarm; everything is in objects.
#[derive(Clone)]
struct Alarm {
    cells: Vec<u64>,
    alarm: Option<AgreedTime>,
    undo: Undo,
    before: Option<Box<Alarm>>,
}

impl Alarm {
    fn new(undo: Undo) -> Alarm {
        Alarm { cells: vec![0; CELLS as usize], alarm: None, undo, before: None }
    }

    fn set(&mut self, ctx: &mut Context<'_>, alarm: Option<AgreedTime>) {
        ctx.modify(CELLS, |out| self.get(CELLS, out));
        self.alarm = alarm;
    }
}

impl Service for Alarm {
    fn execute(&mut self, op: &[u8], ctx: &mut Context<'_>, reply: &mut Vec<u8>) -> Completion {
        let cell = u32::from(op[0]) % CELLS;
        match op.get(1) {
            Some(b'd') => self.set(ctx, Some(AgreedTime(ctx.time.0 + u64::from(op[2])))),
            Some(b'n') => {
                ctx.emit(Output::Nudge { client: ClientId(9), session: ctx.frame.session });
            }
            Some(b'b') => reply.resize(reply.len() + 9_000_000, op[0]),
            _ => {}
        }
        ctx.modify(cell, |out| self.get(cell, out));
        self.cells[cell as usize] += 1 + u64::from(op[0]) + ctx.time.0;
        reply.extend_from_slice(&self.cells[cell as usize].to_le_bytes());
        Completion::Done
    }

    fn get(&self, object: u32, out: &mut Vec<u8>) {
        let alarm = self.alarm.map_or(0, |alarm| alarm.0);
        Writer::new(out).u64(self.cells.get(object as usize).copied().unwrap_or(alarm));
    }

    fn put(&mut self, object: u32, bytes: &[u8]) -> Result<(), Malformed> {
        let mut r = Reader::new(bytes);
        let value = r.u64("cell")?;
        match self.cells.get_mut(object as usize) {
            Some(cell) => *cell = value,
            None => self.alarm = (value > 0).then_some(AgreedTime(value)),
        }
        r.finish("cell")
    }

    fn objects(&self) -> u32 {
        CELLS + 1
    }

    fn deadline(&self) -> Option<AgreedTime> {
        self.alarm
    }

    fn wake(&mut self, ctx: &mut Context<'_>) {
        self.set(ctx, None);
        ctx.modify(0, |out| self.get(0, out));
        self.cells[0] += 1_000_000;
    }

    fn undo(&self) -> Undo {
        self.undo
    }

    fn tentative(&mut self, step: Tentative) {
        if self.undo != Undo::Itself {
            return;
        }
        match step {
            Tentative::Begin => self.before = Some(Box::new(self.clone())),
            Tentative::Commit => self.before = None,
            Tentative::RollBack => *self = *self.before.take().expect("it has begun"),
        }
    }
}

fn stage_with(undo: Undo, interval: u64) -> Stage {
    let stripe = base::Stripe::new(1).expect("in range");
    let config = StageConfig {
        group: GROUP,
        stripe,
        checkpoint_interval: interval,
        window: 64,
        nulls_ahead: false,
        replicas: 4,
    };
    Stage::new(config, Box::new(Alarm::new(undo)))
}

fn stage(interval: u64) -> Stage {
    stage_with(Undo::Objects, interval)
}

fn tell(stage: &mut Stage, message: ToStage) -> Vec<(Target, FromStage)> {
    let mut out = StageOutbox::new();
    stage.on(message, &mut out).expect("in the window");
    while stage.run(5, &mut out) != Turn::Idle {}
    stage.check();
    out.messages
}

fn prepare(stage: &mut Stage, seq: u64, view: u64, b: &Arc<Batch>) -> Vec<(Target, FromStage)> {
    let batch = Arc::clone(b);
    tell(stage, ToStage::Tentative { seq: Seq(seq), view: View(view), batch })
}

fn deliver(stage: &mut Stage, seq: u64, b: &Arc<Batch>) -> Vec<(Target, FromStage)> {
    tell(stage, ToStage::Deliver { seq: Seq(seq), batch: Arc::clone(b) })
}

fn views(messages: &[(Target, FromStage)]) -> Vec<Option<u64>> {
    let view = |message: &(Target, FromStage)| match message.1 {
        FromStage::Reply { tentative, .. } => Some(tentative.map(|view| view.0)),
        _ => None,
    };
    messages.iter().filter_map(view).collect()
}

/// Sessions that come and go, duplicates, conflicts, gaps, acknowledgements, nudges, alarms,
/// replies that are dropped for want of room, and ticks.
fn history(random: &mut Random, batches: u64) -> Vec<Arc<Batch>> {
    let frame = |random: &mut Random| -> Arc<Frame> {
        let (client, session) = (random.below(5) as u32, 1 + random.below(70));
        let stream = [0, 1, 1 << 31][random.below(3) as usize];
        let number = 1 + random.below(12);
        match random.below(30) {
            0..16 => open(client, session % 4 + 1),
            16 => close(client, session % 4 + 1),
            17 => open(client, session),
            18 => request(id(client, session % 4 + 1, stream, number), 0, &[&[7, b'b']]),
            _ => {
                let cell = [random.below(40) as u8];
                let alarm = [1, b'd', random.below(200) as u8];
                let name = id(client, session % 4 + 1, stream, number);
                request(name, random.below(number), &[&cell, &alarm, &[3, b'n']])
            }
        }
    };
    let one = |random: &mut Random| match random.below(8) {
        0 => Arc::new(Batch::Null),
        _ => {
            let frames: Vec<_> = (0..random.below(12)).map(|_| frame(random)).collect();
            batch(random.below(4_000), &frames)
        }
    };
    (0..batches).map(|_| one(random)).collect()
}

#[test]
fn what_is_taken_back_leaves_no_trace() {
    let mut taken_back = 0;
    for seed in 0..40 {
        let mut random = Random(seed);
        let (log, others) = (history(&mut random, 60), history(&mut random, 60));
        for undo in [Undo::Objects, Undo::Itself] {
            taken_back += check_taken_back(&|| Box::new(Alarm::new(undo)), &log, &others);
        }
    }
    assert!(taken_back > 2_000, "{taken_back}");
}

/// One principal that opens session after session and gets large replies, until sessions are
/// evicted and replies dropped.
#[test]
fn what_the_table_drops_comes_back_with_a_roll_back() {
    let crowd = |random: &mut Random, first: u64| -> Vec<Arc<Batch>> {
        let mut highest = first;
        let frame = |random: &mut Random, highest: &mut u64| {
            *highest += random.below(2);
            let session = highest.saturating_sub(random.below(3));
            match random.below(4) {
                0 => request(id(1, session, random.below(3) as u32, 1), 0, &[&[9, b'b']]),
                1 => {
                    let number = 1 + random.below(3);
                    request(id(1, session, 0, number), random.below(number), &[b"x"])
                }
                _ => open(1, *highest),
            }
        };
        let one = |random: &mut Random, highest: &mut u64| {
            let frames: Vec<_> = (0..10).map(|_| frame(random, highest)).collect();
            batch(random.below(4_000), &frames)
        };
        (0..30).map(|_| one(random, &mut highest)).collect()
    };
    for seed in 0..2 {
        let mut random = Random(seed);
        let (log, others) = (crowd(&mut random, 1), crowd(&mut random, 40));
        let mut plain = stage(100);
        (1..).zip(&log).for_each(|(seq, batch)| drop(deliver(&mut plain, seq, batch)));
        let counts = plain.sessions().counts();
        assert!(counts.evicted > 0 && counts.dropped_replies > 0, "{counts:?}");
        let taken_back = check_taken_back(&|| Box::new(Alarm::new(Undo::Objects)), &log, &others);
        assert_eq!(taken_back, 30);
    }
}

#[test]
fn a_committed_batch_is_answered_once_and_ends_only_then() {
    let mut stage = stage(2);
    let frames = [open(1, 1), request(id(1, 1, 0, 2), 0, &[b"x"])];
    let said = prepare(&mut stage, 1, 7, &batch(5, &frames));
    // The refusal is an answer, and what lanes are to do about it waits.
    assert_eq!(views(&said), [Some(7), Some(7)]);
    assert_eq!(said.len(), 2, "{said:?}");
    assert!(stage.is_tentative());
    assert_eq!(stage.progress().executed, Seq(0));
    let said = deliver(&mut stage, 1, &batch(5, &frames));
    assert_eq!(views(&said), []);
    assert!(matches!(said[0].1, FromStage::Refused { seq: Seq(1), .. }), "{said:?}");
    assert!(matches!(said[1].1, FromStage::Executed(p) if p.executed == Seq(1)), "{said:?}");
    let frames = [request(id(1, 1, 0, 1), 0, &[&[3, b'n']])];
    let said = prepare(&mut stage, 2, 7, &batch(6, &frames));
    assert_eq!((views(&said), said.len()), (vec![Some(7)], 1), "no nudge and no checkpoint");
    let said = deliver(&mut stage, 2, &batch(6, &frames));
    assert!(said.iter().any(|(_, m)| matches!(m, FromStage::Nudge { seq: Seq(2), .. })));
    assert!(said.iter().any(|(_, m)| matches!(m, FromStage::Checkpoint { seq: Seq(2), .. })));
    assert_eq!((stage.tentative_report().executed, stage.tentative_report().rolled_back), (2, 0));
}

#[test]
fn nothing_executes_before_everything_below_it_is_committed() {
    let mut stage = stage(100);
    let one = |n| batch(n, &[open(n as u32, 1)]);
    assert_eq!(prepare(&mut stage, 2, 0, &one(2)), []);
    assert_eq!(views(&prepare(&mut stage, 1, 0, &one(1))), [Some(0)]);
    assert_eq!(prepare(&mut stage, 3, 0, &one(3)), []);
    let said = deliver(&mut stage, 1, &one(1));
    assert_eq!(views(&said), [Some(0)], "the second, now that the first is committed");
    assert_eq!(stage.progress().executed, Seq(1));
    // Both at once: the second is confirmed, the third goes straight on.
    let mut out = StageOutbox::new();
    for seq in [2, 3] {
        let deliver = ToStage::Deliver { seq: Seq(seq), batch: one(seq) };
        stage.on(deliver, &mut out).expect("in the window");
    }
    assert_eq!(stage.run(100, &mut out), Turn::Idle);
    assert_eq!(views(&out.messages), [None]);
    assert_eq!(stage.progress().executed, Seq(3));
    assert_eq!(prepare(&mut stage, 3, 9, &one(3)), [], "it is over");
    assert_eq!(prepare(&mut stage, 4 + 64, 9, &one(3)), [], "far too early");
}

#[test]
fn a_later_view_says_it_again_or_replaces_it() {
    let mut stage = stage(100);
    let (mine, other) = (batch(5, &[open(1, 1)]), batch(6, &[open(2, 1)]));
    assert_eq!(views(&prepare(&mut stage, 1, 3, &mine)), [Some(3)]);
    assert_eq!(prepare(&mut stage, 1, 2, &other), [], "an earlier view says nothing new");
    assert_eq!(prepare(&mut stage, 1, 3, &mine), [], "nor does the same");
    assert_eq!(views(&prepare(&mut stage, 1, 4, &mine)), [Some(4)]);
    assert_eq!(views(&prepare(&mut stage, 1, 5, &other)), [Some(5)]);
    assert!(stage.sessions().recall(id(1, 1, 0, 0)).is_none(), "the first never was");
    // Committed before anybody heard that it is prepared in another view.
    let mut out = StageOutbox::new();
    let tentative = ToStage::Tentative { seq: Seq(1), view: View(6), batch: Arc::clone(&other) };
    stage.on(tentative, &mut out).expect("taken");
    let deliver = ToStage::Deliver { seq: Seq(1), batch: other };
    stage.on(deliver, &mut out).expect("in the window");
    assert_eq!(stage.run(100, &mut out), Turn::Idle);
    assert_eq!(views(&out.messages), [None], "for good");
}

#[test]
fn what_is_asked_for_again_is_as_tentative_as_the_table() {
    let mut stage = stage(100);
    let resend =
        |stage: &mut Stage, frame| tell(stage, ToStage::Resend { pillar: PillarId(0), frame });
    deliver(&mut stage, 1, &batch(5, &[open(1, 1), request(id(1, 1, 0, 1), 0, &[b"x"])]));
    assert_eq!(views(&resend(&mut stage, id(1, 1, 0, 1))), [None]);
    // It acknowledges the first: whether that is forgotten is not certain yet.
    prepare(&mut stage, 2, 1, &batch(6, &[request(id(1, 1, 0, 2), 1, &[b"x"])]));
    let said = resend(&mut stage, id(1, 1, 0, 1));
    assert_eq!((views(&said), statuses(&said)), (vec![Some(1)], vec![ReplyStatus::ReplyGone]));
    deliver(&mut stage, 2, &Arc::new(Batch::Null));
    let said = resend(&mut stage, id(1, 1, 0, 1));
    assert_eq!((views(&said), statuses(&said)), (vec![None], vec![ReplyStatus::Executed]));
}

#[test]
fn what_is_pinned_or_digested_at_rest_is_not_tentative() {
    let mut stage = stage(100);
    let first = batch(5, &[open(1, 1), request(id(1, 1, 0, 1), 0, &[b"x"])]);
    deliver(&mut stage, 1, &first);
    let digest = stage.state_digest();
    let second = batch(6, &[request(id(1, 1, 0, 2), 1, &[b"x", b"y"])]);
    assert_eq!(views(&prepare(&mut stage, 2, 0, &second)), [Some(0)]);
    assert_eq!(stage.state_digest(), digest);
    let reader = SnapshotReader::Transfer;
    let said = tell(&mut stage, ToStage::Pin { seq: Seq(1), reader });
    assert!(
        matches!(said[0].1, FromStage::Pinned { seq: Seq(1), digest: d, .. } if d == digest),
        "{said:?}"
    );
    // It is executed once more; what is pinned is unharmed.
    assert_eq!(views(&said), [Some(0)]);
    assert!(stage.is_tentative());
    let held = stage.pinned_manifest(reader).copied().expect("it is pinned");
    assert_eq!(held.digest(GROUP), digest);
    for cell in [b'x', b'y'].map(|op| u32::from(op) % CELLS) {
        let now = stage.read_pinned(reader, base::transfer::Part::Service, cell);
        let value = if cell == u32::from(b'x') % CELLS { 1 + u64::from(b'x') + 5 } else { 0 };
        assert_eq!(now.as_deref(), Some(&value.to_le_bytes()[..]));
    }
    deliver(&mut stage, 2, &second);
    let mut plain = self::stage(100);
    deliver(&mut plain, 1, &first);
    deliver(&mut plain, 2, &second);
    assert_eq!(stage.state_digest(), plain.state_digest());
    stage.check_state();
}

#[test]
fn a_service_says_that_it_cannot() {
    assert!(stage(100).can_undo());
    assert!(stage_with(Undo::Itself, 100).can_undo());
    assert!(!stage_with(Undo::Never, 100).can_undo());
    assert_eq!(SessionId(1), open(1, 1).id().session);
}
