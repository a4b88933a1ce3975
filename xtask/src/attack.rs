//! `cargo xtask attack`: attacks on a group of real processes, as released, and a table of what
//! they leave for honest clients.
//!
//! The attacks are the tests of `crates/node/tests/attack.rs`, run for long enough to measure.
//! Each writes its figures as JSON; this reads them, prints the table, and after a run of all of
//! them writes it into `docs/reliability.md`. Not here: what the attacks are.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value as Json;

use crate::run;

/// Where the table goes, and between which lines.
const DOCUMENT: &str = "docs/reliability.md";
const BEGIN: &str = "<!-- attacks: written by `cargo xtask attack` -->";
const END: &str = "<!-- attacks end -->";
/// Where the attacks are.
const TESTS: &str = "crates/node/tests/attack.rs";
/// How long each attack is measured unless told: the suite then takes eight minutes or so.
const SECONDS_DEFAULT: u64 = 14;

/// What to run.
#[derive(Clone, Default, Debug, PartialEq, Eq)]
pub struct Options {
    /// Attacks whose names contain one of these; all when empty.
    pub names: Vec<String>,
    /// How long each is measured.
    pub seconds: Option<u64>,
}

/// Reads the command line after `attack`.
///
/// # Errors
/// What is wrong with it, in words.
pub fn parse(arguments: &[String]) -> Result<Options, String> {
    let mut options = Options::default();
    let mut rest = arguments.iter();
    while let Some(argument) = rest.next() {
        match argument.as_str() {
            "--seconds" => {
                let told = rest.next().and_then(|text| text.parse().ok());
                let told = told.filter(|seconds| *seconds > 0);
                options.seconds = Some(told.ok_or("--seconds needs a number above 0")?);
            }
            flag if flag.starts_with('-') => return Err(format!("unknown option {flag}")),
            // Tests are named with underscores.
            name => options.names.push(name.replace('-', "_")),
        }
    }
    Ok(options)
}

/// The names of all attacks, as the tests have them.
///
/// # Errors
/// When the tests cannot be read.
pub fn names(root: &Path) -> Result<Vec<String>> {
    let text =
        fs::read_to_string(root.join(TESTS)).with_context(|| format!("cannot read {TESTS}"))?;
    let mut names: Vec<String> = text
        .split("#[test]")
        .skip(1)
        .filter_map(|test| test.trim_start().strip_prefix("fn ")?.split_once('('))
        .map(|(name, _)| name.replace('_', "-"))
        .collect();
    names.sort_unstable();
    Ok(names)
}

/// Runs the attacks. True when nothing was wrong; a figure that misses its goal is not.
///
/// # Errors
/// When cargo cannot run, or the results cannot be read or written.
pub fn run(root: &Path, options: &Options) -> Result<bool> {
    let results = run::target_directory(root)?.join("attack");
    if results.exists() {
        fs::remove_dir_all(&results).context("cannot remove old results")?;
    }
    fs::create_dir_all(&results).with_context(|| format!("cannot make {}", results.display()))?;
    let seconds = options.seconds.unwrap_or(SECONDS_DEFAULT);
    let mut tests = Command::new(run::cargo());
    tests.args(["test", "--release", "-p", "stylite-node", "--test", "attack"]);
    tests.args(["--", "--test-threads=1"]).args(&options.names).current_dir(root);
    tests.env("STYLITE_ATTACK_SECONDS", seconds.to_string()).env("STYLITE_SOAK_DIR", &results);
    let status = run::watched(&mut tests, |_| ())?;
    let rows = read(&results)?;
    if status.success() && rows.is_empty() {
        bail!(run::Usage(
            "no attack has such a name; `cargo xtask attack --help` names them".into()
        ));
    }
    ensure!(!rows.is_empty(), "no attack came to its end");
    let table = table(&rows);
    println!("\n{table}");
    for row in rows.iter().filter(|row| !met(row)) {
        println!("misses its goal: {}", text(row, "attack"));
    }
    println!("figures: {}", results.display());
    if status.success() && options.names.is_empty() {
        write(root, &format!("{}\n\n{table}", about(root, seconds)))?;
        println!("{DOCUMENT}: written; look at the difference before you commit it");
    }
    Ok(status.success())
}

/// The figures of all attacks, by name.
fn read(results: &Path) -> Result<Vec<Json>> {
    let mut rows = vec![];
    for entry in fs::read_dir(results)? {
        let path = entry?.path();
        let text = fs::read_to_string(&path)?;
        let row = serde_json::from_str(&text);
        rows.push(row.with_context(|| format!("{} is no JSON", path.display()))?);
    }
    rows.sort_by_key(|row| text(row, "attack").to_owned());
    Ok(rows)
}

fn text<'a>(row: &'a Json, field: &str) -> &'a str {
    row[field].as_str().unwrap_or("?")
}

fn number(row: &Json, field: &str) -> f64 {
    row[field].as_f64().unwrap_or(f64::NAN)
}

/// Whether the figure is what was hoped for; to a tenth of a per cent, as the table shows it.
fn met(row: &Json) -> bool {
    number(row, "share") + 0.0005 >= number(row, "goal")
}

/// The table, as Markdown.
fn table(rows: &[Json]) -> String {
    let mut out = String::from(
        "| attack | what happens | load | undisturbed | share | goal | p99 undisturbed, attacked | \
         errors | views | memory | notes |\n|---|---|---|---|---|---|---|---|---|---|---|\n",
    );
    for row in rows {
        let ms = |field| number(row, field) / 1_000.0;
        let notes: Vec<&str> = row["notes"]
            .as_array()
            .map_or(vec![], |all| all.iter().filter_map(Json::as_str).collect());
        let goal = Some(100.0 * number(row, "goal")).filter(|goal| *goal > 0.0);
        let mark = |text: String| if met(row) { text } else { format!("**{text}**") };
        out.push_str(&format!(
            "| `{}` | {} | {} | {:.0}/s | {} | {} | {:.1} ms, {:.1} ms | {} | {} | \
             +{:.0} MiB | {} |\n",
            text(row, "attack"),
            text(row, "what"),
            text(row, "load"),
            number(row, "calm_per_s"),
            mark(format!("{:.1} %", 100.0 * number(row, "share"))),
            goal.map_or("none".to_owned(), |goal| format!("{goal:.0} %")),
            ms("p99_calm_us"),
            ms("p99_attacked_us"),
            row["errors"],
            row["views"],
            number(row, "rss_growth_kib") / 1_024.0,
            notes.join("; "),
        ));
    }
    out
}

/// What was run, where.
fn about(root: &Path, seconds: u64) -> String {
    let says = |program: &str, arguments: &[&str]| {
        let output = Command::new(program).args(arguments).current_dir(root).output();
        let text = output.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned());
        text.ok().filter(|text| !text.is_empty()).unwrap_or_else(|| "unknown".to_owned())
    };
    let (commit, cores) = (says("git", &["rev-parse", "--short", "HEAD"]), says("nproc", &[]));
    format!(
        "`cargo xtask attack --seconds {seconds}` at commit {commit} on {cores} cores. A figure in \
         bold misses its goal."
    )
}

/// Puts `text` between the marks of the document.
fn write(root: &Path, text: &str) -> Result<()> {
    let path = root.join(DOCUMENT);
    let old = fs::read_to_string(&path).with_context(|| format!("cannot read {DOCUMENT}"))?;
    let new = between(&old, text);
    let new = new.with_context(|| format!("{DOCUMENT} has no marks for the table: {BEGIN}"))?;
    fs::write(&path, new).with_context(|| format!("cannot write {DOCUMENT}"))
}

/// `document` with `text` between the marks; `None` when it has none.
fn between(document: &str, text: &str) -> Option<String> {
    let (before, rest) = document.split_once(BEGIN)?;
    let (_, after) = rest.split_once(END)?;
    Some(format!("{before}{BEGIN}\n\n{}\n\n{END}{after}", text.trim_end()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn command_lines() {
        let parsed =
            |line: &str| parse(&line.split_whitespace().map(str::to_owned).collect::<Vec<_>>());
        let options = |names: &[&str], seconds| {
            let names = names.iter().map(|name| (*name).to_owned()).collect();
            Ok(Options { names, seconds })
        };
        assert_eq!(parsed(""), options(&[], None));
        assert_eq!(parsed("big-mac --seconds 3"), options(&["big_mac"], Some(3)));
        for bad in ["--seconds", "--seconds 0", "--seconds x", "--second 3"] {
            assert!(parsed(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn help_names_what_there_is() {
        let names = names(&crate::tree::root()).expect("readable");
        assert!(names.iter().any(|name| name == "leader-crash"), "{names:?}");
        let documented = fs::read_to_string(crate::tree::root().join(DOCUMENT)).expect("readable");
        let missing = names.iter().find(|name| !documented.contains(&format!("`{name}`")));
        assert_eq!(missing, None, "the table has a row for each");
    }

    #[test]
    fn the_table_goes_between_the_marks_and_shows_what_misses() {
        let row = |share: f64| {
            serde_json::json!({
                "attack": "a", "what": "b", "load": "full", "calm_per_s": 10.0, "share": share,
                "goal": 0.9, "p99_calm_us": 1_000, "p99_attacked_us": 2_500, "errors": 0,
                "views": 1, "rss_growth_kib": 2_048, "notes": ["x", "y"],
            })
        };
        let made = table(&[row(0.95), row(0.8)]);
        let lines: Vec<&str> = made.lines().collect();
        let good =
            "| `a` | b | full | 10/s | 95.0 % | 90 % | 1.0 ms, 2.5 ms | 0 | 1 | +2 MiB | x; y |";
        assert_eq!(lines[2], good);
        assert!(lines[3].contains("**80.0 %**"), "{made}");
        let document = format!("head\n{BEGIN}\nold\n{END}\ntail\n");
        let new = between(&document, "new\n").expect("marks");
        assert_eq!(new, format!("head\n{BEGIN}\n\nnew\n\n{END}\ntail\n"));
        assert_eq!(between(&new, "new"), Some(new.clone()));
        assert_eq!(between("no marks", "new"), None);
    }
}
