//! One program for all targets: `STYLITE_FUZZ_TARGET` names the one that is run.

#![no_main]

use std::cell::RefCell;

use fuzz::registry;
use fuzz::target::Run;
use libfuzzer_sys::fuzz_target;

thread_local! {
    static RUN: RefCell<Run> = RefCell::new({
        let name = std::env::var("STYLITE_FUZZ_TARGET").expect("STYLITE_FUZZ_TARGET is not set");
        let target = registry::find(&name).expect("STYLITE_FUZZ_TARGET is no target");
        (target.open)()
    });
}

fuzz_target!(|bytes: &[u8]| {
    RUN.with_borrow_mut(|run| {
        run(bytes);
    });
});
