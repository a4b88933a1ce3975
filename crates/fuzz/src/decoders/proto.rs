//! Messages between lanes and between coordinators, certificates, proofs, records of the log.

use proto::Record;
use proto::group::evidence::Proof;
use proto::group::msg::GroupMessage;
use proto::group::wire::{decode_stable, encode_stable};
use proto::pbft::msg::Message;

use super::{accepted, canonical, encoded, told};
use crate::samples::{self, GROUP};
use crate::target::Run;

/// `Message::decode`, with the messages of coordinators and stages inside it.
pub fn message() -> Run {
    Box::new(|bytes| {
        let read = canonical(bytes, |r| Message::decode(GROUP, r), Message::encode);
        if let Ok((message, used)) = &read {
            assert!(message.encoded_len_max() >= *used, "{message:?}");
        }
        told(read)
    })
}

/// Encoded messages.
#[must_use]
pub fn message_seeds() -> Vec<Vec<u8>> {
    encoded(&samples::messages(), Message::encode)
}

/// `GroupMessage::decode`; what is read is judged by the public rules.
pub fn group_message() -> Run {
    let (rules, keys) = (samples::rules(), samples::keys(0));
    Box::new(move |bytes| {
        let read = canonical(bytes, |r| GroupMessage::decode(GROUP, r), GroupMessage::encode);
        let Ok((message, used)) = read else { return told(read) };
        assert!(message.encoded_len_max() >= used, "{message:?}");
        let convincing = match &message {
            GroupMessage::Evidence(proof) => proof.verify(&rules, &keys),
            _ => false,
        };
        accepted((std::mem::discriminant(&message), convincing), used)
    })
}

/// Encoded messages between coordinators.
#[must_use]
pub fn group_message_seeds() -> Vec<Vec<u8>> {
    encoded(&samples::group_messages(), GroupMessage::encode)
}

/// `Proof::decode`, as proofs are read from disk and from the status page.
pub fn proof() -> Run {
    Box::new(|bytes| told(canonical(bytes, Proof::decode, Proof::encode)))
}

/// Encoded proofs.
#[must_use]
pub fn proof_seeds() -> Vec<Vec<u8>> {
    encoded(&samples::proofs(), Proof::encode)
}

/// `wire::decode_stable`: certificates in messages, records and files.
pub fn certificate() -> Run {
    Box::new(|bytes| told(canonical(bytes, decode_stable, encode_stable)))
}

/// Encoded certificates.
#[must_use]
pub fn certificate_seeds() -> Vec<Vec<u8>> {
    encoded(&[samples::stable(8), samples::stable(1 << 40), Default::default()], encode_stable)
}

/// `Record::decode`: what the log gives back.
pub fn record() -> Run {
    Box::new(|bytes| told(canonical(bytes, |r| Record::decode(GROUP, r), Record::encode)))
}

/// Encoded records.
#[must_use]
pub fn record_seeds() -> Vec<Vec<u8>> {
    encoded(&samples::records(), Record::encode)
}
