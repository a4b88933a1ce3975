//! What a coordinator must not forget.

use alloc::sync::Arc;
use alloc::vec::Vec;

use base::{Malformed, Reader, StableCheckpoint, View, Writer};

use super::evidence::Proof;
use super::msg::{NewView, Recover};
use super::wire;

/// A record of the coordinator in the vote log.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum GroupRecord {
    /// This replica votes in no view below `view` any more: written before VIEW-CHANGE leaves.
    Left {
        /// The view that it asks for.
        view: View,
    },
    /// This replica votes in the NEW-VIEW's view: written before the first vote in it leaves.
    Installed(Arc<NewView>),
    /// A RECOVER that this replica has acknowledged: written before the acknowledgement leaves.
    Recover(Recover),
    /// A checkpoint that is stable here: records at or below it are needed no more once it is
    /// on disk.
    Stable(StableCheckpoint),
    /// From here on this life may vote above `stable`: written when recovery ends.
    Recovered {
        /// The checkpoint beyond everything that may have been forgotten.
        stable: StableCheckpoint,
    },
    /// Not a promise, only worth keeping: a replica is proven faulty.
    Proof(Arc<Proof>),
}

impl GroupRecord {
    /// Appends the record: a type byte, then its fields.
    pub fn encode(&self, out: &mut Vec<u8>) {
        match self {
            GroupRecord::Left { view } => {
                Writer::new(out).u8(1).u64(view.0);
            }
            GroupRecord::Installed(nv) => {
                Writer::new(out).u8(2);
                wire::encode_new_view(nv, out);
            }
            GroupRecord::Recover(recover) => {
                Writer::new(out).u8(3);
                wire::encode_recover(recover, out);
            }
            GroupRecord::Stable(stable) => {
                Writer::new(out).u8(4);
                wire::encode_stable(stable, out);
            }
            GroupRecord::Recovered { stable } => {
                Writer::new(out).u8(5);
                wire::encode_stable(stable, out);
            }
            GroupRecord::Proof(proof) => {
                Writer::new(out).u8(6);
                proof.encode(out);
            }
        }
    }

    /// Reads one record.
    ///
    /// # Errors
    /// When the bytes are no record within the limits.
    pub fn decode(r: &mut Reader<'_>) -> Result<GroupRecord, Malformed> {
        Ok(match r.u8("group record type")? {
            1 => GroupRecord::Left { view: wire::decode_view(r)? },
            2 => GroupRecord::Installed(Arc::new(wire::decode_new_view(r)?)),
            3 => GroupRecord::Recover(wire::decode_recover(r)?),
            4 => GroupRecord::Stable(wire::decode_stable(r)?),
            5 => GroupRecord::Recovered { stable: wire::decode_stable(r)? },
            6 => GroupRecord::Proof(Arc::new(Proof::decode(r)?)),
            _ => return Err(Malformed("group record type")),
        })
    }
}
