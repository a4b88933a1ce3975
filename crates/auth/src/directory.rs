//! The directory: the public keys of everybody in one epoch of one group, checked once when it
//! is built and shared read-only from then on.
//!
//! Invariants:
//! 1. the replicas are `0..n`, the clients are in ascending order of identifier;
//! 2. every X25519 key is certified by its ed25519 key;
//! 3. no two members share a key: whoever held two identities would count twice in a quorum.

use std::collections::BTreeSet;
use std::sync::Arc;

use base::{ClientId, Epoch, GroupId, ReplicaId, Signature, limits};
use ed25519_zebra::VerificationKey;

use crate::error::AuthError;
use crate::hello::Peer;
use crate::keys::{MESSAGE_PREFIX, PublicKeys, prefixed, verify};

/// Everybody's public keys. Cloning it shares it.
#[derive(Clone, Debug)]
pub struct Directory(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    group: GroupId,
    epoch: Epoch,
    pillars: u16,
    replicas: Vec<Entry>,
    clients: Vec<(ClientId, Entry)>,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Entry {
    pub(crate) keys: PublicKeys,
    pub(crate) verifier: VerificationKey,
}

impl Directory {
    /// Checks and collects the keys of a group's members. `replicas` are in order of their
    /// identifiers, from 0. Costs one signature check, about 50 µs, per member.
    ///
    /// # Errors
    /// A key that is malformed, not certified or shared; too many or no members or pillars.
    pub fn new(
        group: GroupId,
        epoch: Epoch,
        pillars: u16,
        replicas: &[PublicKeys],
        clients: &[(ClientId, PublicKeys)],
    ) -> Result<Directory, AuthError> {
        bounded("replicas", replicas.len(), 1, limits::REPLICAS_MAX)?;
        bounded("clients", clients.len(), 0, limits::CLIENTS_MAX)?;
        bounded("pillars", usize::from(pillars), 1, limits::PILLARS_MAX)?;
        let mut seen = BTreeSet::new();
        let mut enter = |peer: Peer, keys: &PublicKeys| {
            // One set for both kinds of key: the same 32 bytes as both is a mistake, too.
            if !seen.insert(keys.ed25519) || !seen.insert(keys.x25519) {
                return Err(AuthError::Duplicate(peer));
            }
            Ok(Entry { keys: *keys, verifier: keys.verifier(peer)? })
        };
        let replicas = (0..).map(ReplicaId).zip(replicas);
        let replicas = replicas
            .map(|(id, keys)| enter(Peer::Replica(id), keys))
            .collect::<Result<Vec<_>, _>>()?;
        let mut clients = clients
            .iter()
            .map(|(id, keys)| Ok((*id, enter(Peer::Client(*id), keys)?)))
            .collect::<Result<Vec<_>, _>>()?;
        clients.sort_by_key(|(id, _)| *id);
        if let Some(pair) = clients.windows(2).find(|pair| pair[0].0 == pair[1].0) {
            return Err(AuthError::Duplicate(Peer::Client(pair[0].0)));
        }
        Ok(Directory(Arc::new(Inner { group, epoch, pillars, replicas, clients })))
    }

    /// The same members in another group: whatever is signed, authenticated or sealed for one of
    /// the two means nothing in the other.
    #[must_use]
    pub fn in_group(&self, group: GroupId) -> Directory {
        let Inner { epoch, pillars, replicas, clients, .. } = &*self.0;
        let (replicas, clients) = (replicas.clone(), clients.clone());
        Directory(Arc::new(Inner { group, epoch: *epoch, pillars: *pillars, replicas, clients }))
    }

    /// The group.
    #[must_use]
    pub fn group(&self) -> GroupId {
        self.0.group
    }

    /// The membership epoch that these keys are of.
    #[must_use]
    pub fn epoch(&self) -> Epoch {
        self.0.epoch
    }

    /// How many pillars every replica has.
    #[must_use]
    pub fn pillars(&self) -> u16 {
        self.0.pillars
    }

    /// How many replicas the group has.
    #[must_use]
    pub fn n(&self) -> u16 {
        u16::try_from(self.0.replicas.len()).expect("bounded by REPLICAS_MAX")
    }

    /// How many clients the group has.
    #[must_use]
    pub fn clients(&self) -> usize {
        self.0.clients.len()
    }

    /// The keys of a replica; `None` when there is no such replica.
    #[must_use]
    pub fn replica(&self, id: ReplicaId) -> Option<&PublicKeys> {
        self.entry(Peer::Replica(id)).map(|entry| &entry.keys)
    }

    /// The keys of a client; `None` when there is no such client.
    #[must_use]
    pub fn client(&self, id: ClientId) -> Option<&PublicKeys> {
        self.entry(Peer::Client(id)).map(|entry| &entry.keys)
    }

    /// The keys of a replica or client.
    #[must_use]
    pub fn peer(&self, peer: Peer) -> Option<&PublicKeys> {
        self.entry(peer).map(|entry| &entry.keys)
    }

    /// Whether `signature` over `message` is that of replica `signer`: [`base::Keyring::verify`]
    /// for those who have no secret. False for an unknown signer.
    #[must_use]
    pub fn verify(&self, signer: ReplicaId, message: &[u8], signature: &Signature) -> bool {
        self.entry(Peer::Replica(signer)).is_some_and(|entry| {
            verify(&entry.verifier, &prefixed(MESSAGE_PREFIX, message), signature)
        })
    }

    pub(crate) fn entry(&self, peer: Peer) -> Option<&Entry> {
        match peer {
            Peer::Replica(id) => self.0.replicas.get(usize::from(id.0)),
            Peer::Client(id) => self.client_index(id).map(|index| &self.0.clients[index].1),
        }
    }

    /// Where a client stands in the list: an index for tables beside the directory.
    pub(crate) fn client_index(&self, id: ClientId) -> Option<usize> {
        self.0.clients.binary_search_by_key(&id, |(id, _)| *id).ok()
    }
}

fn bounded(what: &'static str, count: usize, min: usize, max: usize) -> Result<(), AuthError> {
    if (min..=max).contains(&count) { Ok(()) } else { Err(AuthError::Members { what, count, max }) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keys::Secret;

    fn keys(seed: u8, peer: Peer) -> PublicKeys {
        Secret::from_bytes([seed; 32]).public(peer)
    }

    fn build(
        pillars: u16,
        replicas: &[PublicKeys],
        clients: &[(ClientId, PublicKeys)],
    ) -> Result<Directory, AuthError> {
        Directory::new(GroupId([1; 32]), Epoch(0), pillars, replicas, clients)
    }

    fn replica(id: u16, seed: u8) -> PublicKeys {
        keys(seed, Peer::Replica(ReplicaId(id)))
    }

    fn client(id: u32, seed: u8) -> (ClientId, PublicKeys) {
        (ClientId(id), keys(seed, Peer::Client(ClientId(id))))
    }

    #[test]
    fn members_are_found_and_strangers_are_not() {
        let clients = [client(9, 3), client(4, 4)];
        let directory = build(2, &[replica(0, 1), replica(1, 2)], &clients).expect("valid");
        assert_eq!(directory.n(), 2);
        assert_eq!(directory.replica(ReplicaId(1)), Some(&replica(1, 2)));
        assert_eq!(directory.replica(ReplicaId(2)), None);
        assert_eq!(directory.client(ClientId(4)), Some(&client(4, 4).1));
        assert_eq!(directory.client(ClientId(0)), None);
    }

    #[test]
    fn one_key_is_one_member() {
        let twice = build(1, &[replica(0, 1), replica(1, 1)], &[]);
        assert_eq!(twice.err(), Some(AuthError::Duplicate(Peer::Replica(ReplicaId(1)))));
        let as_client = build(1, &[replica(0, 1)], &[client(0, 1)]);
        assert_eq!(as_client.err(), Some(AuthError::Duplicate(Peer::Client(ClientId(0)))));
        let same_id = build(1, &[replica(0, 1)], &[client(5, 2), client(5, 3)]);
        assert_eq!(same_id.err(), Some(AuthError::Duplicate(Peer::Client(ClientId(5)))));
    }

    #[test]
    fn keys_of_another_place_are_refused() {
        let swapped = build(1, &[replica(1, 1)], &[]);
        assert_eq!(swapped.err(), Some(AuthError::Certificate(Peer::Replica(ReplicaId(0)))));
    }

    #[test]
    fn counts_are_bounded() {
        let one = [replica(0, 1)];
        for (pillars, what) in [(0, "pillars"), (65, "pillars")] {
            let error = build(pillars, &one, &[]).err();
            let count = usize::from(pillars);
            assert_eq!(error, Some(AuthError::Members { what, count, max: 64 }));
        }
        let error = build(1, &[], &[]).err();
        assert_eq!(error, Some(AuthError::Members { what: "replicas", count: 0, max: 64 }));
        let many = [one[0]; 65];
        let error = build(1, &many, &[]).err();
        assert_eq!(error, Some(AuthError::Members { what: "replicas", count: 65, max: 64 }));
    }
}
