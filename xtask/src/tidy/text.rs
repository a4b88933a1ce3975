//! Checks on all text: documents that must exist, headings, links, words, paths of one machine.

use std::path::Path;

use crate::report::Report;
use crate::source::{line_of, words};
use crate::tree::File;

const GLOSSARY: &str = "docs/glossary.md";

/// Files that a reader expects, and what they must show.
const EXPECTED: [(&str, &[&str]); 12] = [
    ("README.md", &["cargo run --release -- demo", "cargo xtask test"]),
    ("ARCHITECTURE.md", &[]),
    ("CHANGELOG.md", &["Unreleased"]),
    ("CONTRIBUTING.md", &["cargo xtask verify"]),
    ("SECURITY.md", &[]),
    ("LICENSE-MIT", &[]),
    ("LICENSE-APACHE", &[]),
    (GLOSSARY, &[SYNONYMS]),
    ("docs/dependencies.md", &[]),
    ("docs/format.md", &[]),
    ("docs/protocol/pbft.md", &[]),
    (".ci/run", &["cargo xtask verify"]),
];

/// The heading above the glossary's table of words that are not used.
const SYNONYMS: &str = "## Words not used";

/// Directories that exist on one machine only.
const MACHINE_PATHS: [&str; 4] =
    [concat!("/wo", "rk/"), concat!("/t", "mp/"), concat!("/ro", "ot/"), concat!("/ho", "me/")];

/// Settings that point cargo or pip at somebody's own server.
const OWN_REGISTRIES: [&str; 5] = [
    concat!("index", "-url"),
    concat!("[sour", "ce."),
    concat!("replace", "-with"),
    concat!("[regis", "tries"),
    concat!("artif", "actory"),
];

/// Checks the text files of the repository at `root`.
pub fn check(root: &Path, files: &[File], report: &mut Report) {
    for (path, shows) in EXPECTED {
        match files.iter().find(|file| file.path == path) {
            None => report.about(path, "is missing"),
            Some(file) => {
                for wanted in shows.iter().filter(|wanted| !file.text.contains(**wanted)) {
                    report.about(path, format!("does not show: {wanted}"));
                }
            }
        }
    }
    let synonyms = files.iter().find(|file| file.path == GLOSSARY);
    let synonyms = synonyms.map_or(vec![], |file| synonyms_of(&file.text));
    check_dependencies(files, report);
    for file in files {
        check_places(file, report);
        if file.is("md") {
            check_headings(file, report);
            check_links(root, file, report);
        }
        if (file.is("md") || file.is("rs")) && file.path != GLOSSARY {
            check_words(file, &synonyms, report);
            check_mentions(root, file, report);
        }
    }
}

fn check_places(file: &File, report: &mut Report) {
    let lock = file.path == "Cargo.lock";
    for (index, line) in file.text.lines().enumerate() {
        if let Some(path) = MACHINE_PATHS.iter().find(|path| line.contains(**path)) {
            report.at(&file.path, index + 1, format!("{path} is one machine's path"));
        }
        let foreign = "source = \"registry+https://github.com/rust-lang/crates.io-index\"";
        let own = OWN_REGISTRIES.iter().any(|setting| line.contains(setting));
        if own || (lock && line.starts_with("source = ") && line != foreign) {
            report.at(&file.path, index + 1, "names a package server of its own");
        }
    }
}

/// Each line of a markdown text outside code blocks, with its number.
fn prose(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let mut fenced = false;
    text.lines().enumerate().filter_map(move |(index, line)| {
        let fence = line.trim_start().starts_with("```");
        fenced ^= fence;
        (!fenced && !fence).then_some((index + 1, line))
    })
}

fn check_headings(file: &File, report: &mut Report) {
    let count = prose(&file.text).filter(|(_, line)| line.starts_with("# ")).count();
    if count != 1 {
        report.about(&file.path, format!("{count} headings of the first level, needs exactly one"));
    }
}

/// Links to files must lead somewhere, and links to headings of our documents to a heading.
fn check_links(root: &Path, file: &File, report: &mut Report) {
    let directory = root.join(Path::new(&file.path).parent().unwrap_or(Path::new("")));
    for (number, line) in prose(&file.text) {
        for target in line.split("](").skip(1).filter_map(|rest| rest.split([')', ' ']).next()) {
            if target.contains("://") || target.starts_with("mailto:") {
                continue;
            }
            let (path, heading) = target.split_once('#').unwrap_or((target, ""));
            let place = directory.join(path);
            if !path.is_empty() && !place.exists() {
                report.at(&file.path, number, format!("link to {path}, which does not exist"));
            } else if !heading.is_empty() {
                let other = std::fs::read_to_string(place).unwrap_or_default();
                let text = if path.is_empty() { &file.text } else { &other };
                let mut headings = prose(text).filter(|(_, line)| line.starts_with('#'));
                if !headings.any(|(_, line)| anchor(line) == heading) {
                    let what = format!("link to {target}, which has no such heading");
                    report.at(&file.path, number, what);
                }
            }
        }
    }
}

/// The anchor of a heading, as the usual renderers of markdown make it.
fn anchor(heading: &str) -> String {
    let text = heading.trim_start_matches('#').trim().to_lowercase();
    let kept = text.chars().filter(|c| c.is_alphanumeric() || " -_".contains(*c));
    kept.map(|c| if c == ' ' { '-' } else { c }).collect()
}

/// Paths of the repository that a text mentions in backquotes must exist.
fn check_mentions(root: &Path, file: &File, report: &mut Report) {
    for (index, line) in file.text.lines().enumerate() {
        for (position, mention) in line.split('`').enumerate() {
            let path = mention.split('#').next().unwrap_or_default();
            let ours = ["docs/", "crates/", "xtask/", ".ci/"].iter().any(|d| path.starts_with(d));
            let plain = path.chars().all(|c| c.is_alphanumeric() || "._-/".contains(c));
            if position % 2 == 1 && ours && plain && !root.join(path).exists() {
                report.at(&file.path, index + 1, format!("mentions {path}, which does not exist"));
            }
        }
    }
}

/// The pairs (word not used, word to use) of the glossary's table.
fn synonyms_of(glossary: &str) -> Vec<(String, String)> {
    let table = glossary.split(SYNONYMS).nth(1).unwrap_or_default();
    let table = table.split("\n## ").next().unwrap_or_default();
    let rows = table.lines().filter(|line| line.starts_with('|')).skip(2);
    rows.filter_map(|row| {
        let mut cells = row.trim_matches('|').split('|').map(|cell| cell.trim().to_lowercase());
        Some((cells.next()?, cells.next()?))
    })
    .collect()
}

fn check_words(file: &File, synonyms: &[(String, String)], report: &mut Report) {
    let text = file.text.to_ascii_lowercase();
    for (wrong, right) in synonyms {
        for at in words(&text, wrong) {
            let line = line_of(&text, at);
            report.at(&file.path, line, format!("\"{wrong}\": this project says \"{right}\""));
        }
    }
}

/// Every dependency of the workspace has its line in `docs/dependencies.md`.
fn check_dependencies(files: &[File], report: &mut Report) {
    let text = |path: &str| files.iter().find(|f| f.path == path).map_or("", |f| f.text.as_str());
    let manifest = text("Cargo.toml").split("[workspace.dependencies]").nth(1).unwrap_or_default();
    let manifest = manifest.split("\n[").next().unwrap_or_default();
    let listed = text("docs/dependencies.md");
    for line in manifest.lines().filter(|line| !line.starts_with('#') && !line.contains("path = "))
    {
        let name = line.split('=').next().unwrap_or_default().trim();
        if !name.is_empty() && !listed.contains(&format!("`{name}`")) {
            report.about("docs/dependencies.md", format!("has no line for `{name}`"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(path: &str, text: &str) -> File {
        File { path: path.into(), text: text.into() }
    }

    fn with(check: impl Fn(&mut Report)) -> Vec<String> {
        let mut report = Report::default();
        check(&mut report);
        report.findings
    }

    #[test]
    fn one_heading_outside_code() {
        let good = file("a.md", "# A\n```sh\n# comment\n```\n## B\n");
        assert!(with(|r| check_headings(&good, r)).is_empty());
        assert_eq!(with(|r| check_headings(&file("a.md", "# A\n# B\n"), r)).len(), 1);
        assert_eq!(with(|r| check_headings(&file("a.md", "A\n"), r)).len(), 1);
    }

    #[test]
    fn links_and_mentions_must_exist() {
        let root = crate::tree::root();
        let good = "# Here, now\n[a](../xtask/Cargo.toml) [b](https://example.org/a) [c](#here-now) \
                    [d](glossary.md#words-not-used) `xtask/src`\n";
        let good = file("docs/a.md", good);
        assert!(with(|r| check_links(&root, &good, r)).is_empty());
        assert!(with(|r| check_mentions(&root, &good, r)).is_empty());
        let bad =
            file("docs/a.md", concat!("[a](nowhere.md) `do", "cs/nowhere.md` `do", "cs/*`\n"));
        assert_eq!(with(|r| check_links(&root, &bad, r)).len(), 1);
        let bad_heading = file("docs/a.md", "# A\n[a](#b) [c](glossary.md#no-such-heading)\n");
        assert_eq!(with(|r| check_links(&root, &bad_heading, r)).len(), 2);
        assert_eq!(with(|r| check_mentions(&root, &bad, r)).len(), 1);
    }

    #[test]
    fn the_glossary_table_is_read_and_enforced() {
        let glossary = "# G\n\n## Words not used\n\n| not | say |\n|---|---|\n| foo bar | quux |\n";
        let synonyms = synonyms_of(glossary);
        assert_eq!(synonyms, [("foo bar".to_owned(), "quux".to_owned())]);
        let found =
            with(|r| check_words(&file("a.rs", "//! x\n// A Foo bar here.\n"), &synonyms, r));
        assert!(found[0].starts_with("a.rs:2:") && found[0].contains("quux"));
        assert!(with(|r| check_words(&file("a.rs", "foo barred"), &synonyms, r)).is_empty());
    }

    #[test]
    fn machine_paths_and_own_servers_are_found() {
        let bad = file("a.sh", concat!("cd /wo", "rk/x\npip install --index", "-url y\n"));
        assert_eq!(with(|r| check_places(&bad, r)).len(), 2);
        let lock = file("Cargo.lock", "source = \"registry+https://example.org/index\"\n");
        assert_eq!(with(|r| check_places(&lock, r)).len(), 1);
    }

    #[test]
    fn every_dependency_needs_a_line() {
        let manifest =
            "[workspace.dependencies]\nbase = { path = \"x\" }\nfoo = \"1\"\n\n[lints]\n";
        let files = [file("Cargo.toml", manifest), file("docs/dependencies.md", "`bar`")];
        let found = with(|r| check_dependencies(&files, r));
        assert_eq!(found, ["docs/dependencies.md: has no line for `foo`"]);
    }
}
