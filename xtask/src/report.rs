//! What a check found: lines of `path:line: what is wrong and what to do`.

use anyhow::{Result, bail};

/// Findings of one check.
#[derive(Default)]
pub struct Report {
    /// One line each.
    pub findings: Vec<String>,
}

impl Report {
    /// Adds a finding about a line of a file.
    pub fn at(&mut self, path: &str, line: usize, what: impl std::fmt::Display) {
        self.findings.push(format!("{path}:{line}: {what}"));
    }

    /// Adds a finding about something as a whole.
    pub fn about(&mut self, subject: &str, what: impl std::fmt::Display) {
        self.findings.push(format!("{subject}: {what}"));
    }

    /// Prints the findings, or one line that says what was checked.
    ///
    /// # Errors
    /// When there are findings.
    pub fn finish(self, check: &str, checked: &str) -> Result<()> {
        for finding in &self.findings {
            eprintln!("{finding}");
        }
        if !self.findings.is_empty() {
            bail!("{check}: {} to mend", self.findings.len());
        }
        println!("{check}: ok ({checked})");
        Ok(())
    }
}
