//! Byte rings in shared memory, between processes of one host that do not trust each other.
//!
//! ```text
//!   dialler                         one sealed memory file                     listener
//!  ┌──────────┐   write  ┌─────────────────────────────────────┐  read   ┌──────────┐
//!  │ Channel  ├─────────►│ indices │ bytes, from the dialler   ├────────►│ Channel  │
//!  │          │◄─────────┤ indices │ bytes, from the listener  │◄────────┤          │
//!  └────┬─────┘   read   └─────────────────────────────────────┘  write  └────┬─────┘
//!       └───────── UNIX socket: the file at first, then bells ────────────────┘
//! ```
//!
//! The dialler makes the file, which has no name, and hands it over the socket. The socket's
//! life is the connection's; a byte on it is a bell, rung only for a reader that sleeps, or a
//! writer that waits for room.
//!
//! The other end may be malicious and may write anything anywhere in the file at any time.
//! 1. The file cannot shrink, so no access faults: that is sealed, and the receiver checks it.
//! 2. An index that is read is checked against our own before it is used: what cannot be ends
//!    the connection ([`Broken`]), and nothing is ever accessed beyond the ring.
//! 3. Bytes are copied out before anybody looks at them; all accesses are atomic words.
//!
//! What it is not: packets, seals, polls. `unsafe` is in `region` alone.

#![deny(unsafe_code)]

mod channel;
mod handoff;
#[cfg(all(test, loom))]
mod models;
#[allow(unsafe_code, reason = "the one place where mapped memory becomes words")]
mod region;
mod ring;
mod sync;

pub use channel::{Channel, Moved};
pub use handoff::{offer, take};
pub use region::{RING_BYTES, Region, RegionError};
pub use ring::{Broken, Memory};
