//! The bytes of what coordinators sign and send: certificates, VIEW-CHANGE, NEW-VIEW, RECOVER.
//!
//! Canonical: one value, one byte string. Bounds are checked before anything is allocated. What
//! is decoded may still be nonsense: a signed VIEW-CHANGE that breaks the rules is evidence, and
//! can only become that when it was read. The rules are in `rules`.

use alloc::sync::Arc;
use alloc::vec::Vec;

use base::{
    Digest, Incarnation, Malformed, Quorums, Reader, ReplicaId, Seq, Signature, StableCheckpoint,
    View, Writer, limits,
};

use super::link::{PRE_PREPARED_MAX, SliceEntry};
use super::msg::{NewView, Recover, ViewChange};
use super::roster::Roster;

/// Bytes of one signature of a certificate.
const SIGNER_BYTES: usize = 2 + 64;
/// Most bytes of a certificate with `signers` signatures.
const fn certificate_bytes(signers: usize) -> usize {
    8 + 32 + 4 + signers * SIGNER_BYTES
}
/// Fewest bytes of an entry: number, no P, no Q.
const ENTRY_BYTES_MIN: usize = 8 + 1 + 1;
/// Bytes of one view and digest.
const PAIR_BYTES: usize = 8 + 32;
/// Most bytes of an entry.
const ENTRY_BYTES_MAX: usize = ENTRY_BYTES_MIN + (1 + PRE_PREPARED_MAX) * PAIR_BYTES;
/// The bit of a VIEW-CHANGE's view that says that a roster follows its entries.
const ROSTER: u64 = 1 << 63;
/// What the seal, the packet's header and the message's own fields take of a packet.
const PACKET_OVERHEAD_BYTES: usize = 4096;
/// Most entries of all the VIEW-CHANGEs in one packet, for [`window_fits`] keeps them below.
const ENTRIES_MAX: usize = limits::REPLICA_PACKET_BYTES_MAX / ENTRY_BYTES_MAX;

/// Whether every VIEW-CHANGE and every NEW-VIEW of a group of this size with a window of
/// `window` numbers fits into one packet. A group in which it does not could not change views
/// once its window is full.
#[must_use]
pub fn window_fits(quorums: Quorums, window: u64) -> bool {
    let n = usize::from(quorums.n());
    let change = (2 + 8 + 8 + certificate_bytes(n) + 4 + Roster::len_max(n) + 64) as u64;
    let entries = window.saturating_mul(ENTRY_BYTES_MAX as u64);
    let all = entries.saturating_add(change).saturating_mul(n as u64);
    all <= (limits::REPLICA_PACKET_BYTES_MAX - PACKET_OVERHEAD_BYTES) as u64
}

/// Appends a checkpoint with its certificate.
pub fn encode_stable(stable: &StableCheckpoint, out: &mut Vec<u8>) {
    let mut w = Writer::new(out);
    w.u64(stable.seq.0).digest(stable.digest).count(stable.proof.len());
    for (signer, signature) in stable.proof.iter() {
        w.u16(signer.0).bytes(&signature.0);
    }
}

/// Reads a checkpoint with its certificate, which nobody has verified yet.
///
/// # Errors
/// When the bytes are none within the limits.
pub fn decode_stable(r: &mut Reader<'_>) -> Result<StableCheckpoint, Malformed> {
    let seq = Seq(below_half(r.u64("certificate number")?, "certificate number")?);
    let digest = r.digest("certificate digest")?;
    let count = r.count(limits::REPLICAS_MAX, SIGNER_BYTES, "certificate signers")?;
    let mut proof = Vec::with_capacity(count);
    for _ in 0..count {
        let signer = ReplicaId(r.u16("certificate signer")?);
        proof.push((signer, Signature(r.array("certificate signature")?)));
    }
    Ok(StableCheckpoint { seq, digest, proof: Arc::new(proof) })
}

/// Bytes of [`encode_stable`].
pub(super) fn stable_len(stable: &StableCheckpoint) -> usize {
    certificate_bytes(stable.proof.len())
}

/// Appends everything of a VIEW-CHANGE but its signature: what the signature is over.
pub(super) fn encode_change_body(change: &ViewChange, out: &mut Vec<u8>) {
    // Nothing about leaders takes no room, and the same bytes as before there was a roster.
    let flag = if change.roster.is_empty() { 0 } else { ROSTER };
    Writer::new(out).u16(change.replica.0).u64(change.incarnation.0).u64(change.view.0 | flag);
    encode_stable(&change.stable, out);
    let mut w = Writer::new(out);
    w.count(change.entries.len());
    for entry in &change.entries {
        w.u64(entry.seq.0).u8(u8::from(entry.prepared.is_some()));
        if let Some((view, digest)) = entry.prepared {
            w.u64(view.0).digest(digest);
        }
        w.u8(u8::try_from(entry.pre_prepared.len()).expect("lanes cap Q far below 256"));
        for (view, digest) in &entry.pre_prepared {
            w.u64(view.0).digest(*digest);
        }
    }
    if !change.roster.is_empty() {
        change.roster.encode(out);
    }
}

pub(super) fn encode_change(change: &ViewChange, out: &mut Vec<u8>) {
    encode_change_body(change, out);
    Writer::new(out).bytes(&change.signature.0);
}

/// Bytes of [`encode_change`].
pub(super) fn change_len(change: &ViewChange) -> usize {
    let pairs =
        |entry: &SliceEntry| entry.pre_prepared.len() + usize::from(entry.prepared.is_some());
    let entries: usize =
        change.entries.iter().map(|e| ENTRY_BYTES_MIN + pairs(e) * PAIR_BYTES).sum();
    let roster = if change.roster.is_empty() { 0 } else { change.roster.encoded_len() };
    2 + 8 + 8 + stable_len(&change.stable) + 4 + entries + roster + 64
}

/// Reads one VIEW-CHANGE; `room` is how many entries the packet may still hold.
fn decode_change_within(r: &mut Reader<'_>, room: &mut usize) -> Result<ViewChange, Malformed> {
    let replica = ReplicaId(r.u16("view-change sender")?);
    let incarnation = Incarnation(r.u64("view-change incarnation")?);
    let said = r.u64("view-change view")?;
    let view = View(below_half(said & !ROSTER, "view")?);
    let stable = decode_stable(r)?;
    let count = r.count(*room, ENTRY_BYTES_MIN, "view-change entries")?;
    *room -= count;
    let mut entries = Vec::with_capacity(count);
    for _ in 0..count {
        entries.push(decode_entry(r)?);
    }
    let roster = if said & ROSTER == 0 { Roster::default() } else { Roster::decode(r)? };
    if roster.is_empty() != (said & ROSTER == 0) {
        return Err(Malformed("empty roster"));
    }
    let signature = Signature(r.array("view-change signature")?);
    Ok(ViewChange { replica, incarnation, view, stable, entries, roster, signature })
}

pub(super) fn decode_change(r: &mut Reader<'_>) -> Result<ViewChange, Malformed> {
    decode_change_within(r, &mut { ENTRIES_MAX })
}

fn decode_entry(r: &mut Reader<'_>) -> Result<SliceEntry, Malformed> {
    let seq = Seq(below_half(r.u64("entry number")?, "entry number")?);
    let prepared = match r.u8("entry flag")? {
        0 => None,
        1 => Some(decode_pair(r)?),
        _ => return Err(Malformed("entry flag")),
    };
    let count = usize::from(r.u8("entry digests")?);
    if count > PRE_PREPARED_MAX {
        return Err(Malformed("entry digests"));
    }
    let mut pre_prepared = Vec::with_capacity(count);
    for _ in 0..count {
        pre_prepared.push(decode_pair(r)?);
    }
    Ok(SliceEntry { seq, prepared, pre_prepared })
}

fn decode_pair(r: &mut Reader<'_>) -> Result<(View, Digest), Malformed> {
    Ok((View(r.u64("entry view")?), r.digest("entry digest")?))
}

/// Views on the wire stay far from overflow.
pub(super) fn decode_view(r: &mut Reader<'_>) -> Result<View, Malformed> {
    Ok(View(below_half(r.u64("view")?, "view")?))
}

/// Numbers and views on the wire stay far from overflow.
pub(super) fn below_half(value: u64, what: &'static str) -> Result<u64, Malformed> {
    (value <= u64::MAX >> 1).then_some(value).ok_or(Malformed(what))
}

pub(super) fn encode_new_view(nv: &NewView, out: &mut Vec<u8>) {
    Writer::new(out).u64(nv.view.0).count(nv.changes.len());
    for change in &nv.changes {
        encode_change(change, out);
    }
    Writer::new(out).bytes(&nv.signature.0);
}

/// Bytes of [`encode_new_view`].
pub(super) fn new_view_len(nv: &NewView) -> usize {
    8 + 4 + nv.changes.iter().map(|c| change_len(c)).sum::<usize>() + 64
}

pub(super) fn decode_new_view(r: &mut Reader<'_>) -> Result<NewView, Malformed> {
    let view = decode_view(r)?;
    let change_bytes_min = 2 + 8 + 8 + certificate_bytes(0) + 4 + 64;
    let count = r.count(limits::REPLICAS_MAX, change_bytes_min, "new-view size")?;
    let mut changes = Vec::with_capacity(count);
    let mut room = ENTRIES_MAX;
    for _ in 0..count {
        changes.push(Arc::new(decode_change_within(r, &mut room)?));
    }
    Ok(NewView { view, changes, signature: Signature(r.array("new-view signature")?) })
}

/// Bytes of [`encode_recover`].
pub(super) const RECOVER_BYTES: usize = 2 + 8 + 8 + 64;

pub(super) fn encode_recover(recover: &Recover, out: &mut Vec<u8>) {
    let mut w = Writer::new(out);
    w.u16(recover.replica.0).u64(recover.incarnation.0).u64(recover.view.0);
    w.bytes(&recover.signature.0);
}

pub(super) fn decode_recover(r: &mut Reader<'_>) -> Result<Recover, Malformed> {
    Ok(Recover {
        replica: ReplicaId(r.u16("recover sender")?),
        incarnation: Incarnation(r.u64("recover incarnation")?),
        view: decode_view(r)?,
        signature: Signature(r.array("recover signature")?),
    })
}
