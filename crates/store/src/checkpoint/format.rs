//! The bytes of a checkpoint file: its head, and what stands before each object.

use std::path::Path;
use std::sync::Arc;

use base::limits::REPLICAS_MAX;
use base::transfer::{Manifest, Part};
use base::{Digest, GroupId, Reader, ReplicaId, Seq, Signature, StableCheckpoint, Writer};

use super::CheckpointHead;
use crate::FORMAT_VERSION;
use crate::error::StoreError;
use crate::life::check_version;

/// Bytes of the head, at both ends of the file.
pub(super) const HEAD_BYTES: usize = 8 << 10;
/// Bytes before each object.
pub(super) const SECTION_BYTES: usize = 32;
/// How a section begins, behind its checksum.
pub(super) const SECTION_MAGIC: [u8; 4] = *b"SOBJ";

const MAGIC: [u8; 8] = *b"STYLCKPT";
/// Of what stands in front of the certificate, and the most that a certificate takes.
const _: () = assert!(256 + REPLICAS_MAX * 66 <= HEAD_BYTES);

/// What stands before an object.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Section {
    pub part: Part,
    pub number: u32,
    pub len: u64,
    /// The checksum of its bytes.
    pub sum: u32,
}

/// The head as it stands in the file, padded.
pub(super) fn encode_head(head: &CheckpointHead) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(HEAD_BYTES);
    let mut w = Writer::new(&mut bytes);
    w.u32(0).bytes(&MAGIC).u16(FORMAT_VERSION).bytes(&head.group.0);
    w.u64(head.file_bytes).u64(head.service_objects).u64(head.session_objects);
    w.u64(head.object_bytes);
    head.manifest.encode(&mut bytes);
    let mut w = Writer::new(&mut bytes);
    let certificate = &head.certificate;
    w.u64(certificate.seq.0).digest(certificate.digest).count(certificate.proof.len());
    for (replica, signature) in certificate.proof.iter() {
        w.u16(replica.0).bytes(&signature.0);
    }
    bytes.resize(HEAD_BYTES, 0);
    let sum = crc32c::crc32c(&bytes[4..]);
    bytes[..4].copy_from_slice(&sum.to_le_bytes());
    bytes
}

/// Reads a head; none when it is damaged.
pub(super) fn decode_head(bytes: &[u8], path: &Path) -> Result<Option<CheckpointHead>, StoreError> {
    let Some((sum, rest)) = bytes.split_first_chunk::<4>() else { return Ok(None) };
    let mut r = Reader::new(rest);
    if bytes.len() != HEAD_BYTES || u32::from_le_bytes(*sum) != crc32c::crc32c(rest) {
        return Ok(None);
    }
    let mut start = || Some((r.array::<8>("magic").ok()?, r.u16("version").ok()?));
    let Some((MAGIC, version)) = start() else { return Ok(None) };
    check_version(path, version)?;
    let mut rest = || {
        let group = GroupId(r.array("group").ok()?);
        let file_bytes = r.u64("file bytes").ok()?;
        let service_objects = r.u64("service objects").ok()?;
        let session_objects = r.u64("session objects").ok()?;
        let object_bytes = r.u64("object bytes").ok()?;
        let manifest = Manifest::decode(&mut r).ok()?;
        let certificate = decode_certificate(&mut r)?;
        let path = path.to_path_buf();
        Some(CheckpointHead {
            path,
            group,
            manifest,
            certificate,
            service_objects,
            session_objects,
            object_bytes,
            file_bytes,
        })
    };
    Ok(rest().filter(|head| agrees(head).is_ok()))
}

fn decode_certificate(r: &mut Reader<'_>) -> Option<StableCheckpoint> {
    let seq = Seq(r.u64("certificate number").ok()?);
    let digest: Digest = r.digest("certificate digest").ok()?;
    let count = r.count(REPLICAS_MAX, 66, "signatures").ok()?;
    let mut proof = Vec::with_capacity(count);
    for _ in 0..count {
        let replica = ReplicaId(r.u16("signer").ok()?);
        proof.push((replica, Signature(r.array("signature").ok()?)));
    }
    Some(StableCheckpoint { seq, digest, proof: Arc::new(proof) })
}

/// Whether certificate and manifest speak of the same state.
pub(super) fn agrees(head: &CheckpointHead) -> Result<(), StoreError> {
    let (manifest, certificate) = (&head.manifest, &head.certificate);
    if manifest.seq != certificate.seq || manifest.digest(head.group) != certificate.digest {
        return Err(StoreError::BadCheckpoint("the certificate is of another state"));
    }
    if certificate.proof.len() > REPLICAS_MAX {
        return Err(StoreError::BadCheckpoint("the certificate has too many signatures"));
    }
    Ok(())
}

/// What stands before an object at `offset` of the file.
pub(super) fn encode_section(section: &Section, offset: u64, out: &mut Vec<u8>) {
    let start = out.len();
    let part = match section.part {
        Part::Service => 1,
        Part::Sessions => 2,
    };
    let mut w = Writer::new(out);
    w.u32(0).bytes(&SECTION_MAGIC).u32(part).u32(section.number).u64(section.len);
    w.u32(section.sum).u32(0);
    let sum = section_sum(&out[start + 4..], offset);
    out[start..start + 4].copy_from_slice(&sum.to_le_bytes());
}

/// Reads what stands before an object at `offset`; none when it is damaged.
pub(super) fn decode_section(bytes: &[u8], offset: u64) -> Option<Section> {
    let (sum, rest) = bytes.split_first_chunk::<4>()?;
    if bytes.len() != SECTION_BYTES || u32::from_le_bytes(*sum) != section_sum(rest, offset) {
        return None;
    }
    let mut r = Reader::new(rest);
    if r.array::<4>("magic").ok()? != SECTION_MAGIC {
        return None;
    }
    let part = match r.u32("part").ok()? {
        1 => Part::Service,
        2 => Part::Sessions,
        _ => return None,
    };
    let (number, len) = (r.u32("number").ok()?, r.u64("length").ok()?);
    Some(Section { part, number, len, sum: r.u32("sum").ok()? })
}

/// The offset goes into it, so that no section is taken for one that stands elsewhere, nor an
/// object's content for a section.
fn section_sum(bytes: &[u8], offset: u64) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&offset.to_le_bytes()), bytes)
}
