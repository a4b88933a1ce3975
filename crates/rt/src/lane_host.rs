//! One lane with everything that belongs to it: its connections, its rings, its counters.
//!
//! A turn of the event loop calls, in this order: [`LaneHost::read`] and [`LaneHost::take_mail`]
//! (as often as there is something), [`LaneHost::end`], [`LaneHost::flush`]. Everything that
//! leaves a replica because of one turn is in one packet per link, written at once.
//!
//! Not here: reading from connections (`intake`), what inputs and effects come to (`logic`),
//! threads and the poll (`event_loop`).

use base::links::PillarReport;
use base::packet::PacketKind;
use base::reply::Answer;
use base::{AgreedTime, ClientId, FrameId, Now, PillarId, ReplicaId, Seq, SessionId, Time};

use crate::counters::{LinkCounters, TrafficCounters};
use crate::drill::Saboteur;
use crate::intake::Door;
use crate::links::Links;
use crate::logic::{Core, Logic, Wire, Wired};
use crate::mesh::LaneMail;

/// One lane and what belongs to it.
pub(crate) struct LaneHost {
    pub(crate) logic: Logic,
    pub(crate) door: Door,
}

/// What a lane tells when it is asked.
#[derive(Clone, Debug)]
pub(crate) struct LaneSnapshot {
    pub(crate) pillar: PillarId,
    pub(crate) report: PillarReport,
    pub(crate) peers_up: usize,
    pub(crate) clients: usize,
    pub(crate) connections: usize,
    pub(crate) links: LinkCounters,
    pub(crate) traffic: TrafficCounters,
    pub(crate) misbehaviour: Vec<u64>,
    /// As in [`Core`].
    pub(crate) garbage: Vec<(u64, AgreedTime)>,
}

impl Wire for Links {
    fn send_peer(&mut self, to: ReplicaId, message: &[u8]) {
        Links::send_peer(self, to, message);
    }

    fn send_peers(&mut self, message: &[u8]) {
        Links::send_peers(self, message);
    }

    fn send_reply(&mut self, frame: FrameId, answer: &Answer<'_>) -> bool {
        Links::send_reply(self, frame, answer)
    }

    fn nudge(&mut self, client: ClientId, session: SessionId, seq: Seq) -> bool {
        Links::nudge(self, client, session, seq)
    }
}

impl LaneHost {
    pub(crate) fn new(
        core: Core,
        links: Links,
        mail: LaneMail,
        saboteur: Option<Box<Saboteur>>,
    ) -> LaneHost {
        let logic = Logic::new(core, links.pillar, mail, saboteur);
        LaneHost { logic, door: Door::new(links) }
    }

    /// The lane with its way out, for the coordinator.
    pub(crate) fn wired(&mut self) -> Wired<'_, Links> {
        Wired { logic: &mut self.logic, wire: &mut self.door.links }
    }

    /// Begins a turn: takes the time, and does what is due on the connections.
    pub(crate) fn begin(&mut self, now: Now) {
        self.logic.core.now = now;
        self.door.begin(now.mono);
        self.door.links.glance();
        self.pester(now.mono);
    }

    /// The thread is about to sleep. True when it must not.
    pub(crate) fn doze(&mut self) -> bool {
        self.door.links.doze()
    }

    /// Reads what has arrived, within bounds, and carries out what follows.
    pub(crate) fn read(&mut self) {
        self.door.read(&mut self.logic.core);
        self.logic.carry_out(&mut self.door.links);
        self.door.links.bury(self.logic.core.now.mono);
    }

    /// Takes what siblings and stage say, and carries out what follows. True when there was
    /// something.
    pub(crate) fn take_mail(&mut self) -> bool {
        self.logic.take_mail(&mut self.door.links)
    }

    /// Ends a turn: the lane proposes, votes and looks at its timers if anything happened.
    pub(crate) fn end(&mut self) {
        self.logic.end(&mut self.door.links);
    }

    /// Writes what the turn brought and closes what is to be closed.
    pub(crate) fn flush(&mut self) {
        let core = &mut self.logic.core;
        core.counters.bytes_out += self.door.flush(core.now.mono);
    }

    /// Answers everybody who asked how we are.
    pub(crate) fn answer_status(&mut self, json: &[u8]) {
        if self.door.status_asked.is_empty() {
            return;
        }
        let mut payload = PacketKind::Status.alone().to_vec();
        payload.extend_from_slice(json);
        for slot in self.door.asked() {
            self.door.links.send_status(slot, &payload);
        }
    }

    /// Stops taking connections and requests, and tells the clients.
    pub(crate) fn drain(&mut self) {
        self.logic.core.draining = true;
        self.door.links.stop_listening();
        for slot in self.door.links.client_slots() {
            self.door.links.send_packet(slot, &PacketKind::Goodbye.alone());
        }
    }

    /// Whether there is work that needs no event to begin.
    pub(crate) fn more(&self) -> bool {
        !self.door.links.ready.is_empty() || self.logic.more()
    }

    /// Whether a ring is full and has to be tried again soon.
    pub(crate) fn overflowing(&self) -> bool {
        self.logic.overflowing()
    }

    /// When the next turn is wanted at the latest.
    pub(crate) fn next_time(&self) -> Option<Time> {
        let pester = self.logic.saboteur.as_ref().and_then(|saboteur| saboteur.next_time());
        let times = [self.logic.core.lane.deadline(), self.door.next_time(), pester];
        times.into_iter().flatten().min()
    }

    /// Whether everything for the clients has left.
    pub(crate) fn drained(&mut self) -> bool {
        self.logic.quiet() && self.door.links.client_backlog() == 0
    }

    /// What can be told about this lane.
    pub(crate) fn snapshot(&mut self) -> LaneSnapshot {
        let (core, links) = (&self.logic.core, &self.door.links);
        LaneSnapshot {
            pillar: links.pillar,
            report: core.lane.report(),
            peers_up: links.peers.count(),
            clients: links.clients.count(),
            connections: links.conns.len(),
            links: links.counters,
            traffic: core.counters,
            misbehaviour: core.misbehaviour.clone(),
            garbage: core.garbage.clone(),
        }
    }

    /// In a drill: sends what was held back, and what nobody asked for.
    fn pester(&mut self, now: Time) {
        let LaneHost { logic, door } = self;
        let Some(saboteur) = &mut logic.saboteur else { return };
        let due = saboteur.due(now, logic.core.lane.view());
        let garbage = saboteur.garbage(now);
        for (to, message) in due {
            logic.transmit(&mut door.links, to, &message);
        }
        if let Some(bytes) = garbage {
            door.links.send_peers(&bytes);
            for slot in door.links.client_slots() {
                door.links.send_packet(slot, &bytes);
            }
        }
    }
}
