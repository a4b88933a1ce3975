//! The journal of a core whose records the writer's thread makes durable. What waits for what is
//! `durable`'s; who writes is `log_writer`'s.

use crate::log_writer::LogParty;

/// Decides when the effects of one core may be carried out.
pub(crate) type Journal<E> = durable::Journal<E, LogParty>;
