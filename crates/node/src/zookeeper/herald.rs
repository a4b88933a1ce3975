//! What the gateway asks the group for on behalf of all its connections: it renews the sessions
//! of clients that pinged, and fetches the events of clients that ask nothing.
//!
//! One operation at a time does both. It is ordered when clients have pinged, when f + 1 replicas
//! say that something waits since a batch that the last one has not seen, and now and then, since
//! what replicas say by themselves can be lost with a link.

use std::collections::BTreeSet;
use std::sync::Arc;

use svc::zk::op::{Attachment, Events, Op, Outcome, RENEW_MAX};
use tokio::time::{Instant, MissedTickBehavior};

use super::{Nudging, OWN_STREAM, Push, Shared};
use crate::gateway::StreamKey;

/// Where a batch's number stands in a zxid.
const BATCH_SHIFT: u32 = 23;

/// Works until the task is dropped.
pub(super) async fn run<B: Nudging>(shared: Arc<Shared>, backend: B) {
    let mut nudges = backend.nudges();
    let mut ticks = tokio::time::interval(shared.config.renew_every);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut seen = 0;
    let mut looked = Instant::now();
    let (mut open, mut again, mut doubt) = (true, false, false);
    loop {
        tokio::select! {
            changed = nudges.changed(), if open => open = changed.is_ok(),
            _ = ticks.tick() => {}
        }
        let news = *nudges.borrow_and_update() > seen;
        let due = looked.elapsed() >= shared.config.look_every && !shared.peers().is_empty();
        let pinged = take_pinged(&shared);
        if pinged.is_empty() && !news && !due && !again {
            continue;
        }
        looked = Instant::now();
        match ask(&shared, &backend, pinged).await {
            Asked::Until(batch) => {
                // What stands behind it in the same batch it has not seen.
                seen = seen.max(batch.saturating_sub(1));
                if doubt {
                    hang_up(&shared);
                }
                (again, doubt) = (false, false);
            }
            Asked::Nothing(pinged) => {
                let peers = shared.peers();
                let still = pinged.into_iter().filter(|attachment| peers.contains_key(attachment));
                shared.pinged().extend(still);
                again = true;
            }
            Asked::Lost => {
                // What was handed over and did not arrive is lost: clients come back and set
                // their watches anew. The question may yet be executed, before the next one: so
                // who comes until that is answered may miss something as well.
                hang_up(&shared);
                (again, doubt) = (true, true);
            }
        }
    }
}

/// What became of a question.
enum Asked {
    /// Everything is known up to the middle of this batch.
    Until(u64),
    /// It was not asked, and these are still to be renewed.
    Nothing(Vec<Attachment>),
    /// The group has not answered.
    Lost,
}

fn hang_up(shared: &Shared) {
    for peer in shared.peers().values() {
        // Whose connection is about to end needs none.
        let _ = peer.push.send(Push::Gone);
    }
}

fn take_pinged(shared: &Shared) -> BTreeSet<Attachment> {
    let mut pinged = shared.pinged();
    let rest = match pinged.iter().nth(RENEW_MAX).copied() {
        Some(at) => pinged.split_off(&at),
        None => BTreeSet::new(),
    };
    std::mem::replace(&mut *pinged, rest)
}

/// Renews sessions and hands events out.
async fn ask<B: Nudging>(shared: &Shared, backend: &B, pinged: BTreeSet<Attachment>) -> Asked {
    let at_ms = shared.now_ms();
    let mut named: Vec<Attachment> = pinged.into_iter().collect();
    loop {
        let mut op = Vec::new();
        Op::Renew(named.clone()).encode(&mut op);
        shared.stats.submitted.add(1);
        let result = match backend.submit(StreamKey(OWN_STREAM), op).await {
            Ok(result) => result,
            Err(error) if error.unsent => return Asked::Nothing(named),
            Err(error) => {
                shared.stats.unanswered.add(1);
                tracing::warn!(%error, "sessions cannot be renewed");
                return Asked::Lost;
            }
        };
        let Ok(Outcome::Happened { zxid, events, gone, more }) = Outcome::decode(&result) else {
            return Asked::Lost;
        };
        hand_out(shared, events, &gone);
        let peers = shared.peers();
        let renewed = named.iter().filter_map(|attachment| peers.get(attachment));
        renewed.for_each(|peer| {
            peer.confirmed.raise(at_ms);
            // Whose connection is about to end needs none.
            let _ = peer.push.send(Push::Renewed);
        });
        if !more {
            return Asked::Until(zxid.cast_unsigned() >> BATCH_SHIFT);
        }
        drop(peers);
        named.clear();
    }
}

fn hand_out(shared: &Shared, events: Vec<(Attachment, Events)>, gone: &[Attachment]) {
    let mut peers = shared.peers();
    for (to, events) in events {
        if let Some(peer) = peers.get(&to) {
            // Whose connection is about to end needs none.
            let _ = peer.push.send(Push::Events(events));
        }
    }
    for attachment in gone {
        if let Some(peer) = peers.remove(attachment) {
            let _ = peer.push.send(Push::Gone);
        }
    }
}
