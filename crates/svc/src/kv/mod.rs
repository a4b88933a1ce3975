//! A key-value service that speaks Redis's commands, replicated.
//!
//! Semantics are those of Redis 7.0, as far as they are deterministic; `docs/redis-commands.md`
//! has the table of commands and the list of differences. Connections, RESP parsing and
//! commands about the connection are the gateway's.
//!
//! How a command is written: a handler `pub fn hlen(c: &mut Call<'_, '_>) -> Outcome` and a row
//! in its module's `pub const COMMANDS: &[CommandSpec]`:
//!
//! ```text
//! CommandSpec {
//!     name: "hlen", arity: 2, flags: READONLY | FAST, keys: Keys::Range(1, 1, 1),
//!     group: Group::Hash, summary: "Returns the number of fields in a hash",
//!     run: Run::Service(hlen),
//! }
//! pub fn hlen(c: &mut Call<'_, '_>) -> Outcome {
//!     let len = c.db.read::<Hash>(c.args[1])?.map_or(0, Hash::len);
//!     c.reply.length(len);
//!     Ok(())
//! }
//! ```
//!
//! Borrowing: `c.args[i]`, `c.db`, `c.ctx` and `c.reply` are separate fields, so a value read
//! from `c.db` can be written to `c.reply` while it is borrowed, and
//! `c.db.write::<Hash>(c.ctx, key)?` works. `read` never marks, `write` and `write_or_new` do:
//! look before you write. After taking elements away: `c.db.drop_if_empty(c.ctx, key)`.
//! Replacing a whole value: `c.db.put(c.ctx, key, set.into(), Expiry::Clear)?`. Any type:
//! `c.db.entry(key)`, `c.db.remove(c.ctx, key)`. `put` and `write_or_new` refuse what the bucket
//! has no room for; who adds by `write`, or takes away before adding, asks `c.db.room` first. What
//! costs more than the bytes of the request and of the reply takes steps from `c.db.work` first.

mod bitfield;
mod bits;
mod bucket;
pub mod call;
pub mod choice;
#[cfg(test)]
mod collection_tests;
pub mod db;
pub mod decimal;
mod expiry;
pub mod glob;
pub mod hash;
pub mod info;
mod keys;
pub mod list;
mod local;
pub mod op;
pub mod reply;
mod room;
#[cfg(test)]
mod room_tests;
pub mod scan;
pub mod service;
pub mod set;
mod shard;
mod siphash;
pub mod slot;
mod strings;
pub mod table;
#[cfg(test)]
mod tests;
pub mod text;
pub mod types;
pub mod value;
pub mod work;
#[cfg(test)]
mod work_tests;
pub mod zset;

pub use service::KvService;

/// Longest string, and longest element or field of a collection, in bytes.
pub const VALUE_BYTES_MAX: usize = base::limits::OP_BYTES_MAX;
