//! From raw to checked: every bound, every relation, every key; and the group's identity.

use std::collections::BTreeSet;
use std::fmt::Display;
use std::path::Path;

use auth::{Directory, PublicKeys};
use base::digest::{Domain, Hasher};
use base::{ClientId, Digest, Epoch, GroupId, Quorums, ReplicaId, Signature, Span, Stripe, limits};

use crate::address::{self, Address};
use crate::error::GenesisError;
use crate::group::{ClientEntry, Group, ReplicaEntry};
use crate::raw::{FORMAT, RawBatching, RawClient, RawGroup, RawReplica};
use crate::settings::{
    Agreement, BATCH_BYTES_MIN, BATCH_DELAY_US_MAX, Batching, Bodies, CHECKPOINT_INTERVAL_MAX,
    CLOCK_SKEW_MS_MAX, Commits, Idle, Leaders, Reads, Repliers, Replies, Settings,
    VIEW_TIMEOUT_MS_MAX, VIEW_TIMEOUT_MS_MIN, from_on_off, window_for, window_max,
};
use crate::switches::{self, Choice};

/// Longest name of a group, a service or a client, in bytes.
const NAME_BYTES_MAX: usize = 64;

/// Whether port 0 is acceptable: in memory, for tests that bind first and ask afterwards.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ports {
    Fixed,
    Ephemeral,
}

/// Checks everything. `path` is what errors call the file.
pub(crate) fn check(raw: RawGroup, path: &Path, ports: Ports) -> Result<Group, GenesisError> {
    if raw.format != FORMAT {
        let remedy = format!("this version of stylite reads format {FORMAT}");
        return Err(field(path, "format", raw.format, &remedy));
    }
    name(path, "name", &raw.name)?;
    name(path, "service", &raw.service)?;
    let agreement = Agreement::from_word(&raw.agreement).ok_or_else(|| {
        field(path, "agreement", quoted(&raw.agreement), "must be \"pbft\" or \"none\"")
    })?;
    let quorums = quorums(path, &raw)?;
    if agreement == Agreement::None && quorums.n() > 1 {
        let remedy = "agreement = \"none\" is one server that nobody replicates: 1 replica";
        return Err(field(path, "replicas", quorums.n(), remedy));
    }
    let stripe = Stripe::new(raw.pillars).ok_or_else(|| {
        let remedy = format!("1 to {} pillars", limits::PILLARS_MAX);
        field(path, "pillars", raw.pillars, &remedy)
    })?;
    let partitions = raw.partitions.unwrap_or(1);
    within(path, "partitions", partitions.into(), 1, limits::PARTITIONS_MAX as u64)?;
    let settings = settings(path, &raw, agreement, quorums)?;
    switches::check(&settings.chosen())
        .map_err(|conflict| GenesisError::Switches { path: path.to_path_buf(), conflict })?;
    let initial_state = initial_state(path, &raw)?;
    if initial_state.is_some() && partitions > 1 {
        let remedy = "a group that begins with a snapshot has one partition";
        return Err(field(path, "partitions", partitions, remedy));
    }
    let replicas = replicas(path, &raw, ports)?;
    let clients = clients(path, &raw.client)?;
    let group = identity(&raw, &settings, initial_state, (&replicas, &clients));
    let replica_keys: Vec<_> = replicas.iter().map(|r| r.keys).collect();
    let client_keys: Vec<_> = clients.iter().map(|c| (c.id, c.keys)).collect();
    let directory = Directory::new(group, Epoch(0), raw.pillars, &replica_keys, &client_keys)
        .map_err(|source| GenesisError::Keys { path: path.to_path_buf(), source })?;
    Ok(Group {
        path: path.to_path_buf(),
        name: raw.name,
        service: raw.service,
        quorums,
        stripe,
        settings,
        initial_state,
        replicas,
        clients,
        directory,
        partition: None,
    })
}

/// An error about one field.
pub(crate) fn field(path: &Path, field: &str, value: impl Display, remedy: &str) -> GenesisError {
    GenesisError::Field {
        path: path.to_path_buf(),
        field: field.to_owned(),
        value: value.to_string(),
        remedy: remedy.to_owned(),
    }
}

fn quoted(text: &str) -> String {
    // Whatever stands in the file must not be able to flood or confuse a terminal.
    let shown: String = text.chars().take(80).collect();
    format!("{shown:?}")
}

fn within(path: &Path, what: &str, value: u64, min: u64, max: u64) -> Result<u64, GenesisError> {
    if (min..=max).contains(&value) {
        Ok(value)
    } else {
        Err(field(path, what, value, &format!("must be {min} to {max}")))
    }
}

/// Checks a name of a group, a service or a client.
pub(crate) fn name(path: &Path, what: &str, name: &str) -> Result<(), GenesisError> {
    let good = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    let starts = name.starts_with(|c: char| c.is_ascii_alphanumeric());
    if starts && name.len() <= NAME_BYTES_MAX && name.chars().all(good) {
        return Ok(());
    }
    let remedy = format!(
        "must be 1 to {NAME_BYTES_MAX} letters, digits, '-', '_' or '.', beginning with a letter \
         or digit"
    );
    Err(field(path, what, quoted(name), &remedy))
}

/// Checks a host name or address.
pub(crate) fn host(path: &Path, what: &str, host: &str) -> Result<(), GenesisError> {
    address::check_host(host).map_err(|remedy| field(path, what, quoted(host), &remedy))
}

fn quorums(path: &Path, raw: &RawGroup) -> Result<Quorums, GenesisError> {
    within(path, "replicas", u64::from(raw.replicas), 1, limits::REPLICAS_MAX as u64)?;
    Quorums::pbft(raw.replicas, raw.faults).ok_or_else(|| {
        let n = raw.replicas;
        let f = (n - 1) / 3;
        let needed = u32::from(raw.faults) * 3 + 1;
        let remedy = format!(
            "{n} replicas tolerate at most {f} faults (n >= 3f + 1); set faults = {f} or use \
             {needed} replicas"
        );
        field(path, "faults", raw.faults, &remedy)
    })
}

fn settings(
    path: &Path,
    raw: &RawGroup,
    agreement: Agreement,
    quorums: Quorums,
) -> Result<Settings, GenesisError> {
    let default = Settings::default();
    let pillars = u64::from(raw.pillars);
    let interval = raw.checkpoint_interval.unwrap_or(default.checkpoint_interval);
    within(path, "checkpoint_interval", interval, pillars, CHECKPOINT_INTERVAL_MAX)?;
    let window = raw.window.unwrap_or_else(|| window_for(quorums, interval));
    let max = window_max(quorums);
    if window < 2 * interval || !window.is_multiple_of(interval) || window > max {
        let remedy = format!(
            "must be a multiple of checkpoint_interval ({interval}), at least twice it, at most \
             {max} with {} replicas",
            quorums.n()
        );
        return Err(field(path, "window", window, &remedy));
    }
    let skew = raw.clock_skew_ms.unwrap_or(default.clock_skew_max.0 / 1_000_000);
    within(path, "clock_skew_ms", skew, 1, CLOCK_SKEW_MS_MAX)?;
    let timeout = raw.view_timeout_ms.unwrap_or(default.view_timeout.0 / 1_000_000);
    within(path, "view_timeout_ms", timeout, VIEW_TIMEOUT_MS_MIN, VIEW_TIMEOUT_MS_MAX)?;
    Ok(Settings {
        agreement,
        checkpoint_interval: interval,
        window,
        clock_skew_max: Span::millis(skew),
        view_timeout: Span::millis(timeout),
        leaders: leaders(path, raw, interval)?,
        commits: word(path, "commits", raw.ways.commits.as_deref(), Commits::from_word)?,
        replies: word(path, "replies", raw.ways.replies.as_deref(), Replies::from_word)?,
        repliers: word(path, "repliers", raw.ways.repliers.as_deref(), Repliers::from_word)?,
        bodies: word(path, "bodies", raw.ways.bodies.as_deref(), Bodies::from_word)?,
        tentative: word(path, "tentative", raw.ways.tentative.as_deref(), from_on_off)?,
        reads: word(path, "reads", raw.ways.reads.as_deref(), Reads::from_word)?,
        idle: word(path, "idle", raw.ways.idle.as_deref(), Idle::from_word)?,
        partitions: raw.partitions.unwrap_or(default.partitions),
        batching: batching(path, &raw.batching, window / pillars)?,
        drills: raw.drills.unwrap_or(default.drills),
    })
}

/// Where leaders rotate, each has to have a number of every pillar in each checkpoint interval: in
/// some of them, clients' frames are its alone to propose.
fn leaders(path: &Path, raw: &RawGroup, interval: u64) -> Result<Leaders, GenesisError> {
    let Some(word) = &raw.ways.leaders else { return Ok(Leaders::default()) };
    let leaders = Leaders::from_word(word)
        .ok_or_else(|| field(path, "leaders", quoted(word), "must be \"fixed\" or \"rotating\""))?;
    let least = u64::from(raw.pillars) * u64::from(raw.replicas);
    if leaders == Leaders::Rotating && interval < least {
        let remedy = format!("with rotating leaders at least pillars times replicas: {least}");
        return Err(field(path, "checkpoint_interval", interval, &remedy));
    }
    Ok(leaders)
}

/// The value of a switch: its word, or the default.
fn word<T: Default>(
    path: &Path,
    name: &str,
    given: Option<&str>,
    from_word: impl Fn(&str) -> Option<T>,
) -> Result<T, GenesisError> {
    let Some(given) = given else { return Ok(T::default()) };
    let values = switches::SWITCHES.iter().find(|switch| switch.name == name);
    let values = values.map_or(&[][..], |switch| switch.values);
    let must = || format!("must be \"{}\"", values.join("\" or \""));
    from_word(given).ok_or_else(|| field(path, name, quoted(given), &must()))
}

fn initial_state(path: &Path, raw: &RawGroup) -> Result<Option<Digest>, GenesisError> {
    let text = raw.initial_state.as_ref();
    text.map(|text| hex_field(path, "initial_state", text).map(Digest)).transpose()
}

fn batching(path: &Path, raw: &RawBatching, share: u64) -> Result<Batching, GenesisError> {
    let default = Batching::default();
    let frames = raw.frames_max.unwrap_or(default.frames_max);
    within(path, "batching.frames_max", frames as u64, 1, limits::BATCH_FRAMES_MAX as u64)?;
    let bytes = raw.bytes_max.unwrap_or(default.bytes_max);
    let (min, max) = (BATCH_BYTES_MIN as u64, limits::BATCH_BYTES_MAX as u64);
    within(path, "batching.bytes_max", bytes as u64, min, max)?;
    let delay = raw.delay_us.unwrap_or(default.delay.0 / 1_000);
    within(path, "batching.delay_us", delay, 0, BATCH_DELAY_US_MAX)?;
    // The default gives way to a small window; what somebody wrote down does not.
    let small = default.in_flight_max.min(usize::try_from(share).unwrap_or(usize::MAX));
    let in_flight = raw.in_flight_max.unwrap_or(small);
    within(path, "batching.in_flight_max", in_flight as u64, 1, share)?;
    Ok(Batching {
        frames_max: frames,
        bytes_max: bytes,
        delay: Span::micros(delay),
        in_flight_max: in_flight,
        unbatched: raw.unbatched.unwrap_or(default.unbatched),
    })
}

fn replicas(
    path: &Path,
    raw: &RawGroup,
    allowed: Ports,
) -> Result<Vec<ReplicaEntry>, GenesisError> {
    if raw.replica.len() != usize::from(raw.replicas) {
        let remedy = format!("but there are {} [[replica]] tables", raw.replica.len());
        return Err(field(path, "replicas", raw.replicas, &remedy));
    }
    let mut taken = BTreeSet::new();
    let mut entries = Vec::with_capacity(raw.replica.len());
    for (id, entry) in (0u16..).zip(&raw.replica) {
        if entry.id != id {
            let remedy = format!("[[replica]] tables stand in order: this one is {id}");
            return Err(field(path, "replica.id", entry.id, &remedy));
        }
        let lanes = raw.pillars.saturating_mul(raw.partitions.unwrap_or(1));
        let addresses = addresses(path, entry, lanes)?;
        for address in &addresses {
            claim(path, id, address, allowed, &mut taken)?;
        }
        let parts = [&entry.ed25519, &entry.x25519, &entry.certificate];
        let keys = keys(path, &format!("replica {id}"), parts)?;
        entries.push(ReplicaEntry { id: ReplicaId(id), addresses, keys });
    }
    Ok(entries)
}

/// Everybody needs an address of its own.
fn claim(
    path: &Path,
    id: u16,
    address: &Address,
    allowed: Ports,
    taken: &mut BTreeSet<String>,
) -> Result<(), GenesisError> {
    let what = |name: &str| format!("replica {id} {name}");
    let Some((host, port)) = address.host_and_port() else {
        // A socket is one file, whatever is sent over it.
        let file = address.path().map(|file| file.display().to_string()).unwrap_or_default();
        if taken.insert(file) {
            return Ok(());
        }
        let remedy = "another pillar listens on this socket already: give each one of its own";
        return Err(field(path, &what("addresses"), quoted(&address.to_string()), remedy));
    };
    if port == 0 {
        if allowed == Ports::Ephemeral {
            return Ok(());
        }
        return Err(field(path, &what("port"), port, "must be 1 to 65535"));
    }
    if taken.insert(address.to_string()) {
        return Ok(());
    }
    let remedy = format!(
        "another pillar listens on port {port} of {host} already; replicas of one host are as \
         many ports apart as there are pillars, or more"
    );
    Err(field(path, &what("port"), port, &remedy))
}

/// Where a replica listens: one address for each pillar, or a host with its ports.
fn addresses(path: &Path, entry: &RawReplica, lanes: u16) -> Result<Vec<Address>, GenesisError> {
    let id = entry.id;
    let what = format!("replica {id} addresses");
    let alone = entry.host.is_none() && entry.port.is_none() && entry.ports.is_none();
    match (&entry.addresses, &entry.host) {
        (Some(texts), _) if alone => {
            if texts.len() != usize::from(lanes) {
                let remedy = format!("one address per pillar, {lanes} in all");
                return Err(field(path, &what, texts.len(), &remedy));
            }
            let one = |text: &String| {
                Address::parse(text).map_err(|remedy| field(path, &what, quoted(text), &remedy))
            };
            texts.iter().map(one).collect()
        }
        (None, Some(name)) => {
            host(path, &format!("replica {id} host"), name)?;
            let ports = ports(path, entry, lanes)?;
            Ok(ports.into_iter().map(|port| Address::tcp(name, port)).collect())
        }
        _ => {
            let remedy = "give a host with its port or ports, or addresses, one of the two";
            Err(field(path, &format!("replica {id} host"), "both or none", remedy))
        }
    }
}

fn ports(path: &Path, entry: &RawReplica, lanes: u16) -> Result<Vec<u16>, GenesisError> {
    let id = entry.id;
    match (&entry.port, &entry.ports) {
        (Some(0), None) => Ok(vec![0; usize::from(lanes)]),
        (Some(base), None) => {
            let last = base.checked_add(lanes - 1).ok_or_else(|| {
                let max = u16::MAX - (lanes - 1);
                let remedy = format!("{lanes} pillars need as many ports: at most {max}");
                field(path, &format!("replica {id} port"), base, &remedy)
            })?;
            Ok((*base..=last).collect())
        }
        (None, Some(ports)) if ports.len() == usize::from(lanes) => Ok(ports.clone()),
        (None, Some(ports)) => {
            let remedy = format!("one port per pillar, {lanes} in all");
            Err(field(path, &format!("replica {id} ports"), ports.len(), &remedy))
        }
        _ => {
            let remedy = "give port (of pillar 0; the others follow) or ports, one of the two";
            Err(field(path, &format!("replica {id} port"), "both or none", remedy))
        }
    }
}

fn clients(path: &Path, raw: &[RawClient]) -> Result<Vec<ClientEntry>, GenesisError> {
    let max = limits::CLIENTS_MAX;
    if raw.len() > max {
        return Err(field(path, "client", raw.len(), &format!("at most {max} clients")));
    }
    let mut names = BTreeSet::new();
    let mut entries = Vec::with_capacity(raw.len());
    for entry in raw {
        let id = entry.id;
        name(path, &format!("client {id} name"), &entry.name)?;
        if !names.insert(entry.name.as_str()) {
            let what = format!("client {id} name");
            return Err(field(path, &what, quoted(&entry.name), "another client has this name"));
        }
        let parts = [&entry.ed25519, &entry.x25519, &entry.certificate];
        let keys = keys(path, &format!("client {id}"), parts)?;
        entries.push(ClientEntry { id: ClientId(id), name: entry.name.clone(), keys });
    }
    entries.sort_by_key(|entry| entry.id);
    if let Some(pair) = entries.windows(2).find(|pair| pair[0].id == pair[1].id) {
        return Err(field(path, "client.id", pair[0].id, "two clients have this number"));
    }
    Ok(entries)
}

fn keys(path: &Path, who: &str, parts: [&String; 3]) -> Result<PublicKeys, GenesisError> {
    let [ed25519, x25519, certificate] = parts;
    Ok(PublicKeys {
        ed25519: hex_field(path, &format!("{who} ed25519"), ed25519)?,
        x25519: hex_field(path, &format!("{who} x25519"), x25519)?,
        certificate: Signature(hex_field(path, &format!("{who} certificate"), certificate)?),
    })
}

fn hex_field<const N: usize>(path: &Path, what: &str, text: &str) -> Result<[u8; N], GenesisError> {
    let mut bytes = [0; N];
    hex::decode_to_slice(text, &mut bytes).map_err(|_| {
        field(path, what, quoted(text), &format!("must be {} hexadecimal digits", 2 * N))
    })?;
    Ok(bytes)
}

/// The digest of everything that members must agree on, each part sized or of fixed length.
/// Hosts and ports are left out: they are local, differ between networks, and may change.
fn identity(
    raw: &RawGroup,
    settings: &Settings,
    initial_state: Option<Digest>,
    (replicas, clients): (&[ReplicaEntry], &[ClientEntry]),
) -> GroupId {
    let mut hasher = Hasher::new(Domain::Genesis);
    hasher.update_u64(u64::from(raw.format));
    for text in [&raw.name, &raw.service, &raw.agreement] {
        hasher.update_sized(text.as_bytes());
    }
    let batching = &settings.batching;
    for number in [
        u64::from(raw.replicas),
        u64::from(raw.faults),
        u64::from(raw.pillars),
        settings.checkpoint_interval,
        settings.window,
        settings.clock_skew_max.0,
        settings.view_timeout.0,
        u64::from(settings.drills),
        batching.frames_max as u64,
        batching.bytes_max as u64,
        batching.delay.0,
        batching.in_flight_max as u64,
        u64::from(batching.unbatched),
    ] {
        hasher.update_u64(number);
    }
    // A switch at its default leaves no trace, so that it may be newer than the group.
    for Choice(name, value) in settings.chosen() {
        let older = ["agreement", "batching"].contains(&name);
        if !older && switches::default_of(name) != Some(value) {
            hasher.update_sized(name.as_bytes()).update_sized(value.as_bytes());
        }
    }
    if settings.partitions > 1 {
        hasher.update_u64(u64::from(settings.partitions));
    }
    hasher.update_sized(initial_state.as_ref().map_or(&[], |digest| &digest.0[..]));
    hasher.update_u64(replicas.len() as u64);
    for replica in replicas {
        hasher.update_u64(u64::from(replica.id.0));
        update_keys(&mut hasher, &replica.keys);
    }
    hasher.update_u64(clients.len() as u64);
    for client in clients {
        hasher.update_u64(u64::from(client.id.0));
        hasher.update_sized(client.name.as_bytes());
        update_keys(&mut hasher, &client.keys);
    }
    GroupId(hasher.finish().0)
}

fn update_keys(hasher: &mut Hasher, keys: &PublicKeys) {
    hasher.update(&keys.ed25519).update(&keys.x25519).update(&keys.certificate.0);
}
