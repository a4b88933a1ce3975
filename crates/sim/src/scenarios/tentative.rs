//! Tentative execution (design, trap 7): what is taken back, and whom clients believe.

use base::reply::{ReplyBody, ReplyPacket};
use base::{
    AgreedTime, ClientId, FrameId, Now, Quorums, ReplicaId, Reply, ReplyStatus, Seq, Span, Stripe,
    Time, View, Writer,
};
use proto::client::{ClientConfig, ClientCore, Effect};

use super::Scenario;
use crate::faults::Fault;
use crate::host::GROUP;
use crate::options::{Answers, Durability, Net, Options};
use crate::scenario::{PATIENCE, finish, leader, settle, world};
use crate::work::Work;
use crate::world::World;

/// The scenarios of this family.
pub(super) const ALL: &[Scenario] = &[
    Scenario {
        name: "what_one_executes_tentatively_is_taken_back",
        claim: "Trap 7: batches are prepared at one replica alone, which executes the first of \
                them. Mostly the next view knows of none. Whatever that replica has changed is \
                taken back: service, sessions, replies, times; nobody is told of it.",
        ci_seeds: 16,
        full_seeds: 1_000,
        run: what_one_executes_tentatively_is_taken_back,
    },
    Scenario {
        name: "views_change_under_tentative_batches",
        claim: "Trap 7: leaders end, are cut off and restart while batches are executed and not \
                committed. What a client has accepted stays, at its place.",
        ci_seeds: 10,
        full_seeds: 1_000,
        run: views_change_under_tentative_batches,
    },
    Scenario {
        name: "few_tentative_replies_convince_nobody",
        claim: "Decision 14: a client wants a quorum of replies that are final, or tentative in \
                one view; f + 1 tentative ones, or a quorum of several views, are not enough.",
        ci_seeds: 4,
        full_seeds: 100,
        run: few_tentative_replies_convince_nobody,
    },
];

fn options(seed: u64) -> Options {
    let (n, f) = if seed.is_multiple_of(3) { (7, 2) } else { (4, 1) };
    let durability = [Durability::Memory, Durability::Sync, Durability::Async][seed as usize % 3];
    Options {
        seed,
        n,
        f,
        answers: Answers { tentative: true, ..Answers::default() },
        durability,
        pillars: 1 + (seed / 2 % 2) as u16,
        clients: 2 + (seed % 2) as u32,
        outstanding: [1, 4, 16][seed as usize / 3 % 3],
        ops_per_client: 80,
        // The store has keys that expire.
        work: seed.is_multiple_of(8).then_some(Work::Redis),
        ..Options::default()
    }
}

fn what_one_executes_tentatively_is_taken_back(seed: u64) {
    let mut world = world(Options { n: 4, f: 1, ..options(seed) });
    world.run_for(Span::millis(3 + seed % 20), |_| false);
    let leads = leader(&world);
    // The next leader is to be one of the others.
    let ahead = |places: u16| ReplicaId((leads.0 + places) % 4);
    let [one, helper, third] = match seed % 4 {
        0 => [ahead(2), ahead(1), ahead(3)],
        1 => [ahead(2), ahead(3), ahead(1)],
        2 => [ahead(3), ahead(1), ahead(2)],
        _ => [ahead(3), ahead(2), ahead(1)],
    };
    // The leader confides in two. The one has the other's PREPARE and its own; the other and the
    // leader have only the other's, and the third has none.
    let silence = [(leads, third), (helper, third), (one, leads), (one, helper), (one, third)];
    silence.into_iter().for_each(|(from, to)| world.fault(Fault::Cut(from, to)));
    world.ask_more(40);
    // What was prepared by all before that is committed meanwhile.
    world.run_for(Span::millis(10), |_| false);
    let tentative = |world: &World| world.replicas[usize::from(one.0)].stage.is_tentative();
    if !world.run_for(Span::secs(2), tentative) {
        // They were quicker.
        world.fault(Fault::Heal);
        return settle(&mut world, 20);
    }
    // Now it is alone, and the others complain of a leader that they do not hear, but that hears
    // them: it has left its view when it is heard again.
    world.part(&[one.0], &[leads.0, helper.0, third.0]);
    [helper, third].into_iter().for_each(|to| world.fault(Fault::Cut(leads, to)));
    world.run_for(Span::millis(1), |_| false);
    world.fault(Fault::Restore(helper, third));
    world.run_for(Span::secs(1), |_| false);
    [helper, third].into_iter().for_each(|to| world.fault(Fault::Restore(leads, to)));
    let changed =
        |world: &World| [leads, helper, third].into_iter().all(|other| world.view(other) > View(0));
    // Where they do not, they have agreed in the old one.
    world.run_for(Span::secs(5), changed);
    world.fault(Fault::Heal);
    settle(&mut world, 40);
}

fn views_change_under_tentative_batches(seed: u64) {
    let net = if seed.is_multiple_of(2) { Net::CALM } else { Net { ..Net::BAD } };
    let view_timeout = Span::millis(60);
    let mut world = world(Options { net, view_timeout, ..options(seed) });
    let n = world.options().n;
    for round in 0..5u64 {
        let now = leader(&world);
        world.run_for(Span::millis(2 + (seed + round * 7) % 30), |_| false);
        let other = ReplicaId((now.0 + 1 + ((seed + round) % u64::from(n - 1)) as u16) % n);
        match (seed + round) % 4 {
            0 => world.fault(Fault::Cut(now, other)),
            1 => world.part(&[now.0], &(0..n).collect::<Vec<_>>()),
            2 => world.fault(Fault::Pause(now)),
            _ if world.options().durability == Durability::Sync => world.fault(Fault::Crash(now)),
            _ => world.part(&[now.0, other.0], &(0..n).collect::<Vec<_>>()),
        }
        world.ask_more(10);
        world.run_for(Span::millis(150 + seed % 100), |_| false);
        world.fault(Fault::Heal);
        world.fault(Fault::Continue(now));
        world.fault(Fault::Restart(now));
        world.run_for(Span::millis(20), |_| false);
    }
    settle(&mut world, 20);
    finish(&mut world, PATIENCE);
}

/// A client of a group of seven, with one operation in flight.
struct Asker {
    core: ClientCore<u64>,
    now: Now,
}

impl Asker {
    fn new(seed: u64) -> Asker {
        let quorums = Quorums::pbft(7, 2).expect("legal");
        let stripe = Stripe::new(1).expect("legal");
        let config = ClientConfig::new(GROUP, quorums, stripe, ClientId(1));
        let keys = Box::new(base::crypto::PlainKeys { me: ReplicaId(0), n: 7 });
        let now = Now { mono: Time(seed), wall: AgreedTime(1_700_000_000_000_000_000 + seed) };
        let mut asker = Asker { core: ClientCore::new(config, keys, now), now };
        for replica in 0..3 {
            asker.says(replica, (0, ReplyStatus::Opened, 0), None);
        }
        asker.core.submit(now, 0, b"op", seed).expect("there is room");
        asker.core.turn(now);
        asker
    }

    /// A replica answers frame `id`; how many operations are answered then?
    fn says(
        &mut self,
        replica: u16,
        (id, status, fill): (u64, ReplyStatus, u8),
        tentative: Option<View>,
    ) -> usize {
        let session = self.core.session();
        let frame = FrameId { client: ClientId(1), session, stream: 0, id };
        let mut results = Vec::new();
        if status == ReplyStatus::Executed {
            Writer::new(&mut results).sized(&[fill]);
        }
        let count = u32::from(!results.is_empty());
        let mut content = Vec::new();
        Reply { frame, seq: Seq(5), status, count, results }.encode(&mut content);
        let view = tentative.unwrap_or(View(9));
        let body = ReplyBody::Whole(&content);
        let packet = ReplyPacket { view, tentative: tentative.is_some(), body };
        self.core.on_reply(self.now, ReplicaId(replica), &packet);
        let done = |effect: Effect<u64>| match effect {
            Effect::Done { tokens, outcome } => tokens.len() * usize::from(outcome.is_ok()),
            _ => 0,
        };
        self.core.drain().map(done).sum()
    }
}

fn few_tentative_replies_convince_nobody(seed: u64) {
    let fill = seed as u8;
    let answer = (1, ReplyStatus::Executed, fill);
    let view = |v: u64| Some(View(seed % 5 + v));
    let mut one_view = Asker::new(seed);
    for replica in 0..4 {
        assert_eq!(one_view.says(replica, answer, view(0)), 0, "a quorum is five");
    }
    let mut mixed = Asker::new(seed);
    for replica in 0..6u16 {
        let says = mixed.says(replica, answer, view(u64::from(replica % 3)));
        assert_eq!(says, 0, "of three views");
    }
    assert_eq!(mixed.says(6, (1, ReplyStatus::Executed, fill.wrapping_add(1)), view(0)), 0);
    assert_eq!(one_view.says(6, answer, None), 1, "one is final, four are of one view");
    let mut final_ones = Asker::new(seed);
    assert_eq!(final_ones.says(0, answer, None) + final_ones.says(4, answer, view(0)), 0);
    assert_eq!(final_ones.says(1, answer, None), 0);
    assert_eq!(final_ones.says(2, answer, None), 1, "f + 1 are final");
}
