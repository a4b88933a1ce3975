//! The vocabulary of Stylite: the words that every other crate speaks.
//!
//! Identifiers, time, bounds, quorum arithmetic, digests, the bounded wire codec, request
//! frames, batches and replies. Nothing here acts: no protocol step, no execution, no
//! input or output. Keys and signatures appear only as opaque bytes and as the [`Keyring`]
//! trait, which the `auth` crate implements.
//!
//! Pure zone: `no_std` + `alloc`, no clock, thread, socket, randomness, float or hash order.
//! Depends on `blake3` (a vetted `no_std` crate) and on nothing else.

#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;
#[cfg(test)]
extern crate std;

pub mod batch;
pub mod codec;
pub mod crypto;
pub mod digest;
pub mod frame;
pub mod id;
pub mod limits;
pub mod links;
pub mod mutants;
pub mod packet;
pub mod quorum;
pub mod reply;
pub mod route;
pub mod stripe;
pub mod time;
pub mod transfer;

pub use batch::{Batch, BatchEntry};
pub use codec::{Malformed, Reader, Writer};
pub use crypto::{Keyring, Mac, Signature};
pub use digest::Digest;
pub use frame::{Authenticator, Frame, FrameBuilder, FrameId, FrameKind, OpPlace};
pub use id::{ClientId, Epoch, GroupId, Incarnation, PillarId, ReplicaId, Seq, SessionId, View};
pub use links::{FromStage, Progress, Sibling, StableCheckpoint, ToStage};
pub use quorum::{Quorums, VoteSet};
pub use reply::{Reply, ReplyStatus};
pub use route::{Route, Routing};
pub use stripe::Stripe;
pub use time::{AgreedTime, Now, Span, Time};
