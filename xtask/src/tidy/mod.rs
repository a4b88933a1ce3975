//! `cargo xtask tidy`: the house style, as far as a program can check it.
//!
//! Sizes are ratchets: a file or function over its limit stands in a list with its size and its
//! reason, and the listed number may only go down. Not here: what `rustfmt` and `clippy` check,
//! and the directions between crates (`layers`).

mod rust;
mod sizes;
mod text;

use std::path::Path;

use anyhow::Result;

use crate::report::Report;
use crate::{scale, tree};

/// Checks every text file below `root`.
///
/// # Errors
/// When a file cannot be read, or when there is something to mend: each is printed.
pub fn run(root: &Path) -> Result<()> {
    let files = tree::files(root)?;
    let sources = tree::rust_files(&files);
    let mut report = Report::default();
    text::check(root, &files, &mut report);
    rust::check(&sources, &mut report);
    rust::check_lists(&sources, &mut report);
    sizes::check(&sources, &mut report);
    scale::check(&sources, &mut report);
    report.finish("tidy", &format!("{} files, {} of them Rust", files.len(), sources.len()))
}
