//! Inputs as text: hexadecimal, so that a difference can be read and a history stays small.
//!
//! The committed corpus is `corpus/<target>/<name>.hex`: what once broke something, and what the
//! encoders of valid values do not make. `#` begins a comment that goes to the end of the line.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};

/// Where the committed corpus is.
#[must_use]
pub fn directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus")
}

/// The input that is written in a text.
///
/// # Errors
/// When it is not hexadecimal.
pub fn parse(text: &str) -> Result<Vec<u8>> {
    let digits = text.lines().map(|line| line.split('#').next().unwrap_or_default());
    let digits: String = digits.flat_map(str::chars).filter(|c| !c.is_whitespace()).collect();
    hex::decode(digits).context("not hexadecimal")
}

/// `input` as text, with `comment` before it.
#[must_use]
pub fn written(comment: &str, input: &[u8]) -> String {
    let mut text: String = comment.lines().map(|line| format!("# {line}\n")).collect();
    for line in input.chunks(32) {
        text.push_str(&hex::encode(line));
        text.push('\n');
    }
    text
}

/// Reads one file.
///
/// # Errors
/// When it cannot be read or is not hexadecimal.
pub fn read(path: &Path) -> Result<Vec<u8>> {
    let text = fs::read_to_string(path);
    let text = text.with_context(|| format!("cannot read {}", path.display()))?;
    parse(&text).with_context(|| path.display().to_string())
}

/// The committed inputs of a target, in the order of their names.
///
/// # Errors
/// When one cannot be read.
pub fn of(target: &str) -> Result<Vec<Vec<u8>>> {
    let Ok(files) = fs::read_dir(directory().join(target)) else { return Ok(vec![]) };
    let mut paths: Vec<PathBuf> = files.flatten().map(|file| file.path()).collect();
    paths.sort();
    paths.iter().map(|path| read(path)).collect()
}

/// Writes an input to `directory`, under a name that follows from it.
///
/// # Errors
/// When it cannot be written.
pub fn keep(directory: &Path, target: &str, comment: &str, input: &[u8]) -> Result<PathBuf> {
    fs::create_dir_all(directory)
        .with_context(|| format!("cannot make {}", directory.display()))?;
    let name = crate::target::Outcome::of(input).0;
    let path = directory.join(format!("{target}-{name:016x}.hex"));
    fs::write(&path, written(comment, input))
        .with_context(|| format!("cannot write {}", path.display()))?;
    Ok(path)
}

/// Checks that every directory of the corpus is that of a target.
///
/// # Errors
/// When one is not.
pub fn check(targets: &[&str]) -> Result<()> {
    for entry in fs::read_dir(directory()).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        ensure!(targets.contains(&name.as_str()), "the corpus of {name}, which is no target");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_read_back_and_comments_are_skipped() {
        let input: Vec<u8> = (0..=99).collect();
        let text = written("what it broke\nand why", &input);
        assert!(text.starts_with("# what it broke\n# and why\n"));
        assert_eq!(parse(&text).unwrap(), input);
        assert_eq!(parse("00 ff # zz\n 1\n2").unwrap(), [0, 255, 0x12]);
        assert!(parse("0g").is_err() && parse("0").is_err());
    }
}
