//! Whether a replica that starts may vote: the one decision on which safety rests.
//!
//! Whoever may have forgotten a vote must not vote until it knows that nothing it says can
//! contradict it (design §3.10, trap 12). The table, first line that fits:
//!
//! | found | begins |
//! |---|---|
//! | something on disk, for a life that is to keep all in memory, without `--recover` | refused |
//! | `--recover` was given | forgetful |
//! | nothing, and the mark of `init` is there | whole |
//! | nothing, and no mark | refused |
//! | a life file that is damaged, or none where there are others | forgetful |
//! | the last life had not recovered | forgetful |
//! | the mark is there, and no record or checkpoint was ever written | whole |
//! | the last life was of durability `memory` | forgetful |
//! | the log is gone, or in doubt, or torn although the last life ended in order | forgetful |
//! | `sync` | whole |
//! | `async`, ended in order | whole |
//! | `async`, ended otherwise, machine not restarted since | whole |
//! | `async` else | forgetful |

use crate::dir::{Found, LifeFound};
use crate::life::Durability;
use crate::scan::Verdict;

/// Whether the replica remembers everything that it ever promised.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Voice {
    /// It does, and may vote at once.
    Whole,
    /// It may have forgotten something, and must recover before it votes.
    Forgetful,
}

/// How a life begins.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Beginning {
    /// Whether it may vote.
    pub voice: Voice,
    /// Why, in words for the log: one sentence without a full stop.
    pub why: String,
}

/// A start that is refused. Says what to do.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Refusal {
    /// There is neither a mark nor a trace of an earlier life.
    #[error(
        "{dir}: this replica has no state here, yet it is not its first start: its mark of \
         `stylite init` is gone. Either this is the wrong directory: name the right one; or its \
         disk is lost: run `stylite replica --recover`, which fetches the state from the other \
         replicas and lets this one vote only when it cannot contradict what it has forgotten"
    )]
    NothingHere {
        /// The directory.
        dir: String,
    },
    /// What is on disk would be left behind by a life that keeps everything in memory.
    #[error(
        "{dir}: this replica keeps its votes and its state on disk (--durability {kept}); with \
         --durability memory all of that would be forgotten at its next end. Start it with \
         --durability {kept}; or, to give its state up, with --recover --durability memory, one \
         replica after the other, so that each fetches the state from the others"
    )]
    WouldForget {
        /// The directory.
        dir: String,
        /// The durability of the last life.
        kept: &'static str,
    },
}

/// Refuses a life of durability `next` that would forget what the one before has kept, and
/// nobody would notice until it has ended. Who asks for recovery knows.
///
/// # Errors
/// Then.
pub fn may_forget(found: &Found, next: Durability) -> Result<(), Refusal> {
    let is_empty = !found.log.is_written() && found.checkpoints.is_empty();
    match &found.life {
        LifeFound::Good(life) if life.durability != Durability::Memory && !is_empty => match next {
            Durability::Memory => {
                let (dir, kept) = (found.path.display().to_string(), life.durability.word());
                Err(Refusal::WouldForget { dir, kept })
            }
            Durability::Async | Durability::Sync => Ok(()),
        },
        LifeFound::Good(_) | LifeFound::None | LifeFound::Damaged => Ok(()),
    }
}

/// Decides how a replica begins, from what [`crate::Dir::open`] found, from whether the mark of
/// `init` says that it was never started (`virgin`), and from whether its operator asked for
/// recovery (`recover`).
///
/// # Errors
/// When it must not start like this. [`Refusal`] says why and names the remedy.
pub fn beginning(found: &Found, virgin: bool, recover: bool) -> Result<Beginning, Refusal> {
    if recover {
        return Ok(forgetful("recovery was asked for"));
    }
    let untouched = !found.log.is_written() && found.checkpoints.is_empty();
    let life = match &found.life {
        LifeFound::Good(life) => life,
        LifeFound::None if virgin && untouched => return Ok(whole("this is the first start")),
        LifeFound::None if !found.log.exists() && found.checkpoints.is_empty() => {
            return Err(Refusal::NothingHere { dir: found.path.display().to_string() });
        }
        LifeFound::None => return Ok(forgetful("the life file is gone")),
        LifeFound::Damaged => return Ok(forgetful("the life file is damaged")),
    };
    if life.recovering && !base::mutant!(UnfinishedIsWhole) {
        return Ok(forgetful("the last life had not finished its recovery"));
    }
    if virgin && untouched {
        return Ok(whole("the first start was interrupted before anything was said"));
    }
    match (life.durability, &found.log.verdict) {
        (Durability::Memory, _) => Ok(forgetful("the last life kept its votes in memory")),
        (_, Verdict::Missing) => Ok(forgetful("the log is gone")),
        (_, Verdict::Doubt { .. }) if base::mutant!(DoubtfulVotes) => Ok(whole("never mind")),
        (_, doubt @ Verdict::Doubt { .. }) => Ok(forgetful(&format!("{doubt}"))),
        // The end was durable before the life was said to have ended.
        (_, Verdict::TornTail { .. }) if life.clean => {
            Ok(forgetful("the last life ended in order, yet the end of its log is torn"))
        }
        (Durability::Sync, _) => Ok(whole("every promise is on the disk")),
        (Durability::Async, Verdict::Clean) if life.clean => {
            Ok(whole("the last life ended in order"))
        }
        (Durability::Async, _) if base::mutant!(AsyncOutlivesBoot) => Ok(whole("never mind")),
        (Durability::Async, _) if life.boot.is_same(&found.boot) => {
            Ok(whole("the machine was not restarted since the last life"))
        }
        (Durability::Async, _) => Ok(forgetful(
            "the last life did not end in order, and the machine was restarted since: what it \
             had not yet written is lost",
        )),
    }
}

fn whole(why: &str) -> Beginning {
    Beginning { voice: Voice::Whole, why: why.to_owned() }
}

fn forgetful(why: &str) -> Beginning {
    Beginning { voice: Voice::Forgetful, why: why.to_owned() }
}
