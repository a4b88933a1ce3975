//! Where log lines go: to standard error. Of what serves they are JSON when no terminal is there
//! to read them; everything else talks to people.

use std::io::IsTerminal;

use anyhow::{Result, anyhow, bail};
use serde_json::Value;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::EnvFilter;

/// Starts logging at `level`, a level or a filter of `tracing`. `serves` says that this process
/// is one whose log programs may read.
///
/// # Errors
/// When it is neither.
pub fn start(level: &str, serves: bool) -> Result<()> {
    let bad =
        |why: &str| anyhow!("log level `{level}`: {why}; give error, warn, info, debug or trace");
    check(level).or_else(|part| bail!(bad(&format!("`{part}` is no level"))))?;
    let filter = EnvFilter::builder().parse(level).map_err(|error| bad(&error.to_string()))?;
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    // It would tell of a terminal that is closed on that terminal, and panic.
    let builder = builder.log_internal_errors(false);
    let terminal = std::io::stderr().is_terminal();
    let started = match (serves, terminal) {
        (true, false) => builder.json().try_init(),
        (true, true) => builder.with_target(false).try_init(),
        (false, ansi) => builder.with_target(false).without_time().with_ansi(ansi).try_init(),
    };
    started.map_err(|error| anyhow!("cannot start logging: {error}"))
}

/// Finds the part of a filter that names no level. To `tracing` such a word is a module all of
/// whose lines are wanted, which hardly anybody means and which hides misspelt levels.
fn check(level: &str) -> Result<(), &str> {
    let word = |part: &&str| {
        let level = part.rsplit('=').next().unwrap_or(part);
        !part.contains('[') && level.trim().parse::<LevelFilter>().is_err()
    };
    level.split(',').find(word).map_or(Ok(()), Err)
}

/// A line of a JSON log as people read it; any other line as it is.
#[must_use]
pub fn plain(line: &str) -> String {
    let Ok(Value::Object(entry)) = serde_json::from_str(line) else { return line.to_owned() };
    let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    let mut out = entry.get("level").map_or_else(String::new, text);
    let Some(Value::Object(fields)) = entry.get("fields") else { return line.to_owned() };
    if let Some(message) = fields.get("message") {
        out.push_str(&format!(" {}", text(message)));
    }
    for (name, value) in fields.iter().filter(|(name, _)| *name != "message") {
        out.push_str(&format!(" {name}={}", text(value)));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_and_filters_are_told_from_misspelt_ones() {
        for good in ["info", "WARN", "off", "info,rt=debug", "rt[span]=trace"] {
            assert_eq!(check(good), Ok(()), "{good}");
        }
        assert_eq!(check("bogus"), Err("bogus"));
        assert_eq!(check("info,rt=loud"), Err("rt=loud"));
    }

    #[test]
    fn logs_of_programs_become_lines_for_people() {
        let line = r#"{"timestamp":"t","level":"WARN","fields":{"message":"link down","peer":3}}"#;
        assert_eq!(plain(line), "WARN link down peer=3");
        assert_eq!(plain("thread panicked"), "thread panicked");
    }
}
