//! What a key holds: one of Redis's five types.
//!
//! Each type offers the same few methods: `new`, `len`, `digest` (cached and hierarchical, so
//! that a small change to a large value costs little), `encode` and `decode` (canonical: equal
//! values give equal bytes, and decoding what was encoded gives an equal digest).

use base::{Digest, Malformed, Reader};

use super::text::Text;
use super::types::{Hash, List, Set, Zset};

/// A value.
#[derive(Clone, Debug)]
pub enum Value {
    /// A byte string.
    String(Text),
    /// Fields with values.
    Hash(Box<Hash>),
    /// A double-ended list.
    List(Box<List>),
    /// Distinct members.
    Set(Box<Set>),
    /// Distinct members, ordered by score.
    Zset(Box<Zset>),
}

impl Value {
    /// The name of the type, as the command TYPE answers.
    #[must_use]
    pub fn type_name(&self) -> &'static str {
        match self {
            Value::String(_) => "string",
            Value::Hash(_) => "hash",
            Value::List(_) => "list",
            Value::Set(_) => "set",
            Value::Zset(_) => "zset",
        }
    }

    /// Whether it is a collection without elements, which cannot stay in the key space.
    #[must_use]
    pub fn is_empty_collection(&self) -> bool {
        match self {
            Value::String(_) => false,
            Value::Hash(hash) => hash.is_empty(),
            Value::List(list) => list.is_empty(),
            Value::Set(set) => set.is_empty(),
            Value::Zset(zset) => zset.is_empty(),
        }
    }

    /// The digest of the contents. Values of different types may have the same one: who uses
    /// it adds the [`Value::tag`].
    pub fn digest(&mut self) -> Digest {
        match self {
            Value::String(text) => text.digest(),
            Value::Hash(hash) => hash.digest(),
            Value::List(list) => list.digest(),
            Value::Set(set) => set.digest(),
            Value::Zset(zset) => zset.digest(),
        }
    }

    /// Bytes that [`Value::encode`] appends, without a walk over the elements.
    #[must_use]
    pub fn encoded_len(&self) -> usize {
        1 + match self {
            Value::String(text) => text.encoded_len(),
            Value::Hash(hash) => hash.encoded_len(),
            Value::List(list) => list.encoded_len(),
            Value::Set(set) => set.encoded_len(),
            Value::Zset(zset) => zset.encoded_len(),
        }
    }

    /// Appends the canonical bytes.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.push(self.tag());
        match self {
            Value::String(text) => text.encode(out),
            Value::Hash(hash) => hash.encode(out),
            Value::List(list) => list.encode(out),
            Value::Set(set) => set.encode(out),
            Value::Zset(zset) => zset.encode(out),
        }
    }

    /// Reads what [`Value::encode`] wrote.
    ///
    /// # Errors
    /// When the bytes are no value.
    pub fn decode(reader: &mut Reader<'_>) -> Result<Value, Malformed> {
        Ok(match reader.u8("type of a value")? {
            1 => Text::decode(reader)?.into(),
            2 => Hash::decode(reader)?.into(),
            3 => List::decode(reader)?.into(),
            4 => Set::decode(reader)?.into(),
            5 => Zset::decode(reader)?.into(),
            _ => return Err(Malformed("type of a value")),
        })
    }

    /// The number of the type, as it is encoded.
    #[must_use]
    pub fn tag(&self) -> u8 {
        match self {
            Value::String(_) => 1,
            Value::Hash(_) => 2,
            Value::List(_) => 3,
            Value::Set(_) => 4,
            Value::Zset(_) => 5,
        }
    }
}

/// A type that a key can hold.
pub trait Kind: Sized + Into<Value> {
    /// An empty one.
    fn empty() -> Self;
    /// The value as this type, if it is of it.
    fn of(value: &Value) -> Option<&Self>;
    /// The value as this type, to be changed.
    fn of_mut(value: &mut Value) -> Option<&mut Self>;
}

macro_rules! kind {
    ($($ty:ident in $variant:ident by $make:expr),*) => {$(
        impl Kind for $ty {
            fn empty() -> Self {
                <$ty>::new()
            }
            fn of(value: &Value) -> Option<&Self> {
                if let Value::$variant(inner) = value { Some(inner) } else { None }
            }
            fn of_mut(value: &mut Value) -> Option<&mut Self> {
                if let Value::$variant(inner) = value { Some(inner) } else { None }
            }
        }

        impl From<$ty> for Value {
            fn from(inner: $ty) -> Value {
                Value::$variant($make(inner))
            }
        }
    )*};
}

kind!(
    Text in String by std::convert::identity,
    Hash in Hash by Box::new,
    List in List by Box::new,
    Set in Set by Box::new,
    Zset in Zset by Box::new
);
