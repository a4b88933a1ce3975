//! The messages between the coordinators of different replicas. They travel on the links of
//! pillar 0. What must convince third parties is signed. Steps: `docs/protocol/view-change.md`
//! and `docs/protocol/recovery.md`.

use alloc::sync::Arc;
use alloc::vec::Vec;

use base::{
    Digest, GroupId, Incarnation, Malformed, Reader, ReplicaId, Seq, Signature, StableCheckpoint,
    View, Writer, limits,
};

use super::evidence::Proof;
use super::link::SliceEntry;
use super::roster::Roster;
use super::wire;

/// VIEW-CHANGE: what one replica has promised, as it leaves all views below `view`. Signed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ViewChange {
    /// Who.
    pub replica: ReplicaId,
    /// This life of its process: an older life's VIEW-CHANGE is void once a RECOVER of a newer
    /// one is known (design §3.10).
    pub incarnation: Incarnation,
    /// The view that it asks for.
    pub view: View,
    /// Its last stable checkpoint, with the certificate.
    pub stable: StableCheckpoint,
    /// P and Q above that, over all pillars, ascending.
    pub entries: Vec<SliceEntry>,
    /// What its sender says about leaders, where they rotate.
    pub roster: Roster,
    /// Over everything above.
    pub signature: Signature,
}

/// NEW-VIEW: the leader's choice of VIEW-CHANGEs. What follows from them is computed by everyone.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NewView {
    /// The view that begins.
    pub view: View,
    /// VIEW-CHANGEs for it from a quorum of distinct replicas, ascending.
    pub changes: Vec<Arc<ViewChange>>,
    /// The leader's, over the view and the digests of all of them.
    pub signature: Signature,
}

/// RECOVER: this life of the replica may have forgotten votes of the lives before, and has not
/// voted yet. VIEW-CHANGEs of those lives for views above `view` are void. Signed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Recover {
    /// Who.
    pub replica: ReplicaId,
    /// Its new life.
    pub incarnation: Incarnation,
    /// The view that it has installed: it will vote in none below.
    pub view: View,
    /// Over all three.
    pub signature: Signature,
}

/// A message of a coordinator to the coordinators of other replicas.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum GroupMessage {
    /// The sender wants to be in `view` at least; with its installed view, so that whoever is
    /// ahead can help. Also the heartbeat.
    Wish {
        /// The highest view that the sender wishes for.
        wish: View,
        /// The view that it votes in, or voted in last.
        installed: View,
        /// Whether it may have forgotten votes and does not vote for now.
        recovering: bool,
    },
    /// VIEW-CHANGE.
    ViewChange(Arc<ViewChange>),
    /// NEW-VIEW.
    NewView(Arc<NewView>),
    /// RECOVER.
    Recover(Recover),
    /// The answer to a RECOVER, and the word that older lives' VIEW-CHANGEs are void here.
    RecoverAck {
        /// The life that is answered.
        incarnation: Incarnation,
        /// The view of the RECOVER that is answered.
        view: View,
        /// The view that the sender votes in: the answer counts once its NEW-VIEW is here.
        installed: View,
        /// The sender's last stable checkpoint.
        stable: StableCheckpoint,
        /// Every RECOVER that it knows, one per replica: so that none is forgotten by all.
        known: Vec<Recover>,
        /// Whether the sender recovers, too, and may have forgotten.
        recovering: bool,
    },
    /// The sender waits for a stable checkpoint at or beyond this number: to vote again, or to
    /// fetch it.
    Seek(Seq),
    /// The sender wants to fetch a checkpoint: keep one.
    WantCheckpoint {
        /// What the sender has executed: it needs one above that.
        have: Seq,
        /// Which one would be best.
        want: Seq,
        /// The highest checkpoint that it knows to be certified: it may be the only one that has
        /// heard from a quorum.
        stable: StableCheckpoint,
    },
    /// The sender holds this checkpoint readable.
    HaveCheckpoint(StableCheckpoint),
    /// A replica is proven faulty.
    Evidence(Arc<Proof>),
    /// The sender's execution rests, and it holds the state that it is in readable. Believed
    /// when a weak quorum says the same.
    HaveState {
        /// What it has executed.
        seq: Seq,
        /// The digest of the whole state.
        digest: Digest,
        /// The sender's, as in a CHECKPOINT.
        signature: Signature,
        /// The highest checkpoint that it knows to be certified, at or below `seq`.
        stable: StableCheckpoint,
    },
}

impl GroupMessage {
    /// Appends the message: a type byte, then its fields.
    pub fn encode(&self, out: &mut Vec<u8>) {
        match self {
            GroupMessage::Wish { wish, installed, recovering } => {
                Writer::new(out).u8(1).u64(wish.0).u64(installed.0).u8(u8::from(*recovering));
            }
            GroupMessage::ViewChange(change) => {
                Writer::new(out).u8(2);
                wire::encode_change(change, out);
            }
            GroupMessage::NewView(nv) => {
                Writer::new(out).u8(3);
                wire::encode_new_view(nv, out);
            }
            GroupMessage::Recover(recover) => {
                Writer::new(out).u8(4);
                wire::encode_recover(recover, out);
            }
            GroupMessage::RecoverAck {
                incarnation,
                view,
                installed,
                stable,
                known,
                recovering,
            } => {
                Writer::new(out).u8(5).u64(incarnation.0).u64(view.0).u64(installed.0);
                wire::encode_stable(stable, out);
                Writer::new(out).count(known.len());
                known.iter().for_each(|recover| wire::encode_recover(recover, out));
                Writer::new(out).u8(u8::from(*recovering));
            }
            GroupMessage::Seek(seq) => {
                Writer::new(out).u8(6).u64(seq.0);
            }
            GroupMessage::WantCheckpoint { have, want, stable } => {
                Writer::new(out).u8(7).u64(have.0).u64(want.0);
                wire::encode_stable(stable, out);
            }
            GroupMessage::HaveCheckpoint(stable) => {
                Writer::new(out).u8(8);
                wire::encode_stable(stable, out);
            }
            GroupMessage::Evidence(proof) => {
                Writer::new(out).u8(9);
                proof.encode(out);
            }
            GroupMessage::HaveState { seq, digest, signature, stable } => {
                Writer::new(out).u8(10).u64(seq.0).digest(*digest).bytes(&signature.0);
                wire::encode_stable(stable, out);
            }
        }
    }

    /// Reads one message. Nothing in it is believed yet: no signature is verified here.
    ///
    /// # Errors
    /// When the bytes are no message within the limits.
    pub fn decode(_group: GroupId, r: &mut Reader<'_>) -> Result<GroupMessage, Malformed> {
        let message = match r.u8("group message type")? {
            1 => GroupMessage::Wish {
                wish: wire::decode_view(r)?,
                installed: wire::decode_view(r)?,
                recovering: decode_bool(r)?,
            },
            2 => GroupMessage::ViewChange(Arc::new(wire::decode_change(r)?)),
            3 => GroupMessage::NewView(Arc::new(wire::decode_new_view(r)?)),
            4 => GroupMessage::Recover(wire::decode_recover(r)?),
            5 => decode_ack(r)?,
            6 => GroupMessage::Seek(decode_seq(r)?),
            7 => GroupMessage::WantCheckpoint {
                have: decode_seq(r)?,
                want: decode_seq(r)?,
                stable: wire::decode_stable(r)?,
            },
            8 => GroupMessage::HaveCheckpoint(wire::decode_stable(r)?),
            9 => GroupMessage::Evidence(Arc::new(Proof::decode(r)?)),
            10 => GroupMessage::HaveState {
                seq: decode_seq(r)?,
                digest: r.digest("state digest")?,
                signature: Signature(r.array("state signature")?),
                stable: wire::decode_stable(r)?,
            },
            _ => return Err(Malformed("group message type")),
        };
        Ok(message)
    }

    /// Bytes of [`GroupMessage::encode`], or a little more.
    #[must_use]
    pub fn encoded_len_max(&self) -> usize {
        match self {
            GroupMessage::ViewChange(change) => 1 + wire::change_len(change),
            GroupMessage::NewView(nv) => 1 + wire::new_view_len(nv),
            GroupMessage::RecoverAck { stable, known, .. } => {
                64 + wire::stable_len(stable) + known.len() * wire::RECOVER_BYTES
            }
            GroupMessage::HaveCheckpoint(stable) => 1 + wire::stable_len(stable),
            GroupMessage::Evidence(proof) => 1 + proof.encoded_len(),
            GroupMessage::HaveState { stable, .. }
            | GroupMessage::WantCheckpoint { stable, .. } => 128 + wire::stable_len(stable),
            _ => 96,
        }
    }
}

fn decode_ack(r: &mut Reader<'_>) -> Result<GroupMessage, Malformed> {
    let incarnation = Incarnation(r.u64("acknowledged incarnation")?);
    let (view, installed) = (wire::decode_view(r)?, wire::decode_view(r)?);
    let stable = wire::decode_stable(r)?;
    let count = r.count(limits::REPLICAS_MAX, wire::RECOVER_BYTES, "known recoveries")?;
    let mut known = Vec::with_capacity(count);
    for _ in 0..count {
        known.push(wire::decode_recover(r)?);
    }
    let recovering = decode_bool(r)?;
    Ok(GroupMessage::RecoverAck { incarnation, view, installed, stable, known, recovering })
}

fn decode_seq(r: &mut Reader<'_>) -> Result<Seq, Malformed> {
    Ok(Seq(wire::below_half(r.u64("sequence number")?, "sequence number")?))
}

fn decode_bool(r: &mut Reader<'_>) -> Result<bool, Malformed> {
    match r.u8("flag")? {
        0 => Ok(false),
        1 => Ok(true),
        _ => Err(Malformed("flag")),
    }
}
