//! Task-oriented parallelization: the comparison partner of the pillars (COP §3.1 and §5, where
//! it is called TOP). One replica is a pipeline of stages, each a thread for one task of all
//! instances, with queues in between.
//!
//! ```text
//!  clients ─► top-clients ─┐                        ┌─► top-exec ─► top-replies ─► clients
//!              (io)        ├─► top-auth-k ─► top-logic
//!  peers ◄──► top-peers ───┘  (auth)  ▲        │ (logic)      (exec)     (replies)
//!              (io)  ▲                └────────┘
//!                    └── sealed packets ──┘
//! ```
//!
//! | thread | does |
//! |---|---|
//! | `top-clients` | accepts, shakes hands, reads clients' packets |
//! | `top-peers` | dials peers, reads and writes their packets |
//! | `top-auth-k` | opens and seals, decodes, digests frames, samples authenticators |
//! | `top-logic` | batching and protocol logic: the lane, and the coordinator |
//! | `top-exec` | merge, exactly-once, the service, checkpoints |
//! | `top-replies` | encodes, seals and writes replies |
//!
//! The cores, messages, seals, checks and bounds are those of the pillars, and so is nearly all
//! of the code: connections (`intake`, `links`), what packets and effects come to (`inlet`,
//! `logic`), the stage, the rings, the event loop. What is in here is who does it where, and the
//! way of the work from one to the next. It is meant to be a good pipeline: multi-instance, a
//! whole turn's work in one hand-over, no lock, nobody woken that is awake, in-order verification
//! of everything but the seal, which is checked once per packet before the protocol sees it.
//!
//! Every queue is bounded. What an I/O thread reads is: a connection has at most
//! [`HANDED_BYTES_MAX`] (one packet more) between its thread and the protocol's, which gives back
//! what it has taken. What is sealed for a peer is bounded by what waits to be written to it, as
//! in the pillars; what is executed by the window; replies by the client's backlog.
//!
//! One lane: the protocol's logic is one thread, and so there is one pillar to run.

mod auth;
mod exec;
mod io;
mod logic;
mod replies;
mod wire;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64};

use base::{FromStage, ReplicaId};
use mio::{Interest, Token};

use crate::clients::ClientTable;
use crate::event_loop::Station;
use crate::intake::Door;
use crate::links::Links;
use crate::logic::Logic;
use crate::machine::{Parts, PillarParts, Runner};
use crate::mesh::Layout;
use crate::options::StartError;
use crate::peers::PeerTable;
use crate::ring::{RingReceiver, RingSender, ring};
use crate::status::StatusDesk;

use self::auth::{AuthMail, AuthTask};
use self::exec::ExecTask;
use self::io::{IoMail, IoTask, Relay};
use self::logic::{LogicMail, LogicTask, Outward, Returns, Thirst};
use self::replies::{RepliesMail, RepliesTask};
use self::wire::Outgoing;

/// Bytes of one connection's packets that may be on their way to the protocol's thread.
const HANDED_BYTES_MAX: usize = 1 << 20;
/// Items per ring between two stages.
const RING: usize = 1024;

const LOGIC: usize = 0;
const EXEC: usize = 1;
const CLIENTS: usize = 2;
const PEERS: usize = 3;
const REPLIES: usize = 4;
const AUTH: usize = 5;

/// Threads of the smallest pipeline.
pub(crate) const THREADS_MIN: usize = AUTH + 1;

/// One thread per stage; those that are left over authenticate.
pub(crate) fn layout(cores: usize, wanted: Option<usize>) -> Layout {
    let threads = wanted.unwrap_or(cores).max(THREADS_MIN);
    Layout { threads, lanes: vec![LOGIC], stage: EXEC, replies: Some(REPLIES) }
}

/// Puts the parts of a replica on the threads of a pipeline.
///
/// # Errors
/// When the system refuses a poll.
pub(crate) fn assemble(
    parts: Parts,
    stations: Vec<Station>,
    replies: RingReceiver<FromStage>,
) -> Result<Vec<Runner>, StartError> {
    let Parts { env, shared, mut pillars, stage, coordinator } = parts;
    let one = pillars.pop().filter(|_| pillars.is_empty());
    let Some(PillarParts { pillar, mut listener, core, mail, .. }) = one else {
        return Err(StartError::Options("a pipeline has one pillar"));
    };
    let Rings { clients, peers, logic, replies: reply_mail, auth } = Rings::new(&stations, replies);
    let registry = |thread: usize| stations[thread].poll.registry().try_clone();
    let nobody = || PeerTable::new(ReplicaId(0), pillar, env.n);
    let end = |listener, peers, registry| {
        Links::with(Arc::clone(&env), pillar, (listener, peers), registry, 0)
    };
    let own = registry(CLIENTS)?;
    own.register(&mut listener, Token(0), Interest::READABLE)?;
    let client_links = end(Some(listener), nobody(), own);
    let own = registry(PEERS)?;
    let peer_links = end(None, PeerTable::new(env.me, pillar, env.n), own);
    let mut reply_links = end(None, nobody(), registry(REPLIES)?);
    // Whoever is here was let in by the clients' thread.
    reply_links.clients = ClientTable::new(usize::MAX, usize::MAX);

    let io = |links, (relay, mail), thread| {
        IoTask::new(Door::new(links), relay, mail, StatusDesk::new(&shared, thread))
    };
    let view = Arc::new(AtomicU64::new(core.lane.view().0));
    let (to_auth, logic_mail) = logic;
    let out = Outward::new(&env, pillar, to_auth);
    let lane = Logic::new(core, pillar, mail, None);
    let logic = LogicTask::new(lane, coordinator, out, logic_mail, Arc::clone(&view));
    let clients = io(client_links, clients, CLIENTS);
    let peers = io(peer_links, peers, PEERS);
    let replies = RepliesTask::new(reply_links, reply_mail, view);

    let mut stations = stations.into_iter();
    let mut next = || stations.next().ok_or(StartError::Options("a pipeline lacks a thread"));
    // In the order of the threads' numbers.
    let mut runners = vec![
        Runner::new("top-logic".to_owned(), next()?, logic),
        Runner::new("top-exec".to_owned(), next()?, ExecTask(stage)),
        Runner::new("top-clients".to_owned(), next()?, clients),
        Runner::new("top-peers".to_owned(), next()?, peers),
        Runner::new("top-replies".to_owned(), next()?, replies),
    ];
    for (k, mail) in auth.into_iter().enumerate() {
        let task = AuthTask::new(Arc::clone(&env), pillar, mail);
        runners.push(Runner::new(format!("top-auth-{k}"), next()?, task));
    }
    Ok(runners)
}

/// The rings between the stages, sorted by owner.
struct Rings {
    clients: (Relay, IoMail),
    peers: (Relay, IoMail),
    logic: (Vec<RingSender<Outgoing>>, LogicMail),
    replies: RepliesMail,
    auth: Vec<AuthMail>,
}

impl Rings {
    fn new(stations: &[Station], from_stage: RingReceiver<FromStage>) -> Rings {
        let bell = |thread: usize| Arc::clone(&stations[thread].bell);
        let thirst =
            |thread| Arc::new(Thirst { waits: AtomicBool::new(false), bell: bell(thread) });
        let returns = |thirst: &Arc<Thirst>| {
            let (ring, back) = ring(RING, None);
            (Returns { ring, thirst: Arc::clone(thirst) }, back)
        };
        let (clients_thirst, peers_thirst) = (thirst(CLIENTS), thirst(PEERS));
        let (to_clients, clients_from_logic) = returns(&clients_thirst);
        let (to_peers, peers_from_logic) = returns(&peers_thirst);
        let (clients_to_peers, peers_from_clients) = ring(RING, Some(bell(PEERS)));
        let (clients_to_replies, from_clients) = ring(RING, Some(bell(REPLIES)));
        let (replies_to_clients, from_replies) = ring(RING, Some(bell(CLIENTS)));
        let (mut clients_to_auth, mut clients_from_auth) = (Vec::new(), Vec::new());
        let (mut peers_to_auth, mut peers_from_auth) = (Vec::new(), Vec::new());
        let (mut logic_to_auth, mut logic_from_auth) = (Vec::new(), Vec::new());
        let mut auth = Vec::new();
        for thread in AUTH..stations.len() {
            let (to_auth, from_clients) = ring(RING, Some(bell(thread)));
            clients_to_auth.push(to_auth);
            let (to_auth, from_peers) = ring(RING, Some(bell(thread)));
            peers_to_auth.push(to_auth);
            let (to_auth, from_logic) = ring(RING, Some(bell(thread)));
            logic_to_auth.push(to_auth);
            let (to_clients, from_auth) = ring(RING, Some(bell(CLIENTS)));
            clients_from_auth.push(from_auth);
            let (to_peers, from_auth) = ring(RING, Some(bell(PEERS)));
            peers_from_auth.push(from_auth);
            let (to_logic, from_auth) = ring(RING, Some(bell(LOGIC)));
            logic_from_auth.push(from_auth);
            let from = (from_clients, from_peers, from_logic);
            auth.push(AuthMail { from, to_clients, to_peers, to_logic });
        }
        let out = (Some(clients_to_replies), Some(clients_to_peers));
        let clients = Relay::new(clients_to_auth, out, clients_thirst);
        let peers = Relay::new(peers_to_auth, (None, None), peers_thirst);
        let clients_mail = IoMail {
            from_auth: clients_from_auth,
            from_logic: clients_from_logic,
            from_replies: Some(from_replies),
            from_clients: None,
        };
        let peers_mail = IoMail {
            from_auth: peers_from_auth,
            from_logic: peers_from_logic,
            from_replies: None,
            from_clients: Some(peers_from_clients),
        };
        let logic = LogicMail { from_auth: logic_from_auth, to_clients, to_peers };
        Rings {
            clients: (clients, clients_mail),
            peers: (peers, peers_mail),
            logic: (logic_to_auth, logic),
            replies: RepliesMail { from_stage, from_clients, to_clients: replies_to_clients },
            auth,
        }
    }
}
