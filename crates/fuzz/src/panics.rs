//! Panics on every thread: servers catch those of their own tasks, and go on as if nothing were.

use std::panic::PanicHookInfo;
use std::sync::{Mutex, MutexGuard, Once, PoisonError};

static SEEN: Mutex<(u64, String)> = Mutex::new((0, String::new()));
static HOOK: Once = Once::new();

fn seen() -> MutexGuard<'static, (u64, String)> {
    SEEN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// From now on panics are counted and not printed: whoever runs inputs tells of them.
pub(crate) fn watch() {
    HOOK.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            note(info);
            // A test's own assertions, outside of any run, are to be read.
            if !crate::engine::is_running() {
                before(info);
            }
        }));
    });
}

fn note(info: &PanicHookInfo<'_>) {
    let place = info.location().map(ToString::to_string).unwrap_or_default();
    let mut seen = seen();
    seen.0 += 1;
    seen.1 = format!("{} at {place}", crate::engine::message(info.payload()));
}

/// How many panics there were so far.
pub(crate) fn count() -> u64 {
    seen().0
}

/// The last one.
pub(crate) fn last() -> String {
    seen().1.clone()
}
