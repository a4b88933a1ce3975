//! What is decided before a replica starts: whether it may misbehave, what it begins with, where
//! its metrics go, and whether a group of them can work at all.
//!
//! Not here: whether a replica may vote (`store::beginning`), nor the start itself (`rt`).
//!
//! Invariant: every refusal names its cause and what to do about it.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use base::{ReplicaId, Routing};
use exec::Service;
use genesis::Group;
use store::{Dir, Durability, Identity, Real, Voice};

use crate::exit::Misuse;
use crate::mark;
use crate::snapshot;
use crate::values::{Metrics, count};

/// How far the metrics port is from the port of what it tells about, unless one is given.
pub const METRICS_OFFSET: u16 = 1000;

/// Refuses misbehaviour in a group that was not founded for it.
///
/// # Errors
/// Then, or when there is no such replica.
pub fn drills_allowed(group: &Group, id: ReplicaId) -> Result<()> {
    let path = group.path().display();
    if id.0 >= group.quorums().n() {
        bail!("{path}: no replica {id}; the group has {}, numbered from 0", group.quorums().n());
    }
    if !group.settings().drills {
        bail!(
            "{path}: drills = false: the replicas of this group do not misbehave when they are \
             told to. Found one for drills with `stylite init --drills`, or let `stylite demo \
             --misbehave` found one"
        );
    }
    Ok(())
}

/// Refuses to start a group of which so many replicas have forgotten their votes that it cannot
/// work, or would forget what they have kept. A replica alone cannot know the former; who starts
/// all of them at once can. Returns those whose disks are lost, and who are to recover.
///
/// # Errors
/// Then, or when the directory of a replica cannot be read.
pub fn refuse_forgotten(group: &Group, next: Durability) -> Result<Vec<ReplicaId>> {
    let mut lost = Vec::new();
    for part in group.parts() {
        lost.extend(forgotten_in(&part, next)?);
    }
    lost.sort_unstable();
    lost.dedup();
    // Whoever has lost one partition is to recover in all of them.
    let f = usize::from(group.quorums().f());
    if lost.len() > f {
        bail!(
            "{}: {} have lost the state of some partition, and this group endures {f} at most at \
             a time: start the replicas one by one, and those whose disks are lost with --recover",
            group.path().display(),
            count(lost.len() as u64, "replica"),
        );
    }
    Ok(lost)
}

/// The same in one of the groups that agreement takes place in.
fn forgotten_in(group: &Group, next: Durability) -> Result<Vec<ReplicaId>> {
    let (mut forgotten, mut lost, mut checkpoints) = (Vec::new(), Vec::new(), 0);
    for id in group.quorums().replicas() {
        let dir = mark::replica_dir(group, id);
        let virgin = mark::is_there(group, id)?;
        if virgin && !dir.exists() {
            continue;
        }
        let identity = Identity { group: group.id(), replica: id };
        let opened = Dir::open(&dir, identity, Arc::new(Real))?;
        store::may_forget(&opened.found, next)?;
        checkpoints += opened.found.checkpoints.len();
        match store::beginning(&opened.found, virgin, false) {
            Ok(beginning) if beginning.voice == Voice::Whole => {}
            Ok(beginning) => forgotten.push(format!("replica {id}: {}", beginning.why)),
            Err(_) => {
                forgotten.push(format!("replica {id}: its state is gone"));
                lost.push(id);
            }
        }
    }
    let f = usize::from(group.quorums().f());
    if forgotten.len() <= f {
        return Ok(lost);
    }
    let remedy = match checkpoints {
        0 => "No checkpoint is left on the disks either: choose another directory".to_owned(),
        _ => format!(
            "Save a snapshot of what is left (`stylite snapshot save --config {} --out FILE`) and \
             found a new group from it (`stylite init --from-snapshot`), or choose another \
             directory",
            group.dir().display(),
        ),
    };
    bail!(
        "{}: {} of this group may have forgotten votes, and it endures {f} at most: nobody can \
         tell any more what was agreed ({}). {remedy}; a group that is to be started again needs \
         --durability sync from its first start on",
        group.path().display(),
        count(forgotten.len() as u64, "replica"),
        forgotten.join("; "),
    )
}

/// Whether a replica's disk is lost: no life is on it, and it has had one, in some partition.
///
/// # Errors
/// When its directory cannot be read.
pub fn is_lost(group: &Group, id: ReplicaId) -> Result<bool> {
    let lost = |part: &Group| -> Result<bool> {
        let virgin = mark::is_there(part, id)?;
        let identity = Identity { group: part.id(), replica: id };
        let opened = Dir::open(&mark::replica_dir(part, id), identity, Arc::new(Real))?;
        Ok(store::beginning(&opened.found, virgin, false).is_err())
    };
    for part in group.parts() {
        if lost(&part)? {
            return Ok(true);
        }
    }
    Ok(false)
}

/// How the operations of a group's service find their partition; `None` where it has but one.
///
/// # Errors
/// When it has several, and the state of its service does not fall into parts.
pub fn routing(group: &Group) -> Result<Option<Routing>> {
    let several = group.partitions() > 1;
    let routing = several.then(|| svc::routing(group.service()));
    match routing {
        Some(None) => bail!("{}: {}", group.path().display(), unpartitionable(group.service())),
        known => Ok(known.flatten()),
    }
}

/// Refuses to found a group of several partitions of a service whose state does not fall into
/// parts.
///
/// # Errors
/// Then.
pub fn partitionable(service: &str, partitions: u16) -> Result<()> {
    if partitions > 1 && svc::routing(service).is_none() {
        return Misuse::err(format!("--partitions {partitions}: {}", unpartitionable(service)));
    }
    Ok(())
}

/// What is said when a service is to have partitions and has no parts.
fn unpartitionable(service: &str) -> String {
    let can: Vec<&str> =
        svc::NAMES.iter().copied().filter(|name| svc::routing(name).is_some()).collect();
    format!(
        "the service {service} cannot be partitioned: its state does not fall into parts. Found \
         the group with one partition, or with one of the services {}",
        can.join(", ")
    )
}

/// The services of the groups that agreement takes place in, partition by partition, each in the
/// state that it begins with.
///
/// # Errors
/// As [`service`] and [`routing`].
pub fn services(group: &Group) -> Result<Vec<Box<dyn Service>>> {
    if routing(group)?.is_none() {
        return Ok(vec![service(group)?]);
    }
    let (name, all) = (group.service(), group.partitions());
    let one = |own| svc::partition_by_name(name, own, all).with_context(|| unpartitionable(name));
    (0..all).map(one).collect()
}

/// The group's service in the state that the group begins with.
///
/// # Errors
/// When this program does not know the service, or the snapshot that the group was founded from
/// is not there or not what it should be.
pub fn service(group: &Group) -> Result<Box<dyn Service>> {
    let mut service = svc::by_name(group.service()).with_context(|| {
        let (shown, name) = (group.path().display(), group.service());
        let known = svc::NAMES.join(" and ");
        format!(
            "{shown}: service = {name}: this program knows {known}; a service of your own \
            comes with a program of its own"
        )
    })?;
    if let Some(root) = group.initial_state() {
        snapshot::load_initial(group, root, &mut *service)?;
    }
    Ok(service)
}

/// The listening socket for metrics: where it was asked for, or at `default`. `None` when none is
/// wanted, or when nobody asked for the one that is taken.
///
/// # Errors
/// When the address that was asked for cannot be listened on.
pub fn metrics_listener(
    wanted: Option<Metrics>,
    default: SocketAddr,
) -> Result<Option<TcpListener>> {
    match wanted {
        Some(Metrics::Off) => Ok(None),
        Some(Metrics::At(address)) => {
            let bound = TcpListener::bind(address);
            let listener = bound.with_context(|| {
                format!("--metrics {address}: cannot listen there; name another, or none")
            })?;
            Ok(Some(listener))
        }
        None => {
            let address = default;
            let bound = TcpListener::bind(address);
            if let Err(error) = &bound {
                tracing::warn!(%error, %address, "no metrics: name another address with --metrics");
            }
            Ok(bound.ok())
        }
    }
}

/// Where a replica serves metrics unless told otherwise: on loopback, [`METRICS_OFFSET`] beyond
/// the port of its first pillar, or of the place that it would have without a port.
#[must_use]
pub fn metrics_default(group: &Group, id: ReplicaId) -> SocketAddr {
    let entry = group.replicas().get(usize::from(id.0));
    let port = entry.and_then(|entry| entry.ports().first().copied());
    metrics_beside(port.unwrap_or(genesis::PORT_DEFAULT + id.0))
}

/// Where metrics are served unless told otherwise, of what has this port.
#[must_use]
pub fn metrics_beside(port: u16) -> SocketAddr {
    let beyond = port.checked_add(METRICS_OFFSET).unwrap_or(port - METRICS_OFFSET);
    SocketAddr::from((Ipv4Addr::LOCALHOST, beyond))
}

#[cfg(test)]
mod tests {
    use genesis::{InitOptions, LocalGroup, Settings};

    use super::*;

    #[test]
    fn metrics_are_a_thousand_ports_further_on() {
        assert_eq!(metrics_beside(7400).to_string(), "127.0.0.1:8400");
        assert_eq!(metrics_beside(65_000).to_string(), "127.0.0.1:64000");
    }

    #[test]
    fn metrics_that_nobody_asked_for_stop_nothing() {
        let taken = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = taken.local_addr().expect("bound");
        assert!(metrics_listener(Some(Metrics::Off), address).expect("none").is_none());
        let told = metrics_listener(Some(Metrics::At(address)), address).expect_err("it is taken");
        assert!(told.to_string().contains(&address.to_string()), "{told}");
        assert!(metrics_listener(None, address).expect("a warning").is_none());
    }

    #[test]
    fn only_groups_for_drills_have_replicas_that_misbehave() {
        let group = |drills| {
            let settings = Settings { drills, ..Settings::default() };
            let options = InitOptions { settings, ..InitOptions::default() };
            LocalGroup::generate(&options).expect("legal options").group
        };
        assert!(drills_allowed(&group(true), ReplicaId(3)).is_ok());
        assert!(drills_allowed(&group(true), ReplicaId(4)).is_err());
        let told = drills_allowed(&group(false), ReplicaId(3)).expect_err("not for drills");
        assert!(told.to_string().contains("init --drills"), "{told}");
    }

    /// The bound of `genesis`, which knows the messages by their sizes only, is the protocol's.
    #[test]
    fn every_window_that_is_accepted_fits_the_protocol() {
        for f in 0..=21 {
            let quorums = base::Quorums::pbft(3 * f + 1, f).expect("legal");
            let window = genesis::settings::window_max(quorums);
            assert!(proto::group::wire::window_fits(quorums, window), "f = {f}");
        }
    }
}
