//! What a replica keeps on disk and what follows from it: how effects wait for records, in which
//! order a group of records is written, and how a life begins from what an earlier one left.
//!
//! It stands between the cores (`proto`, `exec`), which know no disk, and `store`, which knows no
//! votes. It has no thread, no clock and no lock: `rt` calls it from its threads and `sim` on
//! virtual time, so that what is proved about a crash there is true of this very code.
//!
//! | module | topic |
//! |---|---|
//! | `journal` | which effects wait for the disk, and in which order they leave |
//! | `portion` | the records of one group commit, and what is done before and after them |
//! | `remains` | the records of earlier lives, and whether they are all that matter |
//! | `boot` | how a life begins |
//! | `load` | the state that it begins with |
//! | `saving` | when a checkpoint goes to disk, and how far the log is cut then |
//!
//! Not here: the files (`store`), who writes and when (`rt::log_writer`, `sim`).

#![forbid(unsafe_code)]

mod boot;
mod journal;
mod load;
mod portion;
mod remains;
mod saving;

pub use boot::{Boot, BootError, FirstWords, Terms};
pub use journal::{HELD_SENDS_MAX, Journal, Journalled, Party, Sorted, is_carried};
pub use portion::Portion;
pub use remains::Remains;
pub use saving::Saving;
