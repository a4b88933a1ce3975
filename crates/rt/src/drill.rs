//! Orders to misbehave, for drills: what a faulty replica might do, done on purpose.
//!
//! Obeyed only by replicas of a group that was founded for drills. Everything here works where
//! effects leave the host or where a life begins, never inside a core, so that the cores of a
//! drill are those of production. Which drill is proved, suspected or unseen: `docs`.
//!
//! Not here: where the orders come from (`node`).

mod sabotage;
mod service;

pub(crate) use sabotage::{Saboteur, Scene};
pub(crate) use service::sabotage;

use std::fmt;
use std::str::FromStr;

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
    /// As leader, holds each proposal back for four fifths of the view timeout.
    SlowLeader,
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
    pub const NAMES: [&str; 11] = [
        "silent",
        "crash-after=N",
        "wrong-reply",
        "corrupt-state",
        "equivocate",
        "slow-leader",
        "garbage",
        "forget",
        "lying-source",
        "forged-view-change",
        "wrong-checkpoint",
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
            Drill::SlowLeader => "slow-leader",
            Drill::Garbage => "garbage",
            Drill::Forget => "forget",
            Drill::LyingSource => "lying-source",
            Drill::ForgedViewChange => "forged-view-change",
            Drill::WrongCheckpoint => "wrong-checkpoint",
        })
    }
}

impl FromStr for Drill {
    type Err = UnknownDrill;

    fn from_str(text: &str) -> Result<Drill, UnknownDrill> {
        let unknown = || UnknownDrill(text.to_owned());
        if let Some(ops) = text.strip_prefix("crash-after=") {
            return ops.parse().map(Drill::CrashAfter).map_err(|_| unknown());
        }
        Ok(match text {
            "silent" => Drill::Silent,
            "wrong-reply" => Drill::WrongReply,
            "corrupt-state" => Drill::CorruptState,
            "equivocate" => Drill::Equivocate,
            "slow-leader" => Drill::SlowLeader,
            "garbage" => Drill::Garbage,
            "forget" => Drill::Forget,
            "lying-source" => Drill::LyingSource,
            "forged-view-change" => Drill::ForgedViewChange,
            "wrong-checkpoint" => Drill::WrongCheckpoint,
            _ => return Err(unknown()),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_shown_is_read_back_and_nothing_else_is_a_drill() {
        for name in Drill::NAMES {
            let text = name.replace("=N", "=17");
            let drill: Drill = text.parse().expect("a drill");
            assert_eq!(drill.to_string(), text);
        }
        for text in ["", "crash-after", "crash-after=", "crash-after=-1", "Silent", "silent "] {
            assert_eq!(text.parse::<Drill>(), Err(UnknownDrill(text.to_owned())));
        }
    }
}
