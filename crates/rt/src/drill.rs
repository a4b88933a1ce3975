//! Orders to misbehave, for drills: what a faulty replica might do, done on purpose.
//!
//! Obeyed only by replicas of a group that was founded for drills. Everything here works where
//! effects leave the host or where a life begins, never inside a core, so that the cores of a
//! drill are those of production. Which drill is proved, suspected or unseen: `docs`.
//!
//! Not here: where the orders come from (`node`).

mod deaf;
mod sabotage;
mod service;
mod storm;

pub(crate) use deaf::Deaf;
pub(crate) use sabotage::{Saboteur, Scene};
pub(crate) use service::sabotage;

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use base::{ClientId, PillarId, ReplicaId, Span};

/// One way to misbehave.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Drill {
    /// Says nothing to anybody: neither to peers nor to clients.
    Silent,
    /// The process ends without a word once so many operations are executed.
    CrashAfter(u64),
    /// Answers clients with results that it did not compute.
    WrongReply,
    /// Changes its own state behind the protocol's back, at each of its checkpoints.
    CorruptState,
    /// As leader, proposes different batches to different backups.
    Equivocate,
    /// As leader, holds each proposal back, for four fifths of the view timeout unless said.
    SlowLeader(Option<Span>),
    /// Sends random bytes, properly sealed, to all peers and clients.
    Garbage,
    /// Starts without its votes and says nothing about it.
    Forget,
    /// Answers wrongly to replicas that fetch a checkpoint.
    LyingSource,
    /// Signs VIEW-CHANGEs and NEW-VIEWs with invented contents.
    ForgedViewChange,
    /// Signs checkpoints that nobody has.
    WrongCheckpoint,
    /// Says nothing to one other replica.
    StarveReplica(ReplicaId),
    /// As leader, neither hears one client nor what others say for it.
    StarveClient(ClientId),
    /// As leader, proposes nothing in one pillar.
    StarvePillar(PillarId),
    /// Asks for views without end, in every way that there is, as fast as it can.
    ViewStorm,
}

/// Whether a replica that is told to misbehave does so at the moment. Shared by all its threads.
#[derive(Clone, Debug)]
pub(crate) struct DrillSwitch(Arc<AtomicBool>);

impl DrillSwitch {
    pub(crate) fn new(on: bool) -> DrillSwitch {
        DrillSwitch(Arc::new(AtomicBool::new(on)))
    }

    pub(crate) fn set(&self, on: bool) {
        self.0.store(on, Ordering::Relaxed);
    }

    pub(crate) fn is_on(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// What was written is no drill.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("`{0}` is no drill; one of: {names}", names = Drill::NAMES.join(", "))]
pub struct UnknownDrill(
    /// What was written.
    pub String,
);

impl Drill {
    /// The names of all drills, as people write them.
    pub const NAMES: [&str; 16] = [
        "silent",
        "crash-after=N",
        "wrong-reply",
        "corrupt-state",
        "equivocate",
        "slow-leader",
        "slow-leader=MS",
        "garbage",
        "forget",
        "lying-source",
        "forged-view-change",
        "wrong-checkpoint",
        "starve-replica=I",
        "starve-client=C",
        "starve-pillar=P",
        "view-storm",
    ];
}

impl fmt::Display for Drill {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Drill::Silent => "silent",
            Drill::CrashAfter(ops) => return write!(f, "crash-after={ops}"),
            Drill::WrongReply => "wrong-reply",
            Drill::CorruptState => "corrupt-state",
            Drill::Equivocate => "equivocate",
            Drill::SlowLeader(None) => "slow-leader",
            Drill::SlowLeader(Some(span)) => {
                return write!(f, "slow-leader={}", span.0 / Span::millis(1).0);
            }
            Drill::Garbage => "garbage",
            Drill::Forget => "forget",
            Drill::LyingSource => "lying-source",
            Drill::ForgedViewChange => "forged-view-change",
            Drill::WrongCheckpoint => "wrong-checkpoint",
            Drill::StarveReplica(replica) => return write!(f, "starve-replica={}", replica.0),
            Drill::StarveClient(client) => return write!(f, "starve-client={}", client.0),
            Drill::StarvePillar(pillar) => return write!(f, "starve-pillar={}", pillar.0),
            Drill::ViewStorm => "view-storm",
        })
    }
}

impl FromStr for Drill {
    type Err = UnknownDrill;

    fn from_str(text: &str) -> Result<Drill, UnknownDrill> {
        let unknown = || UnknownDrill(text.to_owned());
        if let Some((name, number)) = text.split_once('=') {
            let number = number.parse::<u64>().map_err(|_| unknown())?;
            return numbered(name, number).ok_or_else(unknown);
        }
        Ok(match text {
            "silent" => Drill::Silent,
            "wrong-reply" => Drill::WrongReply,
            "corrupt-state" => Drill::CorruptState,
            "equivocate" => Drill::Equivocate,
            "slow-leader" => Drill::SlowLeader(None),
            "garbage" => Drill::Garbage,
            "forget" => Drill::Forget,
            "lying-source" => Drill::LyingSource,
            "forged-view-change" => Drill::ForgedViewChange,
            "wrong-checkpoint" => Drill::WrongCheckpoint,
            "view-storm" => Drill::ViewStorm,
            _ => return Err(unknown()),
        })
    }
}

/// The drill that is called so and takes a number.
fn numbered(name: &str, number: u64) -> Option<Drill> {
    let narrow = |number: u64| u16::try_from(number).ok();
    Some(match name {
        "crash-after" => Drill::CrashAfter(number),
        "slow-leader" => {
            let nanos = number.checked_mul(Span::millis(1).0)?;
            Drill::SlowLeader(Some(Span(nanos)))
        }
        "starve-replica" => Drill::StarveReplica(ReplicaId(narrow(number)?)),
        "starve-client" => Drill::StarveClient(ClientId(u32::try_from(number).ok()?)),
        "starve-pillar" => Drill::StarvePillar(PillarId(narrow(number)?)),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_shown_is_read_back_and_nothing_else_is_a_drill() {
        for name in Drill::NAMES {
            let text = match name.split_once('=') {
                Some((name, _)) => format!("{name}=17"),
                None => name.to_owned(),
            };
            let drill: Drill = text.parse().expect("a drill");
            assert_eq!(drill.to_string(), text);
        }
        for text in [
            "",
            "crash-after",
            "crash-after=",
            "crash-after=-1",
            "starve-pillar=99999",
            "Silent",
            "silent ",
            "silent=1",
        ] {
            assert_eq!(text.parse::<Drill>(), Err(UnknownDrill(text.to_owned())));
        }
    }
}
