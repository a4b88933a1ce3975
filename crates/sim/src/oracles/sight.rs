//! How the oracles come to see what happens: the world's calls to them.

use base::{FromStage, PillarId, ReplicaId, Seq};
use exec::stage::Target;

use super::executions::Turn;
use crate::world::World;

/// States of so many objects are hashed at every replica.
const OBJECTS_ALWAYS: u32 = 1024;

impl World {
    /// The stage of `replica` has worked, and says `messages`: before anybody hears of them.
    pub(crate) fn observe_stage(&mut self, replica: ReplicaId, messages: &[(Target, FromStage)]) {
        self.watch_tentative(replica);
        let host = self.replica(replica);
        let saw = host.notes.take(host.stage.progress().executed);
        if self.adversary.is_faulty(replica) {
            return;
        }
        let sound = self.is_sound(replica);
        for (_, message) in messages {
            if let FromStage::Fetched { progress, .. } = message {
                self.checker.jumps(replica, progress.executed);
            }
        }
        let stage = &self.replicas[usize::from(replica.0)].stage;
        let progress = stage.progress();
        let (upto, time) = (progress.executed, progress.time);
        self.checker.executes(&Turn { replica, sound, upto, time, saw: &saw });
        for (_, message) in messages {
            match message {
                FromStage::Reply { frame, content, tentative: None, .. } => {
                    self.checker.replies((replica, sound), *frame, content);
                }
                FromStage::Reply { frame, content, tentative: Some(view), .. } if sound => {
                    self.checker.replies_tentatively(replica, *view, *frame, content);
                }
                FromStage::Checkpoint { seq, .. } => {
                    assert!(*seq <= upto, "{replica:?} takes a checkpoint of what is tentative");
                }
                _ => {}
            }
        }
        if sound && !messages.is_empty() {
            self.checker.states(replica, stage);
        }
    }

    /// A correct replica is looked at for what it holds.
    pub(crate) fn observe_memory(&mut self, replica: ReplicaId) {
        if self.adversary.is_faulty(replica) {
            return;
        }
        let host = &self.replicas[usize::from(replica.0)];
        for (pillar, lane) in (0..).map(PillarId).zip(&host.lanes) {
            self.checker.holds(replica, lane, pillar);
        }
        self.checker.holds_in_stage(replica, &host.stage);
    }

    /// A life of `replica` begins with the state that its stage has.
    pub(crate) fn observe_beginning(&mut self, replica: ReplicaId) {
        let executed = self.executed(replica);
        self.checker.jumps(replica, executed);
    }

    /// What only holds when all is over: everybody correct has all that was answered, and its
    /// whole state is the right one.
    ///
    /// # Panics
    /// When an oracle objects.
    pub fn check_the_end(&mut self) {
        let mut first = true;
        for replica in self.correct() {
            self.observe_memory(replica);
            let sound = self.is_sound(replica);
            let stage = &mut self.replicas[usize::from(replica.0)].stage;
            // What is left prepared and not committed is no part of the state.
            stage.take_back();
            // Hashing every object takes its time; many objects are one replica's to hash.
            let small = stage.service().objects() <= OBJECTS_ALWAYS;
            if sound && (small || first) {
                stage.check_state();
                first = false;
            }
            self.checker.ends(replica, sound.then_some(&*stage));
        }
    }
}

/// Whether a number is one at which states are compared.
pub(super) fn is_checkpoint(seq: Seq, interval: u64) -> bool {
    seq > Seq(0) && seq.0.is_multiple_of(interval)
}
