//! The digest of the table: at once, or in pieces while the table goes on (`frozen`).

use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use base::digest::Domain;
use base::{ClientId, Digest, Writer};

use super::{Client, Sessions, encode_bucket};
use crate::tree::ObjectTree;

impl Sessions {
    /// The digest of the whole table. Costs in proportion to what changed since the last call.
    pub fn digest(&mut self) -> Digest {
        let Sessions { buckets, tree, counts, .. } = self;
        tree.refresh(|bucket| bucket_digest(&mut buckets[bucket as usize], &mut counts.rehashed))
    }

    /// Goes on with a refresh of the tree, see [`ObjectTree::proceed`].
    pub(crate) fn proceed(&mut self, budget: &mut usize) -> bool {
        let Sessions { buckets, tree, counts, .. } = self;
        // Each bucket's digest is given before it is written, so no bytes are kept.
        tree.proceed(budget, |bucket, _| {
            bucket_digest(&mut buckets[bucket as usize], &mut counts.rehashed)
        })
    }

    pub(crate) fn tree(&self) -> &ObjectTree {
        &self.tree
    }

    pub(crate) fn tree_mut(&mut self) -> &mut ObjectTree {
        &mut self.tree
    }

    /// Comes before every change of a bucket.
    pub(super) fn modify(&mut self, bucket: u32) {
        let Sessions { buckets, tree, counts, .. } = self;
        if tree.wants_digest(bucket) {
            let old = &mut buckets[bucket as usize];
            tree.has_digest(bucket, bucket_digest(old, &mut counts.rehashed));
        }
        tree.modify(bucket, |out| encode_bucket(&buckets[bucket as usize], out));
    }
}

/// Over the principals' sessions, whose own digests are computed only when they changed.
pub(super) fn bucket_digest(
    clients: &mut BTreeMap<ClientId, Client>,
    rehashed: &mut u64,
) -> Digest {
    let mut bytes = Vec::new();
    let mut w = Writer::new(&mut bytes);
    w.u8(0).count(clients.len());
    for (id, client) in clients {
        w.u32(id.0).u64(client.highest.0).count(client.sessions.len());
        for (id, session) in &mut client.sessions {
            w.u64(id.0).digest(session.digest(rehashed));
        }
    }
    Digest::of(Domain::Sessions, &bytes)
}
