//! How a replica's lives begin and end: what it takes from one to the next, and what must be true
//! of that.
//!
//! A start runs the code of a real one over the replica's disk, and whatever the disk does to it:
//! a machine that stops or a sync that fails on the way is a start that did not take place.
//! Checked at each: whose log is damaged votes only after a recovery, and whoever begins whole
//! knows every vote that was durable.
//!
//! Not here: when that happens (`faults`), and the files (`disk`).

use std::collections::BTreeSet;
use std::sync::Arc;

use base::{Incarnation, ReplicaId};
use durable::{Boot, BootError};
use exec::service::Service;
use proto::Record;
use proto::group::Beginning;
use proto::pbft::Input;
use store::StoreError;

use crate::adversary::Behaviour;
use crate::coverage::Sight;
use crate::disk::Disk;
use crate::events::Part;
use crate::host::{Before, Condition, Replica};
use crate::journal::Promises;
use crate::observe::Observed;
use crate::options::Durability;
use crate::oracles::memory::Found;
use crate::spoil::Spoilable;
use crate::storage::Harm;
use crate::world::World;

/// What the log says of numbers above the checkpoint, for each pillar.
fn found(boot: &Boot) -> Found {
    let of = |records: &Vec<Record>| {
        let seqs = records.iter().filter_map(Record::seq).filter(|seq| *seq > boot.begins_above());
        seqs.collect::<BTreeSet<_>>().len()
    };
    Found { numbers: boot.records.iter().map(of).collect(), saved: boot.saved.is_some() }
}

impl World {
    /// The process ends; with `power`, because the machine does.
    pub(crate) fn crash(&mut self, replica: ReplicaId, power: bool) {
        let sync = self.options.durability == Durability::Sync;
        let host = &mut self.replicas[usize::from(replica.0)];
        if host.condition == Condition::Dead {
            return;
        }
        host.condition = Condition::Dead;
        host.life += 1;
        host.turns.clear();
        host.backlog.clear();
        let forgets = match self.options.durability {
            Durability::Memory => true,
            Durability::Async => power,
            Durability::Sync => false,
        };
        host.disk.doubtful |= forgets || host.coordinator.report().recovering;
        let busy = host.crew.close();
        let undurable = host.disk.is_writing() || host.journals.waiting().is_some();
        host.disk.close(sync, &mut self.prng);
        match power {
            true => host.disk.storage.power_fails(),
            false => host.disk.storage.process_ends(),
        }
        if undurable {
            self.saw(Sight::Undurable);
        }
        if busy {
            self.saw(Sight::CrashAmidJobs);
        }
        self.watch_disk(replica);
    }

    pub(crate) fn restart(&mut self, replica: ReplicaId) {
        if self.condition(replica) == Condition::Dead && self.begin(replica) {
            self.connect_all(replica);
        }
    }

    /// A replica begins a life, unless its machine stops, or its disk fails, before it has begun.
    pub(crate) fn begin(&mut self, replica: ReplicaId) -> bool {
        let clock = Incarnation(self.clock().wall.0);
        self.begin_as(replica, clock)
    }

    /// The same with the incarnation that a clock of its own gives.
    pub(crate) fn begin_as(&mut self, replica: ReplicaId, clock: Incarnation) -> bool {
        let (me, mut before) = (self.identity(replica), self.take_before(replica));
        let harms = before.disk.storage.harms();
        let (spoil, notes) = (Arc::clone(&before.spoil), Arc::clone(&before.notes));
        let options = self.options;
        let service = || -> Box<dyn Service> {
            let service = Box::new(Spoilable::new(options.work(), Arc::clone(&spoil)));
            Box::new(Observed::new(service, Arc::clone(&notes)))
        };
        match before.disk.boot(&self.options, me, clock, &service) {
            Ok(boot) => {
                // A segment from before the log's first, which had come back, is not read.
                let harms = before.disk.storage.harms_left(harms);
                self.judge_start(replica, &boot, &harms, &mut before);
                self.come_to_life(replica, boot, before);
                true
            }
            Err(error) => {
                assert!(matches!(error, BootError::Store(StoreError::Io { .. })), "{error}");
                let storage = &before.disk.storage;
                // What only the system had is gone with the machine.
                match storage.has_stopped() {
                    true => {
                        before.disk.doubtful |= options.durability != Durability::Sync;
                        storage.power_fails();
                    }
                    false => storage.process_ends(),
                }
                let host = self.replica(replica);
                (host.disk, host.promises) = (before.disk, before.promises);
                self.saw(Sight::StartFails);
                self.watch_disk(replica);
                false
            }
        }
    }

    /// What an earlier life left, or nothing.
    fn take_before(&mut self, replica: ReplicaId) -> Before {
        let (spoil, notes) = (Arc::default(), Arc::default());
        match self.replicas.get_mut(usize::from(replica.0)) {
            Some(host) => Before {
                disk: std::mem::take(&mut host.disk),
                promises: std::mem::take(&mut host.promises),
                life: host.life + 1,
                spoil,
                notes,
            },
            None => Before {
                disk: Disk::new(self.prng.next_u64()),
                promises: Promises::default(),
                life: 0,
                spoil,
                notes,
            },
        }
    }

    /// What must be true of a start on a disk to which `harms` was done.
    fn judge_start(
        &mut self,
        replica: ReplicaId,
        boot: &Boot,
        harms: &[Harm],
        before: &mut Before,
    ) {
        let whole = boot.beginning == Beginning::Whole;
        if self.options.durability == Durability::Sync {
            // It was only written, maybe, when the last process ended.
            let durable = before.disk.storage.log_is_durable();
            assert!(durable, "{replica:?} goes on from a log that is not durable");
        }
        let doubtful = std::mem::replace(&mut before.disk.doubtful, !whole);
        assert!(!(doubtful && whole), "{replica:?} may have forgotten votes, and begins whole");
        if usize::from(replica.0) >= self.replicas.len() {
            assert!(whole, "the first life of {replica:?}");
            return;
        }
        if boot.damage.is_some() {
            self.saw(Sight::DamagedCheckpoint);
        }
        if self.adversary.is_faulty(replica) {
            before.promises.forget();
        } else if !whole {
            self.saw(Sight::Forgetful);
            before.promises.forget();
        } else if harms.contains(&Harm::Unseen) {
            // Nobody can find that out: the disk has made it one of the faulty.
            self.saw(Sight::UnseenLoss);
            self.misbehave(replica, Behaviour::Twin);
        } else {
            assert!(!harms.contains(&Harm::Votes), "{replica:?} votes with a damaged log");
            before.promises.check_start(boot);
        }
        before.promises.begin(boot);
        self.checker.reborn(replica, whole, &found(boot));
    }

    fn come_to_life(&mut self, replica: ReplicaId, boot: Boot, before: Before) {
        let (now, me) = (self.clock_of(replica), self.identity(replica));
        let (mut host, words, effects) = Replica::new(&self.options, now, me, boot, before);
        if self.frozen {
            host.tempo.calm_down();
        }
        match self.replicas.get_mut(usize::from(replica.0)) {
            Some(old) => *old = host,
            None => self.replicas.push(host),
        }
        // A life that forgot its votes may remember its view.
        if let Some(plan) = words.plan() {
            self.checker.installs(replica, plan);
        }
        self.observe_beginning(replica);
        self.watch_disk(replica);
        for word in words.voting {
            for pillar in self.pillars() {
                self.step_lane(replica, pillar, Input::Coordinator(word.clone()));
            }
        }
        self.admit_coordinator(replica, effects);
        self.plan(replica, Part::Coordinator, now.mono);
        for pillar in self.pillars() {
            self.plan(replica, Part::Lane(pillar), now.mono);
        }
    }
}
