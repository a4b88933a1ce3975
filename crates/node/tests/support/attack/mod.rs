//! Attacks on a group of real processes under honest load: what the honest clients still get, as
//! a share of what they get undisturbed in the same run.
//!
//! | module | has |
//! |---|---|
//! | [`arena`] | the group, the phases and the figures |
//! | [`honest`] | the clients that are measured |
//! | [`hostile`] | a client's real keys in the wrong hands |
//! | [`squad`] | attackers that can be called back |
//! | [`floods`] | attackers that send as much as they can |
//! | [`cores`] | who runs where |
//!
//! Whoever uses it has `support/cluster.rs`, `support/soak.rs` and `support/chaos/mod.rs` at the
//! root of the test.

// Each test binary uses its own part of this.
#![allow(dead_code)]

pub mod arena;
pub mod cores;
pub mod floods;
pub mod honest;
pub mod hostile;
pub mod squad;

pub use arena::{Arena, Case, Load};
pub use hostile::Villain;
pub use squad::Squad;
