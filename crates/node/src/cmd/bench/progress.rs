//! How far a run is, for whoever waits at a terminal.

use std::io::IsTerminal;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

use super::load::Load;
use super::tally::Window;
use crate::cli::LoadArgs;

/// A line on the terminal that says how far a run is; nothing where there is no terminal.
#[derive(Debug)]
pub struct Progress(Option<ProgressBar>);

/// How often progress is shown.
const PROGRESS_EVERY: Duration = Duration::from_millis(200);

impl Progress {
    /// Of a run, the first of which has the number 0.
    #[must_use]
    pub fn new(load: &LoadArgs, window: Window, run: u32) -> Progress {
        if !std::io::stderr().is_terminal() {
            return Progress(None);
        }
        let total = window.until.saturating_duration_since(window.start).as_millis();
        let bar = ProgressBar::new(u64::try_from(total).unwrap_or(u64::MAX));
        let style = ProgressStyle::with_template("{prefix}{bar:30} {percent:>3} %  {msg}");
        bar.set_style(style.expect("the template is well-formed"));
        if load.runs > 1 {
            bar.set_prefix(format!("run {} of {} ", run + 1, load.runs));
        }
        bar.set_message(if load.warmup.is_zero() { "measuring" } else { "warming up" });
        Progress(Some(bar))
    }

    /// Waits until then, showing how fast it goes.
    pub fn wait(&self, load: &Load, until: Instant) {
        let mut last = (Instant::now(), load.done());
        loop {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            std::thread::sleep(left.min(PROGRESS_EVERY));
            if let Some(bar) = &self.0 {
                let now = (Instant::now(), load.done());
                let speed = (now.1 - last.1) as f64 / (now.0 - last.0).as_secs_f64();
                bar.inc(u64::try_from((now.0 - last.0).as_millis()).unwrap_or(u64::MAX));
                bar.set_message(format!("{speed:.0} operations/s"));
                last = now;
            }
        }
    }

    /// Says what is done now.
    pub fn say(&self, what: &'static str) {
        if let Some(bar) = &self.0 {
            bar.set_message(what);
        }
    }

    /// Takes the line away.
    pub fn end(&self) {
        if let Some(bar) = &self.0 {
            bar.finish_and_clear();
        }
    }
}
