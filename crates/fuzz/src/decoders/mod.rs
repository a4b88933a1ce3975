//! One function per decoder: bytes in, and something wrong is a panic.

pub mod auth;
pub mod base;
pub mod exec;
pub mod proto;
pub mod store;
pub mod text;
pub mod zk;

use std::fmt::Debug;

use ::base::{Malformed, Reader};

use crate::target::Outcome;

/// What every decoder of canonical bytes promises: what is read is written as the same bytes,
/// and these are read as the same value.
fn canonical<T: PartialEq + Debug>(
    bytes: &[u8],
    decode: impl Fn(&mut Reader<'_>) -> Result<T, Malformed>,
    encode: impl Fn(&T, &mut Vec<u8>),
) -> Result<(T, usize), Outcome> {
    let mut reader = Reader::new(bytes);
    let value = decode(&mut reader).map_err(|Malformed(why)| Outcome::of(why))?;
    let used = bytes.len() - reader.rest().len();
    let mut again = Vec::with_capacity(used);
    encode(&value, &mut again);
    assert!(again == bytes[..used], "{value:?} was read from other bytes than are written of it");
    let mut reader = Reader::new(&again);
    assert!(decode(&mut reader).as_ref() == Ok(&value), "{value:?} is read back as another");
    assert!(reader.is_empty(), "{value:?} is read back from fewer bytes");
    Ok((value, used))
}

/// The outcome of a decoder that has accepted: how many bytes, roughly, and what kind of value.
fn accepted(kind: impl std::hash::Hash, used: usize) -> Outcome {
    Outcome::of((kind, used.checked_ilog2()))
}

/// The outcome of one [`canonical`] value, by its kind.
fn told<T>(result: Result<(T, usize), Outcome>) -> Outcome {
    match result {
        Ok((value, used)) => accepted(std::mem::discriminant(&value), used),
        Err(outcome) => outcome,
    }
}

/// `encode` of each of `values`.
fn encoded<T>(values: &[T], encode: impl Fn(&T, &mut Vec<u8>)) -> Vec<Vec<u8>> {
    let one = |value| {
        let mut out = vec![];
        encode(value, &mut out);
        out
    };
    values.iter().map(one).collect()
}
