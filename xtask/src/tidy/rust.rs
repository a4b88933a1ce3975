//! Checks on Rust sources that go beyond `clippy`: module docs, banned words, columns, `unsafe`.

use crate::report::Report;
use crate::source::{line_of, words};
use crate::tree::RustFile;

const COLUMNS_MAX: usize = 100;

/// What shipped code must not contain, and what to write instead.
const BANNED: [(&str, &str); 5] = [
    (concat!(".unw", "rap()"), "use `expect(\"why it cannot fail\")` or an error"),
    (concat!("to", "do!"), "finish it, or leave it out"),
    (concat!("unimpl", "emented!"), "finish it, or leave it out"),
    (concat!("d", "bg!"), "use tracing, or nothing"),
    ("#![allow(", "allow it where it is needed, with the reason"),
];

/// What no Rust file may contain, comments and tests included.
const UNFINISHED: [&str; 2] = [concat!("FIX", "ME"), concat!("XX", "X")];

/// Macros that print, and where they may be used: programs, not libraries.
const PRINTING: [&str; 4] = ["println!", "print!", "eprintln!", "eprint!"];
const MAY_PRINT: [&str; 4] = ["crates/node/", "xtask/", "/examples/", "/src/bin/"];

/// The files that may contain `unsafe`, each with its reason.
const UNSAFE: &[(&str, &str)] =
    &[("crates/shm/src/region.rs", "mapped memory becomes words that are shared")];

/// Checks every file by itself.
pub fn check(files: &[RustFile], report: &mut Report) {
    for file in files {
        check_form(file, report);
        check_unsafe(file, report);
        if !file.test {
            check_banned(file, report);
        }
    }
}

/// Checks that the lists name what there is.
pub fn check_lists(files: &[RustFile], report: &mut Report) {
    for (path, _) in UNSAFE {
        if !files.iter().any(|file| file.path == *path) {
            report.about(path, "may contain `unsafe` but does not exist: take it off the list");
        }
    }
}

fn check_form(file: &RustFile, report: &mut Report) {
    let source = &file.source;
    if !source.text.starts_with("//!") {
        report.at(&file.path, 1, "must begin with `//!`: what the module is and is not");
    }
    for (index, line) in source.unquoted.lines().enumerate() {
        let width = line.trim_end().chars().count();
        if width > COLUMNS_MAX && !line.contains("://") {
            report.at(&file.path, index + 1, format!("{width} columns, at most {COLUMNS_MAX}"));
        }
    }
    for word in UNFINISHED {
        for at in words(&source.text, word) {
            report.at(&file.path, line_of(&source.text, at), format!("{word}: finish it"));
        }
    }
    for (at, _) in source.code.match_indices("#[ignore") {
        report.at(&file.path, line_of(&source.code, at), "a test runs, or it is not there");
    }
}

fn check_banned(file: &RustFile, report: &mut Report) {
    let code = &file.source.shipped;
    for (banned, instead) in BANNED {
        // Punctuation in front is part of the word; a macro's name must start there.
        let starts = if banned.starts_with(['.', '#']) {
            code.match_indices(banned).map(|(at, _)| at).collect()
        } else {
            words_before(code, banned)
        };
        for at in starts {
            report.at(&file.path, line_of(code, at), format!("`{banned}`: {instead}"));
        }
    }
    if !MAY_PRINT.iter().any(|place| file.path.contains(place)) {
        for printing in PRINTING {
            for at in words_before(code, printing) {
                let advice = "a library does not print: return it, or use tracing";
                report.at(&file.path, line_of(code, at), format!("`{printing}`: {advice}"));
            }
        }
    }
}

/// Where the macro call `name!` stands and is not the end of a longer name.
fn words_before(code: &str, name: &str) -> Vec<usize> {
    let word = name.trim_end_matches('!');
    words(code, word).into_iter().filter(|at| code[*at..].starts_with(name)).collect()
}

fn check_unsafe(file: &RustFile, report: &mut Report) {
    let source = &file.source;
    let lines: Vec<&str> = source.text.lines().collect();
    for at in words(&source.code, "unsafe") {
        let after = source.code[at + "unsafe".len()..].trim_start();
        if after.starts_with(['(', ')']) {
            continue; // An attribute such as `#[unsafe(no_mangle)]`.
        }
        let line = line_of(&source.code, at);
        if !UNSAFE.iter().any(|(path, _)| *path == file.path) {
            report.at(
                &file.path,
                line,
                "`unsafe` outside the files listed in xtask/src/tidy/rust.rs",
            );
        }
        let above = &lines[line.saturating_sub(8)..line];
        if !above.iter().any(|line| line.contains("SAFETY:") || line.contains("# Safety")) {
            report.at(&file.path, line, "`unsafe` without a SAFETY comment above it");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tree::{File, rust_files};

    fn findings(path: &str, text: &str) -> Vec<String> {
        let files = [File { path: path.into(), text: text.into() }];
        let mut report = Report::default();
        check(&rust_files(&files), &mut report);
        report.findings
    }

    #[test]
    fn shipped_code_is_checked_and_tests_are_not() {
        let bad = concat!("//! Doc.\nfn a() { x.unw", "rap(); to", "do!() }\n");
        assert_eq!(findings("crates/a/src/a.rs", bad).len(), 2);
        assert!(findings("crates/a/tests/a.rs", bad).is_empty());
        let inner = concat!("//! Doc.\n#[cfg(test)]\nmod tests { fn a() { x.unw", "rap() } }\n");
        assert!(findings("crates/a/src/a.rs", inner).is_empty());
        let quoted =
            concat!("//! Doc.\n/// Not `x.unw", "rap()`.\nconst A: &str = \"to", "do!\";\n");
        assert!(findings("crates/a/src/a.rs", quoted).is_empty());
    }

    #[test]
    fn only_programs_print() {
        let text = "//! Doc.\nfn a() { println!() }\n";
        assert_eq!(findings("crates/svc/src/a.rs", text).len(), 1);
        assert!(findings("crates/node/src/a.rs", text).is_empty());
        assert!(findings("crates/kit/examples/a.rs", text).is_empty());
    }

    #[test]
    fn columns_do_not_count_what_is_quoted() {
        let long = "x".repeat(100);
        assert_eq!(findings("src/a.rs", &format!("//! Doc.\n// {long}\n")).len(), 1);
        assert!(
            findings("src/a.rs", &format!("//! Doc.\nconst A: &str = \"{long}\";\n")).is_empty()
        );
        assert!(findings("src/a.rs", &format!("//! Doc.\n// https://{long}\n")).is_empty());
    }

    #[test]
    fn form_is_checked() {
        assert!(findings("src/a.rs", "fn a() {}\n")[0].contains("must begin"));
        assert_eq!(findings("tests/a.rs", "//! Doc.\n#[ignore]\nfn a() {}\n").len(), 1);
        let allowed = "//! Doc.\n#![allow(dead_code)]\n";
        assert_eq!(findings("src/a.rs", allowed).len(), 1);
        assert!(findings("tests/a.rs", allowed).is_empty());
        let unfinished = concat!("//! Doc.\n// FIX", "ME later\n");
        assert_eq!(findings("tests/a.rs", unfinished).len(), 1);
        let not_listed = "//! Doc.\n// SAFETY: fine.\nfn a() { unsafe { b() } }\n";
        assert_eq!(findings("src/a.rs", not_listed).len(), 1);
        assert!(findings("src/a.rs", "//! Doc.\n#![forbid(unsafe_code)]\n").is_empty());
    }
}
