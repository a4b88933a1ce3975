//! `cargo xtask layers`: who may depend on whom, and what the pure crates may contain.
//!
//! The table below is the authority; ARCHITECTURE.md draws it. Normal and build dependencies
//! must be in it. Development dependencies may go further, but a pure crate's tests stay within
//! the table too, and nothing but `xtask` itself knows `xtask`.

use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

use crate::report::Report;
use crate::run;
use crate::source::{line_of, words};
use crate::tree::{self, RustFile};

/// One crate of the workspace: its directory name, and the crates of ours that it may use.
struct Layer {
    name: &'static str,
    uses: &'static [&'static str],
}

const LAYERS: [Layer; 17] = [
    Layer { name: "base", uses: &[] },
    Layer { name: "proto", uses: &["base"] },
    Layer { name: "exec", uses: &["base"] },
    Layer { name: "auth", uses: &["base"] },
    Layer { name: "genesis", uses: &["base", "auth"] },
    Layer { name: "shm", uses: &[] },
    Layer { name: "store", uses: &["base"] },
    Layer { name: "durable", uses: &["base", "proto", "exec", "store"] },
    Layer {
        name: "rt",
        uses: &["base", "proto", "exec", "auth", "genesis", "shm", "store", "durable"],
    },
    Layer { name: "client", uses: &["base", "proto", "auth", "genesis", "shm"] },
    Layer { name: "svc", uses: &["base", "exec"] },
    Layer { name: "kit", uses: &["base", "exec", "rt", "client", "auth", "genesis"] },
    Layer {
        name: "node",
        uses: &["base", "proto", "exec", "auth", "genesis", "store", "rt", "client", "svc", "kit"],
    },
    Layer { name: "sim", uses: &["base", "proto", "exec", "svc", "store", "durable"] },
    Layer {
        name: "fuzz",
        uses: &["base", "proto", "exec", "auth", "genesis", "store", "rt", "kit", "svc", "node"],
    },
    Layer { name: "models", uses: &["base", "proto", "exec"] },
    Layer { name: "xtask", uses: &[] },
];

/// The pure crates, and the vetted `no_std` crates of others that each may use.
const PURE: [(&str, &[&str]); 3] = [("base", &["blake3"]), ("proto", &[]), ("exec", &[])];

/// Crates that exist to prove things and are never shipped, nor depended upon.
const PROOF: [&str; 4] = ["sim", "fuzz", "models", "xtask"];

/// What a pure crate's shipped code must not name, and why.
const IMPURE: [(&str, &str); 9] = [
    ("std", "the pure zone is `no_std`"),
    ("f32", "floats differ between machines"),
    ("f64", "floats differ between machines"),
    ("HashMap", "its order depends on a seed: use `BTreeMap` or a sorted `Vec`"),
    ("HashSet", "its order depends on a seed: use `BTreeSet` or a sorted `Vec`"),
    ("atomic", "a core has one owner and no threads"),
    ("Instant", "time is an input"),
    ("SystemTime", "time is an input"),
    ("unsafe", "the pure zone forbids it"),
];

/// Services, each a module of `svc`, that must not know each other.
const SERVICES: [&str; 4] = ["kv", "zk", "echo", "work"];

/// A target without an operating system: what compiles for it has no `std` below it.
const BARE_TARGET: &str = "x86_64-unknown-none";

/// Checks the directions and the pure zone.
///
/// # Errors
/// When cargo or a file cannot be read, or when there is something to mend: each is printed.
pub fn run(root: &Path) -> Result<()> {
    let mut report = Report::default();
    let metadata = run::metadata(root)?;
    check_arrows(&metadata, &mut report)?;
    let files = tree::rust_files(&tree::files(root)?);
    check_purity(&files, &mut report);
    check_services(&files, &mut report);
    report.finish("layers", &format!("{} crates, {} of them pure", LAYERS.len(), PURE.len()))?;
    bare_build(root)
}

/// A package's directory name: without the prefix that keeps published names apart.
fn short(package: &str) -> &str {
    package.strip_prefix("stylite-").unwrap_or(package)
}

fn check_arrows(metadata: &Value, report: &mut Report) -> Result<()> {
    let packages = metadata["packages"].as_array().context("cargo metadata has no packages")?;
    for package in packages {
        let name = short(package["name"].as_str().context("a package without a name")?);
        let Some(layer) = LAYERS.iter().find(|layer| layer.name == name) else {
            report.about(name, "is not in the table of xtask/src/layers.rs: give it a layer");
            continue;
        };
        for dependency in package["dependencies"].as_array().into_iter().flatten() {
            let wanted = dependency["name"].as_str().context("a dependency without a name")?;
            let for_tests = dependency["kind"].as_str() == Some("dev");
            let ours = dependency["source"].is_null();
            if let Some(problem) = refusal(layer, short(wanted), ours, for_tests) {
                report.about(name, format!("may not depend on {wanted}: {problem}"));
            }
        }
    }
    Ok(())
}

/// Why `layer` may not depend on `wanted`; none when it may.
fn refusal(layer: &Layer, wanted: &str, ours: bool, for_tests: bool) -> Option<&'static str> {
    let pure = PURE.iter().find(|(name, _)| *name == layer.name);
    if ours {
        let known = LAYERS.iter().any(|other| other.name == wanted);
        let allowed = layer.uses.contains(&wanted);
        return match (pure, for_tests) {
            _ if !known => Some("it is not in the table of layers"),
            _ if PROOF.contains(&wanted) => Some("the proof zone is never depended upon"),
            _ if allowed => None,
            (None, true) => None,
            (Some(_), true) => Some("tests of a pure crate stay within its layer"),
            (_, false) => Some("the arrow is not in the table of xtask/src/layers.rs"),
        };
    }
    match pure {
        Some((_, vetted)) if !for_tests && !vetted.contains(&wanted) => {
            Some("a pure crate uses vetted no_std crates only")
        }
        _ => None,
    }
}

fn check_purity(files: &[RustFile], report: &mut Report) {
    for (name, _) in PURE {
        let lib = format!("crates/{name}/src/lib.rs");
        match files.iter().find(|file| file.path == lib) {
            None => report.about(&lib, "is missing"),
            Some(file) => {
                for attribute in ["#![no_std]", "#![forbid(unsafe_code)]"] {
                    if !file.source.code.contains(attribute) {
                        report.at(&lib, 1, format!("a pure crate says `{attribute}`"));
                    }
                }
            }
        }
        let inside = format!("crates/{name}/src/");
        for file in files.iter().filter(|file| file.path.starts_with(&inside) && !file.test) {
            check_pure_file(file, report);
        }
    }
}

/// The one file that may name atomics: which deliberate bug a process has is no part of a core,
/// and no part of what is shipped.
const MUTANTS: &str = "crates/base/src/mutants.rs";

fn check_pure_file(file: &RustFile, report: &mut Report) {
    let code = &file.source.shipped;
    for (word, why) in IMPURE {
        if word == "atomic" && file.path == MUTANTS {
            continue;
        }
        for at in words(code, word) {
            report.at(&file.path, line_of(code, at), format!("`{word}` in a pure crate: {why}"));
        }
    }
    for at in float_literals(code) {
        let why = "a float in a pure crate: floats differ between machines";
        report.at(&file.path, line_of(code, at), why);
    }
}

/// Where a number with a fraction stands: digits, a dot and a digit, and not `tuple.0.1`.
fn float_literals(code: &str) -> Vec<usize> {
    let bytes = code.as_bytes();
    let is_part = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    (1..bytes.len().saturating_sub(1))
        .filter(|at| bytes[*at] == b'.' && bytes[at + 1].is_ascii_digit())
        .filter(|at| {
            let start = (0..*at).rev().find(|i| !is_part(bytes[*i])).map_or(0, |i| i + 1);
            let number = start < *at && bytes[start].is_ascii_digit();
            number && (start == 0 || bytes[start - 1] != b'.')
        })
        .collect()
}

fn check_services(files: &[RustFile], report: &mut Report) {
    for service in SERVICES {
        let inside = [format!("crates/svc/src/{service}/"), format!("crates/svc/src/{service}.rs")];
        for file in files.iter().filter(|f| inside.iter().any(|place| f.path.starts_with(place))) {
            for other in SERVICES.iter().filter(|other| **other != service) {
                // A service may have a module of its own of that name.
                let own = format!("crates/svc/src/{service}/{other}.rs");
                let above = format!("super::{other}");
                let above = (!files.iter().any(|f| f.path == own)).then_some(above);
                for path in above.into_iter().chain([format!("crate::{other}")]) {
                    for at in words(&file.source.code, &path) {
                        let line = line_of(&file.source.code, at);
                        report.at(&file.path, line, format!("{service} must not know {other}"));
                    }
                }
            }
        }
    }
}

/// Builds the pure crates where there is no `std` at all, which also covers what they depend on.
fn bare_build(root: &Path) -> Result<()> {
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let output = Command::new(rustc)
        .args(["--print", "target-libdir", "--target", BARE_TARGET])
        .output()
        .context("cannot run rustc")?;
    let libdir = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    if !output.status.success() || !Path::new(&libdir).is_dir() {
        println!("layers: skipped: target {BARE_TARGET} not installed; relying on #![no_std]");
        return Ok(());
    }
    let mut command = Command::new(run::cargo());
    command.args(["check", "--quiet", "--target", BARE_TARGET]).current_dir(root);
    for (name, _) in PURE {
        command.args(["-p", &format!("stylite-{name}")]);
    }
    if !command.status().context("cannot run cargo check")?.success() {
        bail!("layers: the pure crates do not build for {BARE_TARGET}");
    }
    println!("layers: ok (pure crates build for {BARE_TARGET})");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tree::{File, rust_files};

    fn layer(name: &str) -> &'static Layer {
        LAYERS.iter().find(|layer| layer.name == name).expect("is in the table")
    }

    #[test]
    fn arrows_point_one_way() {
        assert!(refusal(layer("rt"), "proto", true, false).is_none());
        assert!(refusal(layer("proto"), "exec", true, false).is_some());
        assert!(refusal(layer("exec"), "svc", true, true).is_some());
        assert!(refusal(layer("rt"), "svc", true, false).is_some());
        assert!(refusal(layer("rt"), "svc", true, true).is_none());
        assert!(refusal(layer("node"), "sim", true, true).is_some());
        assert!(refusal(layer("base"), "blake3", false, false).is_none());
        assert!(refusal(layer("proto"), "blake3", false, false).is_some());
        assert!(refusal(layer("proto"), "proptest", false, true).is_none());
        assert!(refusal(layer("rt"), "mio", false, false).is_none());
    }

    #[test]
    fn the_table_is_without_cycles() {
        for (index, layer) in LAYERS.iter().enumerate() {
            for used in layer.uses {
                let below = LAYERS[..index].iter().any(|other| other.name == *used);
                assert!(below, "{} uses {used}, which must stand above it", layer.name);
            }
        }
    }

    #[test]
    fn metadata_is_compared_with_the_table() {
        let metadata = serde_json::json!({"packages": [
            {"name": "stylite-proto", "dependencies": [
                {"name": "stylite-base", "kind": null, "source": null},
                {"name": "stylite-exec", "kind": null, "source": null},
                {"name": "rand", "kind": null, "source": "registry"}]},
            {"name": "stray", "dependencies": []}]});
        let mut report = Report::default();
        check_arrows(&metadata, &mut report).expect("is shaped like metadata");
        assert_eq!(report.findings.len(), 3, "{:?}", report.findings);
    }

    #[test]
    fn impure_words_and_floats_are_found() {
        let text = concat!(
            "//! std and 1.5 in a comment.\nuse std::time::Instant;\nlet a = 1.5; let b = t.0.1;\n",
            "let c = 0..1; let d = [1].len();\n#[cfg(test)]\nextern crate std;\n",
        );
        let files = [File { path: "crates/base/src/a.rs".into(), text: text.into() }];
        let mut report = Report::default();
        check_pure_file(&rust_files(&files)[0], &mut report);
        assert_eq!(report.findings.len(), 3, "{:?}", report.findings);
    }

    #[test]
    fn services_do_not_know_each_other() {
        let file = |path: &str, text: &str| File { path: path.into(), text: text.into() };
        let files = [
            file("crates/svc/src/kv/mod.rs", "use crate::echo::Echo;\n"),
            file("crates/svc/src/echo.rs", "use crate::resp;\n"),
        ];
        let mut report = Report::default();
        check_services(&rust_files(&files), &mut report);
        assert_eq!(report.findings.len(), 1, "{:?}", report.findings);
    }
}
