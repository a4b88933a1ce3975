//! The one table of commands: dispatch, arity, COMMAND and the documentation are read off it.
//!
//! Rows live with their handlers, one constant `COMMANDS` per module; this module joins them.

use std::sync::LazyLock;

use super::call::Handler;
use super::{bitfield, bits, expiry, hash, keys, list, local, set, strings, zset};

/// A set of [`flags`].
pub type Flags = u16;

/// What a command is like, as COMMAND tells.
pub mod flags {
    use super::Flags;
    /// May change data.
    pub const WRITE: Flags = 1;
    /// Does not change data.
    pub const READONLY: Flags = 2;
    /// May use more memory.
    pub const DENYOOM: Flags = 4;
    /// Constant or logarithmic time.
    pub const FAST: Flags = 8;
    /// Is about the server or connection; not allowed in scripts.
    pub const NOSCRIPT: Flags = 16;
    /// Allowed while loading.
    pub const LOADING: Flags = 32;
    /// Allowed on a stale replica.
    pub const STALE: Flags = 64;
    /// Allowed before authentication.
    pub const NO_AUTH: Flags = 128;
    /// Not allowed inside MULTI.
    pub const NO_MULTI: Flags = 256;
    /// For administrators.
    pub const ADMIN: Flags = 512;
    /// Keys are found by a count among the arguments.
    pub const MOVABLEKEYS: Flags = 1024;
}

/// Which arguments are keys.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Keys {
    /// None.
    None,
    /// From `first` to `last` (negative counts from the end) in steps of `step`.
    Range(i8, i8, i8),
    /// The argument at this index says how many keys follow it; with `store`, argument 1 is a
    /// key too.
    Counted {
        /// Index of the count.
        at: u8,
        /// Whether argument 1 is the destination.
        store: bool,
    },
}

/// Which chapter of the documentation a command is in.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Group {
    /// Strings.
    String,
    /// Bits of strings.
    Bitmap,
    /// Keys of any type.
    Generic,
    /// Hashes.
    Hash,
    /// Lists.
    List,
    /// Sets.
    Set,
    /// Sorted sets.
    SortedSet,
    /// MULTI and its kin.
    Transactions,
    /// The connection.
    Connection,
    /// The server.
    Server,
}

/// Who answers a command.
#[derive(Clone, Copy)]
pub enum Run {
    /// The replicated service, by this handler.
    Service(Handler),
    /// The gateway, without asking the group, or by asking it for something else.
    Gateway,
}

/// A row of the table.
#[derive(Clone, Copy)]
pub struct CommandSpec {
    /// The name, in lower case.
    pub name: &'static str,
    /// Number of arguments with the name; negative: at least that many.
    pub arity: i8,
    /// See [`flags`].
    pub flags: Flags,
    /// Which arguments are keys.
    pub keys: Keys,
    /// The chapter.
    pub group: Group,
    /// One sentence, without a full stop.
    pub summary: &'static str,
    /// Who answers.
    pub run: Run,
}

/// Makes a module's `COMMANDS`: `group: name arity flags keys handler summary; …`.
macro_rules! commands {
    ($group:ident: $($name:literal $arity:literal, $flags:expr, $keys:expr, $run:expr,
        $summary:literal;)*) => {
        /// The commands of this module.
        pub const COMMANDS: &[$crate::kv::table::CommandSpec] = &[
            $($crate::kv::table::CommandSpec {
                name: $name,
                arity: $arity,
                flags: $flags,
                keys: $keys,
                group: $crate::kv::table::Group::$group,
                summary: $summary,
                run: $run,
            }),*
        ];
    };
}
pub(super) use commands;

impl Keys {
    /// The first argument is the only key.
    pub const FIRST: Keys = Keys::Range(1, 1, 1);
    /// The first two arguments are keys.
    pub const TWO: Keys = Keys::Range(1, 2, 1);
    /// All arguments are keys.
    pub const ALL: Keys = Keys::Range(1, -1, 1);
    /// Keys and values alternate.
    pub const PAIRS: Keys = Keys::Range(1, -1, 2);
}

impl CommandSpec {
    /// Whether `args` arguments, the name included, are the right number.
    #[must_use]
    pub fn takes(&self, args: usize) -> bool {
        let wanted = usize::from(self.arity.unsigned_abs());
        if self.arity < 0 { args >= wanted } else { args == wanted }
    }
}

/// The rows, and where to find a name among them.
struct Table {
    /// Sorted by name.
    rows: Vec<CommandSpec>,
    /// Open addressing by [`name_hash`]; 0 is free, otherwise an index plus one.
    places: Vec<u16>,
}

/// Places in the hash table: some four times the number of commands.
const PLACES: usize = 1024;

static TABLE: LazyLock<Table> = LazyLock::new(|| {
    let modules: &[&[CommandSpec]] = &[
        strings::COMMANDS,
        bits::COMMANDS,
        bitfield::COMMANDS,
        keys::COMMANDS,
        expiry::COMMANDS,
        hash::COMMANDS,
        list::COMMANDS,
        set::COMMANDS,
        zset::COMMANDS,
    ];
    let mut rows: Vec<CommandSpec> = [modules, local::COMMANDS].concat().concat();
    rows.sort_by_key(|row| row.name);
    let mut places = vec![0; PLACES];
    for (index, row) in rows.iter().enumerate() {
        let mut place = name_hash(row.name.as_bytes());
        while places[place % PLACES] != 0 {
            place += 1;
        }
        places[place % PLACES] = index as u16 + 1;
    }
    Table { rows, places }
});

fn name_hash(name: &[u8]) -> usize {
    let mix = |hash: u32, byte: &u8| (hash ^ u32::from(byte | 0x20)).wrapping_mul(0x0100_0193);
    let hash = name.iter().fold(0x811c_9dc5, mix);
    (hash ^ hash >> 15) as usize
}

/// Every command, sorted by name.
#[must_use]
pub fn all() -> &'static [CommandSpec] {
    &TABLE.rows
}

/// The command of that name, in any case.
#[must_use]
pub fn lookup(name: &[u8]) -> Option<&'static CommandSpec> {
    // The longest names have 17 bytes; hashing more would be the client's choice.
    if name.len() > 32 {
        return None;
    }
    let table = &*TABLE;
    let mut place = name_hash(name);
    loop {
        let index = usize::from(table.places[place % PLACES]).checked_sub(1)?;
        let row = &table.rows[index];
        if name.eq_ignore_ascii_case(row.name.as_bytes()) {
            return Some(row);
        }
        place += 1;
    }
}

/// The error for a command that is not in the table. `args` is not empty.
#[must_use]
pub fn unknown_command(args: &[&[u8]]) -> Vec<u8> {
    let mut text = b"ERR unknown command '".to_vec();
    text.extend_from_slice(c_string(args[0], 128));
    text.extend_from_slice(b"', with args beginning with: ");
    let start = text.len();
    for arg in &args[1..] {
        let left = 128usize.saturating_sub(text.len() - start);
        if left == 0 {
            break;
        }
        text.push(b'\'');
        text.extend_from_slice(c_string(arg, left));
        text.extend_from_slice(b"' ");
    }
    text
}

/// The error for a command with the wrong number of arguments.
#[must_use]
pub fn wrong_arity(spec: &CommandSpec) -> Vec<u8> {
    format!("ERR wrong number of arguments for '{}' command", spec.name).into_bytes()
}

/// At most `max` bytes of `bytes`, and none from the first zero byte on.
fn c_string(bytes: &[u8], max: usize) -> &[u8] {
    let bytes = &bytes[..bytes.len().min(max)];
    &bytes[..memchr::memchr(0, bytes).unwrap_or(bytes.len())]
}
