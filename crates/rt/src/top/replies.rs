//! The reply stage of a pipeline: encodes replies, seals them and writes them, one packet per
//! client and turn, on a second descriptor of each client's connection.
//!
//! Connections are named as the clients' thread names them; here they have slots of their own.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use auth::Peer;
use base::reply::Answer;
use base::{FromStage, Incarnation, Now, Time, View, VoteSet};
use mio::{Events, Interest};

use super::wire::{Reverse, ToReplies};
use crate::conn::{Away, Conn, ConnId, Link, Phase};
use crate::counters::{LinkCounters, TrafficCounters};
use crate::event_loop::{BELL, Task};
use crate::links::{Close, Links};
use crate::report::{EndSnapshot, ThreadSnapshot};
use crate::ring::{RingReceiver, RingSender};

/// The rings of the reply stage.
pub(super) struct RepliesMail {
    pub(super) from_stage: RingReceiver<FromStage>,
    pub(super) from_clients: RingReceiver<ToReplies>,
    /// Connections to close.
    pub(super) to_clients: RingSender<ConnId>,
}

/// The reply stage.
pub(super) struct RepliesTask {
    links: Links,
    mail: RepliesMail,
    slots: HashMap<ConnId, usize>,
    /// Replies of this turn.
    batch: Vec<FromStage>,
    view: Arc<AtomicU64>,
    counters: TrafficCounters,
    overflowing: bool,
}

impl RepliesTask {
    pub(super) fn new(links: Links, mail: RepliesMail, view: Arc<AtomicU64>) -> RepliesTask {
        RepliesTask {
            links,
            mail,
            slots: HashMap::new(),
            batch: Vec::new(),
            view,
            counters: TrafficCounters::default(),
            overflowing: false,
        }
    }

    fn on_client(&mut self, now: Time, message: ToReplies) {
        match message {
            ToReplies::Link(name, reverse) => {
                if self.take_in(now, name, *reverse).is_none() {
                    self.mail.to_clients.push(name);
                }
            }
            ToReplies::Packet(name, payload) => {
                if let Some(slot) = self.slots.get(&name) {
                    self.links.send_packet(*slot, &payload);
                }
            }
            ToReplies::Status(name, payload) => {
                if let Some(slot) = self.slots.get(&name) {
                    self.links.send_status(*slot, &payload);
                }
            }
            ToReplies::Avoid(name, replicas) => {
                let slot = self.slots.get(&name).copied();
                let conn = slot.and_then(|slot| self.links.conns.get_mut(slot));
                if let Some(link) = conn.and_then(Conn::link_mut) {
                    link.avoided = replicas;
                }
            }
            ToReplies::Gone(name) => {
                if let Some(slot) = self.slots.get(&name) {
                    self.links.doomed.push((*slot, Close::Ended));
                }
            }
        }
    }

    fn take_in(&mut self, now: Time, name: ConnId, reverse: Reverse) -> Option<()> {
        let Reverse { client, session, sealer, stream } = reverse;
        let link = Link {
            peer: Peer::Client(client),
            session,
            avoided: VoteSet::EMPTY,
            // Nobody here asks whose life it is, or for the pillar.
            incarnation: Incarnation(0),
            pillar: self.links.pillar,
            sealer: Some(sealer),
            opener: None,
            confirmed: true,
            packet_bytes_max: 0,
            unchecked: 0,
            worked: false,
        };
        let mut conn = Conn::new(stream, Phase::Up(Box::new(link)), now);
        conn.away = Away { name: Some(name), bytes: 0 };
        let slot = self.links.take_in(conn, Interest::WRITABLE)?;
        self.links.clients.up(client, session, slot).ok()?;
        self.links.plan_scan(now);
        self.slots.insert(name, slot);
        Some(())
    }

    fn send(&mut self, view: View) {
        for message in self.batch.drain(..) {
            match message {
                FromStage::Reply { frame, content, tentative, in_full } => {
                    let answer = Answer { content: &content, view, tentative, in_full };
                    let sent = self.links.send_reply(frame, &answer);
                    self.counters.replies += u64::from(sent);
                }
                FromStage::Nudge { client, session, seq } => {
                    let sent = self.links.nudge(client, session, seq);
                    self.counters.nudges += u64::from(sent);
                }
                // The stage sends nothing else here.
                _ => {}
            }
        }
    }

    fn flush(&mut self, now: Time) {
        self.counters.bytes_out += self.links.flush();
        self.links.bury(now);
        for name in std::mem::take(&mut self.links.gone) {
            if self.slots.remove(&name).is_some() {
                self.mail.to_clients.push(name);
            }
        }
        self.overflowing = self.mail.to_clients.flush();
    }
}

impl Task for RepliesTask {
    fn turn(&mut self, now: Now, events: &Events) -> bool {
        for event in events.iter().filter(|event| event.token() != BELL) {
            self.links.on_event(event);
        }
        self.links.on_time(now.mono);
        // Nobody writes that is not here: what comes for a link is read before what the link is.
        while let Some(message) = self.mail.from_stage.pop() {
            self.batch.push(message);
        }
        let mut any = !self.batch.is_empty();
        while let Some(message) = self.mail.from_clients.pop() {
            any = true;
            self.on_client(now.mono, message);
        }
        self.send(View(self.view.load(Ordering::Relaxed)));
        self.flush(now.mono);
        any
    }

    fn more(&self) -> bool {
        !self.mail.from_stage.is_empty() || !self.mail.from_clients.is_empty()
    }

    fn next_time(&self) -> Option<Time> {
        self.links.next_time()
    }

    fn soon(&self) -> bool {
        self.overflowing
    }

    fn drained(&mut self) -> bool {
        self.links.client_backlog() == 0
    }

    fn last_words(&mut self) {
        self.links.flush();
    }

    fn snapshot(&mut self) -> ThreadSnapshot {
        let LinkCounters {
            slow_clients, replies_unclaimed, replies_relieved, replies_digest, ..
        } = self.links.counters;
        let end = EndSnapshot {
            pillar: self.links.pillar,
            // Those of the clients' thread.
            peers_up: 0,
            clients: 0,
            connections: 0,
            // What else happens to connections is counted by their own thread.
            links: LinkCounters {
                slow_clients,
                replies_unclaimed,
                replies_relieved,
                replies_digest,
                ..LinkCounters::default()
            },
            traffic: self.counters,
        };
        ThreadSnapshot { ends: vec![end], ..ThreadSnapshot::default() }
    }
}
