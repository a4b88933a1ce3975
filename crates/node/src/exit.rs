//! Exit codes, as `stylite --help` and `stylite status --help` document them.

use std::process::ExitCode;

/// How a command ended, when it did not fail.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Exit {
    /// All is well.
    Ok,
    /// What was started had to give up; the reason is printed already.
    Failed,
    /// The group works, but not all of it.
    Degraded,
    /// The group does not work.
    Unavailable,
    /// Replicas have different states.
    Diverged,
}

impl Exit {
    /// The number that the process ends with.
    #[must_use]
    pub fn code(self) -> u8 {
        match self {
            Exit::Ok => 0,
            Exit::Failed => 1,
            Exit::Degraded => 3,
            Exit::Unavailable => 4,
            Exit::Diverged => 5,
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> ExitCode {
        ExitCode::from(exit.code())
    }
}
