//! Exit codes, as `stylite --help` and `stylite status --help` document them.

use std::fmt;
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

/// Flags that do not go together, or not with what they speak of: an error like those of the
/// parser, which sees each flag alone.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Misuse(String);

impl Misuse {
    /// The number that the process ends with, the parser's.
    pub const CODE: u8 = 2;

    /// Fails with this message.
    ///
    /// # Errors
    /// Always.
    pub fn err<T>(message: String) -> anyhow::Result<T> {
        Err(Misuse::of(message))
    }

    /// The error with this message.
    #[must_use]
    pub fn of(message: String) -> anyhow::Error {
        Misuse(message).into()
    }
}

impl fmt::Display for Misuse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Misuse {}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> ExitCode {
        ExitCode::from(exit.code())
    }
}
