//! Where a setting comes from: flag, environment, settings file, default, in this order.
//!
//! A settings file is flat TOML: `some_flag = value` for the flag `--some-flag` of whatever
//! command has it. Values from the file are handed to `clap` as flags, after it has been asked
//! what was given already: so every value is checked by the same code, whatever its source.
//!
//! What it is not: the group's configuration (`genesis`), which all members share.
//! Depends on `clap`, `toml` and [`crate::cli`].

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::parser::ValueSource;
use clap::{ArgMatches, Command, CommandFactory, FromArgMatches};

use crate::cli::Cli;
use crate::values::closest;

/// The name of the settings file that is looked for beside a group's configuration.
pub const SETTINGS_FILE: &str = "stylite.toml";
/// Largest settings file, in bytes.
const FILE_BYTES_MAX: u64 = 1 << 20;
/// Flags that say where files are, and help itself: not settings.
const NOT_SETTINGS: [&str; 4] = ["config", "settings", "help", "version"];
/// Variables that are read by tests alone.
const TEST_PREFIX: &str = "STYLITE_TEST_";

/// A settings file: for each flag its values, as `clap` will read them.
#[derive(Debug, Default)]
pub struct File {
    path: Option<PathBuf>,
    values: BTreeMap<String, Vec<String>>,
}

/// One setting of one command, for `stylite config show`.
#[derive(Debug, PartialEq, Eq, serde::Serialize)]
pub struct Effective {
    /// The command.
    pub command: String,
    /// The flag, without dashes.
    pub name: String,
    /// Its value; `None` when nothing gives one.
    pub value: Option<String>,
    /// `flag`, `environment`, the settings file's path, `default`, or `unset`.
    pub source: String,
}

/// Reads the command line, with the environment and the settings file behind it. Ends the
/// process with code 2 when it is not as it should be.
///
/// # Errors
/// When the settings file is not as it should be.
pub fn parse(args: &[OsString]) -> Result<Cli> {
    let command = Cli::command();
    let probe = command.clone().ignore_errors(true).try_get_matches_from(args);
    let file = match &probe {
        Ok(matches) => File::find(matches)?,
        Err(_) => File::default(),
    };
    let mut all = args.to_vec();
    if let Ok(matches) = &probe
        && matches.subcommand_name() != Some("config")
    {
        let (leaf, matches, _) = leaf(&command, matches, String::new());
        all.extend(file.injected(leaf, matches));
    }
    let parsed = command.try_get_matches_from(all);
    let parsed = parsed.and_then(|matches| Cli::from_arg_matches(&matches));
    parsed.or_else(|error| {
        let Some(source) = file.source_of(&error, args) else { error.exit() };
        // Whoever gave no such flag would look for it in vain. What cannot be printed is lost.
        let _ = error.print();
        eprintln!("\nThe value comes from {source}.");
        std::process::exit(error.exit_code())
    })
}

/// Variables in the environment that look like settings and are none, with what may be meant.
pub fn unknown_variables() -> Vec<String> {
    let known = names(&Cli::command());
    let variables = std::env::vars_os().filter_map(|(name, _)| name.into_string().ok());
    let mut found = Vec::new();
    for variable in variables {
        let Some(rest) = variable.strip_prefix("STYLITE_") else { continue };
        let name = rest.to_ascii_lowercase();
        let other = ["config", "settings"].contains(&name.as_str());
        if !variable.starts_with(TEST_PREFIX) && !other && !known.contains(&name) {
            let hint = closest(&name, known.iter().map(String::as_str));
            let hint = hint.map(|known| format!("; did you mean STYLITE_{}?", upper(known)));
            found.push(format!("{variable} is no setting{}", hint.unwrap_or_default()));
        }
    }
    found
}

/// Whether the program has a command of this name.
pub fn is_command(word: &str) -> bool {
    Cli::command().find_subcommand(word).is_some()
}

/// The settings that hold for the commands: all of them, or the one that `words` begin with.
///
/// # Errors
/// When the settings file is not as it should be, or there is no such command.
pub fn effective(
    words: &[String],
    settings: Option<&Path>,
    config: Option<&Path>,
) -> Result<Vec<Effective>> {
    let root = Cli::command();
    let file = File::at(settings, config)?;
    let mut all = Vec::new();
    let lines: Vec<Vec<String>> = if words.is_empty() {
        leaves(&root, &[]).into_iter().filter(|line| line[0] != "config").collect()
    } else {
        vec![words.to_vec()]
    };
    for line in lines {
        let args = ["stylite".to_owned()].into_iter().chain(line.iter().cloned());
        let strict = root.clone().try_get_matches_from(args.clone());
        if let Err(error) = strict
            && error.kind() != ErrorKind::MissingRequiredArgument
        {
            error.exit();
        }
        let matches = root.clone().ignore_errors(true).try_get_matches_from(args);
        let matches = matches.with_context(|| format!("no command: {}", line.join(" ")))?;
        if matches.subcommand_name().is_none() {
            bail!("there is no command `{}`; see `stylite --help`", line[0]);
        }
        let (leaf, matches, path) = leaf(&root, &matches, String::new());
        all.extend(settings_of(leaf).map(|arg| file.effective(&path, arg, matches)));
    }
    Ok(all)
}

impl File {
    /// The settings file that the command line or the environment names, or that lies beside
    /// the configuration that they name.
    fn find(matches: &ArgMatches) -> Result<File> {
        let path = |name: &str| {
            let mut at = Some(matches);
            let mut found = None;
            while let Some(matches) = at {
                let value = matches.try_get_one::<PathBuf>(name).ok().flatten().cloned();
                found = value.or(found);
                at = matches.subcommand().map(|(_, matches)| matches);
            }
            found
        };
        File::at(path("settings").as_deref(), path("config").as_deref())
    }

    /// The settings file at `settings`, or beside `config`; an empty one when there is neither.
    fn at(settings: Option<&Path>, config: Option<&Path>) -> Result<File> {
        let path = match (settings, config) {
            (Some(path), _) => path.to_path_buf(),
            (None, Some(config)) if config.is_dir() => config.join(SETTINGS_FILE),
            (None, Some(config)) => config.with_file_name(SETTINGS_FILE),
            (None, None) => return Ok(File::default()),
        };
        if settings.is_none() && !path.exists() {
            return Ok(File::default());
        }
        File::read(&path)
    }

    /// Reads and checks a settings file.
    ///
    /// # Errors
    /// When it cannot be read, is no TOML, or has a key that is no flag.
    pub fn read(path: &Path) -> Result<File> {
        let shown = path.display();
        let size = std::fs::metadata(path).map(|meta| meta.len());
        if size.with_context(|| format!("{shown}: cannot read the settings"))? > FILE_BYTES_MAX {
            bail!("{shown}: larger than {FILE_BYTES_MAX} bytes: these are no settings");
        }
        let text = std::fs::read_to_string(path)
            .with_context(|| format!("{shown}: cannot read the settings"))?;
        let table: toml::Table = text.parse().with_context(|| format!("{shown}: not TOML"))?;
        let known = names(&Cli::command());
        let mut values = BTreeMap::new();
        for (key, value) in table {
            if !known.contains(&key) {
                let hint = closest(&key, known.iter().map(String::as_str));
                let hint = hint
                    .map_or("; remove it".to_owned(), |known| format!("; did you mean `{known}`?"));
                bail!("{shown}: unknown key `{key}`{hint}");
            }
            values.insert(
                key.clone(),
                texts(&value).with_context(|| {
                    format!(
                        "{shown}: {key} must be a text, a number, true, false or a list of these"
                    )
                })?,
            );
        }
        Ok(File { path: Some(path.to_path_buf()), values })
    }

    /// What to add to the command line of `leaf`.
    fn injected(&self, leaf: &Command, matches: &ArgMatches) -> Vec<OsString> {
        let mut args = Vec::new();
        for arg in settings_of(leaf) {
            let long = arg.get_long().expect("settings have a long flag");
            let Some(values) = self.values.get(&key(long)) else { continue };
            if given(matches, arg.get_id().as_str()).is_some() {
                continue;
            }
            if arg.get_action().takes_values() {
                args.extend(values.iter().map(|value| format!("--{long}={value}").into()));
            } else if values.iter().any(|value| value == "true") {
                args.push(format!("--{long}").into());
            } else if let Some(other) = values.iter().find(|value| *value != "false") {
                // Neither true nor false: refused with a word about this flag.
                args.push(format!("--{long}={other}").into());
            }
        }
        args
    }

    /// Where the value that `error` is about comes from, if no flag among `args` gave it.
    fn source_of(&self, error: &clap::Error, args: &[OsString]) -> Option<String> {
        let Some(ContextValue::String(about)) = error.get(ContextKind::InvalidArg) else {
            return None;
        };
        let flag = about.split([' ', '=']).next().filter(|flag| flag.starts_with("--"))?;
        let names = |arg: &OsString| {
            let arg = arg.to_string_lossy();
            arg.strip_prefix(flag).is_some_and(|rest| rest.is_empty() || rest.starts_with('='))
        };
        let name = key(flag.trim_start_matches('-'));
        let variable = format!("STYLITE_{}", upper(&name));
        match &self.path {
            _ if args.iter().any(names) => None,
            _ if std::env::var_os(&variable).is_some() => Some(format!("the variable {variable}")),
            Some(path) if self.values.contains_key(&name) => {
                Some(format!("`{name}` in {}", path.display()))
            }
            _ => None,
        }
    }

    fn effective(&self, command: &str, arg: &clap::Arg, matches: &ArgMatches) -> Effective {
        let long = arg.get_long().expect("settings have a long flag");
        let made = |value: Option<String>, source: &str| Effective {
            command: command.to_owned(),
            name: long.to_owned(),
            value,
            source: source.to_owned(),
        };
        let id = arg.get_id().as_str();
        let raw = |matches: &ArgMatches| {
            let flag = matches.try_get_one::<bool>(id).ok().flatten().map(ToString::to_string);
            let values = matches.try_get_raw(id).ok().flatten();
            let values = values.map(|all| {
                all.map(|one| one.to_string_lossy().into_owned()).collect::<Vec<_>>().join(",")
            });
            flag.or(values)
        };
        match (given(matches, id), self.values.get(&key(long)), &self.path) {
            (Some(ValueSource::EnvVariable), ..) => made(raw(matches), "environment"),
            (Some(_), ..) => made(raw(matches), "flag"),
            (None, Some(values), Some(path)) => {
                made(Some(values.join(",")), &path.display().to_string())
            }
            _ => match raw(matches) {
                Some(value) => made(Some(value), "default"),
                None => made(None, "unset"),
            },
        }
    }
}

/// Where a value comes from, if it was given.
fn given(matches: &ArgMatches, id: &str) -> Option<ValueSource> {
    let known = matches.try_contains_id(id).is_ok();
    let source = if known { matches.value_source(id) } else { None };
    source.filter(|source| *source != ValueSource::DefaultValue)
}

/// The innermost command that was named, its matches, and its name.
fn leaf<'a>(
    command: &'a Command,
    matches: &'a ArgMatches,
    path: String,
) -> (&'a Command, &'a ArgMatches, String) {
    match matches.subcommand() {
        Some((name, inner)) => match command.find_subcommand(name) {
            Some(found) => leaf(found, inner, format!("{path} {name}").trim().to_owned()),
            None => (command, matches, path),
        },
        None => (command, matches, path),
    }
}

/// The command lines of all innermost commands.
fn leaves(command: &Command, path: &[String]) -> Vec<Vec<String>> {
    let mut all = Vec::new();
    for inner in command.get_subcommands().filter(|inner| inner.get_name() != "help") {
        let path = [path, &[inner.get_name().to_owned()]].concat();
        // A command may be of use with and without one of its own commands.
        let below = leaves(inner, &path);
        if settings_of(inner).next().is_some() {
            all.push(path);
        }
        all.extend(below);
    }
    all
}

/// The flags of a command that are settings.
fn settings_of(command: &Command) -> impl Iterator<Item = &clap::Arg> {
    command
        .get_arguments()
        .filter(|arg| arg.get_long().is_some_and(|long| !NOT_SETTINGS.contains(&long)))
}

/// The names of all settings, as a file spells them.
fn names(command: &Command) -> Vec<String> {
    let own = settings_of(command).filter_map(|arg| arg.get_long()).map(key);
    let mut all: Vec<String> = own.collect();
    all.extend(command.get_subcommands().flat_map(names));
    all.sort();
    all.dedup();
    all
}

fn key(long: &str) -> String {
    long.replace('-', "_")
}

fn upper(key: &str) -> String {
    key.to_ascii_uppercase()
}

/// A value of the file as texts.
fn texts(value: &toml::Value) -> Option<Vec<String>> {
    Some(match value {
        toml::Value::String(text) => vec![text.clone()],
        toml::Value::Integer(number) => vec![number.to_string()],
        toml::Value::Float(number) => vec![number.to_string()],
        toml::Value::Boolean(flag) => vec![flag.to_string()],
        toml::Value::Array(values) => {
            let nested: Option<Vec<Vec<String>>> = values.iter().map(texts).collect();
            nested?.concat()
        }
        toml::Value::Datetime(_) | toml::Value::Table(_) => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every flag of every command, the global ones included.
    fn flags(command: &Command) -> Vec<clap::Arg> {
        let own = settings_of(command).cloned();
        own.chain(command.get_subcommands().flat_map(flags)).collect()
    }

    #[test]
    fn flags_and_variables_are_one_to_one() {
        let all = flags(&Cli::command());
        assert!(all.len() > 30);
        for arg in all {
            let long = arg.get_long().expect("settings have a long flag");
            let variable = arg.get_env().map(|name| name.to_string_lossy().into_owned());
            assert_eq!(variable, Some(format!("STYLITE_{}", upper(&key(long)))), "--{long}");
        }
    }

    #[test]
    fn the_file_fills_in_what_was_not_given() {
        let values = [("id", "7"), ("threads", "3"), ("no_pin", "true"), ("port", "1")];
        let values = values.map(|(key, value)| (key.to_owned(), vec![value.to_owned()]));
        let file = File { path: None, values: values.into() };
        let command = Cli::command();
        let args = ["stylite", "replica", "--config", "g", "--threads", "2"];
        let matches = command.clone().ignore_errors(true).try_get_matches_from(args);
        let matches = matches.expect("errors are ignored");
        let (leaf, matches, name) = leaf(&command, &matches, String::new());
        assert_eq!(name, "replica");
        let injected = file.injected(leaf, matches);
        assert_eq!(injected, ["--id=7", "--no-pin"]);
        let args = args.iter().map(OsString::from).chain(injected);
        assert!(Cli::command().try_get_matches_from(args).is_ok());
    }
}
