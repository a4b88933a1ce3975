//! Model checking: small worlds around the production functions, explored in full.
//!
//! A model is a scope so small that everything which can happen in it is tried: every order of
//! messages, every lie. What it calls is the shipped code, not a description of it. Each model
//! has variants with a planted bug, which the exploration must find: see `tests`. The numbers of
//! states stand in `docs/testing.md`.
//!
//! What it is not: the simulator, which draws from a far larger space and never sees all of it.
//! It may depend on `base`, `proto` and `exec`; nothing depends on it.
//!
//! | module | topic |
//! |---|---|
//! | `explore` | trying everything, and the shortest way to what is wrong |
//! | `views` | what VIEW-CHANGEs decide: P and Q over three views, with a lying replica |
//! | `barrier` | the lanes and the coordinator of a replica that leaves a view |
//! | `window` | a client's window and the client table, over a network that repeats and reorders |

#![forbid(unsafe_code)]

pub mod barrier;
pub mod explore;
pub mod views;
pub mod window;
