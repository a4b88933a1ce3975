//! The graph against a naive model that compares everything with everything.

use std::vec;
use std::vec::Vec;

use super::*;

/// A small generator of numbers: which ones does not matter, only that they differ.
struct Dice(u64);

impl Dice {
    fn below(&mut self, n: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963);
        (self.0 >> 33) % n
    }
}

/// What the model knows of an operation.
struct Known {
    seq: Seq,
    footprint: Footprint,
    invocation: Option<Option<Invocation>>,
    ticket: Option<Ticket>,
    removed: bool,
}

struct Model {
    all: Vec<Known>,
    cut: Option<Seq>,
    rules: Option<Arc<dyn Operators>>,
}

impl Model {
    fn depends(&self, a: &Known, b: &Known) -> bool {
        match (&a.invocation, &b.invocation) {
            (None, None) => a.footprint.conflicts(&b.footprint),
            (Some(Some(a)), Some(Some(b))) => {
                self.rules.as_ref().is_none_or(|rules| rules.depend(a, b))
            }
            // What touches nothing depends on nobody, however others are described.
            (None, Some(Some(_))) => !is_idle(&a.footprint),
            (Some(Some(_)), None) => !is_idle(&b.footprint),
            _ => true,
        }
    }

    /// Whether the rules allow that operation `i` begins.
    fn may_begin(&self, i: usize) -> bool {
        let one = &self.all[i];
        let free = |earlier: &Known| earlier.removed || !self.depends(earlier, one);
        self.cut.is_none_or(|cut| one.seq <= cut) && self.all[..i].iter().all(free)
    }
}

fn is_idle(footprint: &Footprint) -> bool {
    *footprint == Footprint::default()
}

fn footprint(dice: &mut Dice, classes: u64) -> Footprint {
    let mut out = Footprint { barrier: dice.below(40) == 0, ..Footprint::default() };
    for _ in 0..dice.below(4) {
        out.reads.push(dice.below(classes));
    }
    for _ in 0..dice.below(3) {
        out.writes.push(dice.below(classes));
    }
    out
}

/// Reads, writes and creations of files.
struct Files(Matrices);

impl Operators for Files {
    fn parse(&self, op: &[u8]) -> Option<Invocation> {
        let (function, args) = op.split_first()?;
        (*function < 3).then(|| Invocation { function: u16::from(*function), args: args.to_vec() })
    }

    fn always(&self, a: u16, b: u16) -> bool {
        self.0.always(a, b)
    }

    fn related(&self, a: &[u8], b: &[u8]) -> bool {
        a == b
    }

    fn when_related(&self, a: u16, b: u16) -> bool {
        self.0.when_related(a, b)
    }
}

fn files() -> Arc<dyn Operators> {
    // 0 reads a file, 1 writes one, 2 creates one, which nothing may pass.
    let matrices = Matrices::new(3).independent(0, 0).by_arguments(0, 1).by_arguments(1, 1);
    Arc::new(Files(matrices))
}

/// Goes through one random run, and holds each step against the model.
fn run(seed: u64, mixes: bool) {
    let mut dice = Dice(seed);
    let classes = 1 + dice.below(20);
    let interval = 1 + dice.below(6);
    let mut graph: Parallelizer<usize> = Parallelizer::new(seed, Some(files()));
    let cut = (!seed.is_multiple_of(3)).then_some(Seq(interval));
    let mut model = Model { all: vec![], cut, rules: Some(files()) };
    if let Some(cut) = cut {
        graph.sync(cut);
    }
    let calls = seed % 4 == 1;
    for _ in 0..300 {
        match dice.below(5) {
            0..=1 => insert(&mut graph, &mut model, &mut dice, (classes, calls, mixes)),
            2 => {
                let next = match seed % 2 {
                    0 => graph.next_request(),
                    _ => graph.choose_request(|n| dice.below(n as u64) as usize),
                };
                if let Some((ticket, i)) = next {
                    // A mixture of keys and calls is allowed to be held for longer.
                    assert!(model.may_begin(i), "seed {seed}: {i} begins too early");
                    assert!(model.all[i].ticket.replace(ticket).is_none(), "seed {seed}: twice");
                }
            }
            _ => remove(&mut graph, &mut model, &mut dice),
        }
        if graph.is_at_cut()
            && let Some(cut) = model.cut
            && model.all.last().is_some_and(|last| last.seq > cut)
        {
            let done = |known: &Known| known.seq > cut || known.removed;
            assert!(model.all.iter().all(done), "seed {seed}: a cut too early");
            model.cut = Some(Seq(cut.0 + interval));
            graph.sync(Seq(cut.0 + interval));
        }
        graph.check();
        // Complete, too: whatever may begin is ready or under way.
        let ready = (0..model.all.len())
            .filter(|i| model.all[*i].ticket.is_none() && model.may_begin(*i))
            .count();
        assert!(graph.ready() <= ready, "seed {seed}");
        assert!(mixes || graph.ready() == ready, "seed {seed}: somebody is held for nothing");
        let oldest = model.all.iter().position(|known| !known.removed);
        let held = oldest.is_none_or(|i| model.cut.is_some_and(|cut| model.all[i].seq > cut));
        assert!(held || graph.ready() + graph.issued() > 0, "seed {seed}: the oldest starves");
    }
}

fn insert(
    graph: &mut Parallelizer<usize>,
    model: &mut Model,
    dice: &mut Dice,
    (classes, calls, mixes): (u64, bool, bool),
) {
    let last = model.all.last().map_or(1, |last| last.seq.0);
    let seq = Seq(last + u64::from(dice.below(3) == 0));
    let number = model.all.len();
    let footprint = footprint(dice, classes);
    let invocation = if calls || (mixes && dice.below(2) == 0) {
        let op = [dice.below(4) as u8, dice.below(classes) as u8];
        let invocation = files().parse(&op);
        graph.insert_call(seq, invocation.clone(), number);
        Some(invocation)
    } else {
        graph.insert(seq, &footprint, number);
        None
    };
    model.all.push(Known { seq, footprint, invocation, ticket: None, removed: false });
}

fn remove(graph: &mut Parallelizer<usize>, model: &mut Model, dice: &mut Dice) {
    let under_way = model.all.iter().enumerate();
    let under_way = under_way.filter(|(_, known)| known.ticket.is_some() && !known.removed);
    let under_way: Vec<usize> = under_way.map(|(i, _)| i).collect();
    if under_way.is_empty() {
        return;
    }
    let i = under_way[dice.below(under_way.len() as u64) as usize];
    model.all[i].removed = true;
    graph.remove_request(model.all[i].ticket.expect("it is under way"));
}

#[test]
fn what_may_begin_is_what_a_naive_comparison_allows() {
    for seed in 0..400 {
        run(seed, false);
    }
}

#[test]
fn keys_and_calls_that_are_mixed_wait_for_each_other() {
    for seed in 0..100 {
        run(seed, true);
    }
}

#[test]
fn the_default_is_one_after_the_other_and_oldest_first() {
    let mut graph: Parallelizer<u64> = Parallelizer::new(0, None);
    let all = Footprint { barrier: true, ..Footprint::default() };
    (0..5).for_each(|i| graph.insert(Seq(1), &all, i));
    graph.insert_call(Seq(1), Some(Invocation { function: 0, args: vec![] }), 5);
    for i in 0..6 {
        let (ticket, payload) = graph.next_request().expect("the oldest is ready");
        assert_eq!((payload, ticket.alone), (i, true));
        assert!(graph.next_request().is_none(), "two that depend on everything");
        graph.remove_request(ticket);
    }
    assert_eq!((graph.pending(), graph.issued()), (0, 0));
    graph.check();
}

#[test]
fn a_cut_waits_for_those_up_to_it_only_and_holds_those_beyond_it() {
    let mut graph: Parallelizer<u64> = Parallelizer::new(0, None);
    graph.sync(Seq(2));
    let key = |class| Footprint { writes: vec![class], ..Footprint::default() };
    for seq in 1..=6 {
        graph.insert(Seq(seq), &key(seq), seq);
    }
    let (one, _) = graph.next_request().expect("1");
    let (two, _) = graph.next_request().expect("2, while 1 is under way");
    assert!(graph.next_request().is_none(), "3 is beyond the cut");
    graph.remove_request(two);
    assert!(!graph.is_at_cut());
    graph.remove_request(one);
    assert!(graph.is_at_cut() && graph.next_request().is_none());
    graph.sync(Seq(4));
    assert_eq!(graph.ready(), 2);
    graph.check();
    let three = graph.next_request().expect("3").0;
    graph.remove_request(three);
    graph.sync(Seq(6));
    // 4 is still there, and 5 and 6 do not wait for it: no checkpoint was asked for between.
    assert_eq!(graph.ready(), 1);
    graph.check();
}

#[test]
fn memory_is_used_again() {
    let mut graph: Parallelizer<u64> = Parallelizer::new(7, None);
    for round in 0..1000u64 {
        for i in 0..10 {
            let footprint =
                Footprint { writes: vec![round * 7 + i], reads: vec![i], ..Footprint::default() };
            graph.insert(Seq(round), &footprint, i);
        }
        while let Some((ticket, _)) = graph.next_request() {
            graph.remove_request(ticket);
        }
    }
    assert_eq!((graph.pending(), graph.keys.classes()), (0, 0));
    assert!(graph.nodes.len() <= 10, "{} slots", graph.nodes.len());
    graph.check();
}

#[test]
#[should_panic(expected = "not handed out")]
fn nothing_is_removed_twice() {
    let mut graph: Parallelizer<u64> = Parallelizer::new(0, None);
    graph.insert(Seq(1), &Footprint::default(), 0);
    let (ticket, _) = graph.next_request().expect("it is ready");
    graph.remove_request(ticket);
    graph.remove_request(ticket);
}
