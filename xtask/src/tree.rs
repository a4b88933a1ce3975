//! The files of the work tree that the checks look at.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

use crate::source::Source;

/// A text file of the repository.
pub struct File {
    /// Path from the repository's root, with `/`.
    pub path: String,
    /// Its content.
    pub text: String,
}

impl File {
    /// Whether the name ends in `.` and `extension`.
    pub fn is(&self, extension: &str) -> bool {
        self.path.rsplit_once('.').is_some_and(|(_, e)| e == extension)
    }
}

/// The root of the repository: where the workspace manifest is.
pub fn root() -> PathBuf {
    // Cargo says it at run time too, and that counts: checkouts that share a target directory
    // share this program.
    let built = || env!("CARGO_MANIFEST_DIR").into();
    let here = PathBuf::from(std::env::var_os("CARGO_MANIFEST_DIR").unwrap_or_else(built));
    here.parent().expect("xtask lives in the repository").to_path_buf()
}

/// All text files below `root` in order of their paths, without build output and hidden
/// directories other than `.ci`, `.cargo` and `.config`.
///
/// # Errors
/// When a directory or file cannot be read.
pub fn files(root: &Path) -> Result<Vec<File>> {
    let mut found = vec![];
    let mut pending = vec![root.to_path_buf()];
    while let Some(directory) = pending.pop() {
        let context = || format!("cannot read {}", directory.display());
        for entry in std::fs::read_dir(&directory).with_context(context)? {
            let path = entry?.path();
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            if path.is_symlink() {
                continue;
            }
            if path.is_dir() {
                let hidden = name.starts_with('.');
                if name != "target" && (!hidden || [".ci", ".cargo", ".config"].contains(&&*name)) {
                    pending.push(path);
                }
            } else if let Ok(text) = String::from_utf8(std::fs::read(&path)?) {
                let relative = path.strip_prefix(root).expect("found below the root");
                let path = relative.to_string_lossy().replace('\\', "/");
                found.push(File { path, text });
            }
        }
    }
    found.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(found)
}

/// A Rust file with its views.
pub struct RustFile {
    /// Path from the repository's root.
    pub path: String,
    /// The views on its text.
    pub source: Source,
    /// Compiled for tests only: below `tests/`, or declared so.
    pub test: bool,
}

/// The Rust files among `files`, each with what is known about it.
pub fn rust_files(files: &[File]) -> Vec<RustFile> {
    let mut rust: Vec<RustFile> = files
        .iter()
        .filter(|file| file.is("rs"))
        .map(|file| {
            let source = Source::new(&file.text);
            let in_tests = file.path.split('/').any(|part| part == "tests" || part == "benches");
            let test = in_tests || source.is_test_only();
            RustFile { path: file.path.clone(), source, test }
        })
        .collect();
    let mut test_only = vec![];
    for file in &rust {
        let (directory, name) = file.path.rsplit_once('/').unwrap_or(("", &file.path));
        let base = match name {
            "lib.rs" | "main.rs" | "mod.rs" => directory.to_owned(),
            _ => file.path.trim_end_matches(".rs").to_owned(),
        };
        for module in &file.source.test_modules {
            test_only.push(format!("{base}/{module}.rs"));
            test_only.push(format!("{base}/{module}/mod.rs"));
        }
    }
    for file in &mut rust {
        file.test |= test_only.contains(&file.path);
    }
    rust
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn declared_test_modules_are_test_files() {
        let file = |path: &str, text: &str| File { path: path.into(), text: text.into() };
        let files = [
            file("crates/a/src/lib.rs", "#[cfg(test)]\nmod twin;\nmod real;\n"),
            file("crates/a/src/real.rs", "#[cfg(test)]\nmod deep;\n"),
            file("crates/a/src/real/deep.rs", ""),
            file("crates/a/src/twin.rs", ""),
            file("crates/a/tests/end.rs", ""),
            file("docs/x.md", ""),
        ];
        let tests: Vec<bool> = rust_files(&files).iter().map(|f| f.test).collect();
        assert_eq!(tests, [false, false, true, true, true]);
    }
}
