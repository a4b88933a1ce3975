//! Founding a group: keys for everybody, the configuration, and both on disk.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use auth::{Peer, PublicKeys, Secret};
use base::{ClientId, Digest, ReplicaId, limits};

use crate::address::{Address, Transport};
use crate::check::{self, Ports, field};
use crate::error::GenesisError;
use crate::file;
use crate::group::{GROUP_FILE, Group};
use crate::key_file;
use crate::raw::{FORMAT, RawBatching, RawClient, RawGroup, RawReplica, RawWays};
use crate::settings::{Settings, on_off};

/// The port of the first pillar of the first replica, unless said otherwise.
pub const PORT_DEFAULT: u16 = 7400;
/// Clients of a group, unless said otherwise.
pub const CLIENTS_DEFAULT: u32 = 4;

/// What a group is to be. [`InitOptions::default`] is a group of four on this machine.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct InitOptions {
    /// The group's name.
    pub name: String,
    /// The service it replicates.
    pub service: String,
    /// n, 1 to [`limits::REPLICAS_MAX`].
    pub replicas: u16,
    /// f; as many as n allows when not given.
    pub faults: Option<u16>,
    /// P, 1 to [`limits::PILLARS_MAX`].
    pub pillars: u16,
    /// How many clients get a key, 0 to [`limits::CLIENTS_MAX`].
    pub clients: u32,
    /// Hosts of the replicas: one for all of them, or one each. A host with several network
    /// interfaces is their addresses with `+` between them: its pillars take them in turn.
    pub hosts: Vec<String>,
    /// The first port on each host; the replicas of one host follow one another, one port per
    /// pillar. 0 only for [`LocalGroup::generate`]: all ports are 0, to be filled in.
    pub port: u16,
    /// What carries packets. Over anything but TCP, hosts and port are without meaning.
    pub transport: Transport,
    /// The directory of the sockets, if that is not TCP. [`init`] takes `sockets` beside the
    /// configuration when none is given.
    pub sockets: Option<PathBuf>,
    /// What the members do alike.
    pub settings: Settings,
    /// The root over the service's objects that the group begins with, if it is founded from a
    /// snapshot.
    pub initial_state: Option<Digest>,
}

impl Default for InitOptions {
    fn default() -> InitOptions {
        InitOptions {
            name: "stylite".to_owned(),
            service: "kv".to_owned(),
            replicas: 4,
            faults: None,
            pillars: 1,
            clients: CLIENTS_DEFAULT,
            hosts: vec!["127.0.0.1".to_owned()],
            port: PORT_DEFAULT,
            transport: Transport::default(),
            sockets: None,
            settings: Settings::default(),
            initial_state: None,
        }
    }
}

/// A group with everybody's secrets in one hand: at its founding, and in tests and local
/// groups whose members share a process.
#[derive(Clone, Debug)]
pub struct LocalGroup {
    /// The group.
    pub group: Group,
    /// The replicas' secrets, in the order of their numbers.
    pub replicas: Vec<Secret>,
    /// The clients' secrets, in the order of their numbers.
    pub clients: Vec<Secret>,
}

impl LocalGroup {
    /// Makes keys for everybody and a checked configuration, in memory.
    ///
    /// # Errors
    /// When the options are not those of a legal group, or there is no randomness.
    pub fn generate(options: &InitOptions) -> Result<LocalGroup, GenesisError> {
        LocalGroup::generate_for(options, Path::new("(options)"))
    }

    fn generate_for(options: &InitOptions, path: &Path) -> Result<LocalGroup, GenesisError> {
        // Before a single key is made: how many.
        bounded(path, "replicas", usize::from(options.replicas), 1, limits::REPLICAS_MAX)?;
        bounded(path, "clients", options.clients as usize, 0, limits::CLIENTS_MAX)?;
        bounded(path, "pillars", usize::from(options.pillars), 1, limits::PILLARS_MAX)?;
        let partitions = usize::from(options.settings.partitions);
        bounded(path, "partitions", partitions, 1, limits::PARTITIONS_MAX)?;
        let replicas = secrets(usize::from(options.replicas))?;
        let clients = secrets(options.clients as usize)?;
        let raw = raw_group(options, path, &replicas, &clients)?;
        let ports = if options.port == 0 { Ports::Ephemeral } else { Ports::Fixed };
        let group = check::check(raw, path, ports)?;
        Ok(LocalGroup { group, replicas, clients })
    }

    /// The secret of a member; `None` when there is none such.
    #[must_use]
    pub fn secret(&self, peer: Peer) -> Option<&Secret> {
        match peer {
            Peer::Replica(id) => self.replicas.get(usize::from(id.0)),
            Peer::Client(id) => self.clients.get(id.0 as usize),
        }
    }

    /// Writes configuration and key files into `dir`, which is created when it is not there.
    /// The configuration comes last: without it there is no group.
    ///
    /// # Errors
    /// [`GenesisError::Exists`] when `dir` has a group or a key file of one already;
    /// [`GenesisError::Io`]. What was written before a failure stays: remove the directory.
    pub fn save(&mut self, dir: &Path) -> Result<(), GenesisError> {
        let path = dir.join(GROUP_FILE);
        file::refuse_existing(&path)?;
        let keys = dir.join("keys");
        file::create_dir(dir, 0o755)?;
        file::create_dir(&keys, 0o700)?;
        self.group.path.clone_from(&path);
        let replicas = (0..).map(|id| Peer::Replica(ReplicaId(id))).zip(&self.replicas);
        let clients = (0..).map(|id| Peer::Client(ClientId(id))).zip(&self.clients);
        for (peer, secret) in replicas.chain(clients) {
            key_file::write(&self.group.key_path(peer), peer, &self.group.name, secret)?;
        }
        file::sync_dir(&keys)?;
        file::create(&path, 0o644, self.group.to_toml().as_bytes())?;
        file::sync_dir(dir)?;
        // The directory itself is an entry of its parent.
        match dir.canonicalize().ok().as_deref().and_then(Path::parent) {
            Some(parent) => file::sync_dir(parent),
            None => Ok(()),
        }
    }
}

impl Group {
    /// A group in memory for tests: fresh keys, two clients, all ports 0 until
    /// [`Group::set_address`] fills them in.
    ///
    /// # Errors
    /// When n, f, P or the service's name are not those of a legal group.
    pub fn for_test(
        n: u16,
        f: u16,
        pillars: u16,
        service: &str,
    ) -> Result<LocalGroup, GenesisError> {
        LocalGroup::generate(&InitOptions {
            name: "test".to_owned(),
            service: service.to_owned(),
            replicas: n,
            faults: Some(f),
            pillars,
            clients: 2,
            port: 0,
            ..InitOptions::default()
        })
    }
}

/// Founds a group in `dir`: `group.toml`, and in `keys` one key file per replica and client.
///
/// # Errors
/// [`GenesisError::Exists`] when there is a group already; when the options are not those of a
/// legal group; when something cannot be written.
pub fn init(dir: &Path, options: &InitOptions) -> Result<Group, GenesisError> {
    let path = dir.join(GROUP_FILE);
    file::refuse_existing(&path)?;
    if options.port == 0 {
        return Err(field(&path, "port", 0, "must be 1 to 65535"));
    }
    let sockets = match &options.sockets {
        Some(sockets) => absolute(sockets)?,
        None => absolute(dir)?.join("sockets"),
    };
    let options = InitOptions { sockets: Some(sockets), ..options.clone() };
    let mut local = LocalGroup::generate_for(&options, &path)?;
    local.save(dir)?;
    Ok(local.group)
}

fn bounded(
    path: &Path,
    what: &str,
    value: usize,
    min: usize,
    max: usize,
) -> Result<(), GenesisError> {
    if (min..=max).contains(&value) {
        return Ok(());
    }
    Err(field(path, what, value, &format!("must be {min} to {max}")))
}

fn secrets(count: usize) -> Result<Vec<Secret>, GenesisError> {
    let made = (0..count).map(|_| Secret::generate());
    made.collect::<Result<_, _>>().map_err(GenesisError::Randomness)
}

fn raw_group(
    options: &InitOptions,
    path: &Path,
    replicas: &[Secret],
    clients: &[Secret],
) -> Result<RawGroup, GenesisError> {
    let settings = &options.settings;
    let batching = &settings.batching;
    Ok(RawGroup {
        format: FORMAT,
        name: options.name.clone(),
        service: options.service.clone(),
        agreement: options.settings.agreement.word().to_owned(),
        replicas: options.replicas,
        faults: options.faults.unwrap_or((options.replicas - 1) / 3),
        pillars: options.pillars,
        partitions: (settings.partitions != 1).then_some(settings.partitions),
        checkpoint_interval: Some(settings.checkpoint_interval),
        // The default gives way to a large group or another interval; what was chosen does not.
        window: (settings.window != Settings::default().window).then_some(settings.window),
        clock_skew_ms: Some(settings.clock_skew_max.0 / 1_000_000),
        view_timeout_ms: Some(settings.view_timeout.0 / 1_000_000),
        ways: RawWays {
            leaders: Some(settings.leaders.word().to_owned()),
            commits: Some(settings.commits.word().to_owned()),
            replies: Some(settings.replies.word().to_owned()),
            repliers: Some(settings.repliers.word().to_owned()),
            bodies: Some(settings.bodies.word().to_owned()),
            tentative: Some(on_off(settings.tentative).to_owned()),
            reads: Some(settings.reads.word().to_owned()),
            idle: Some(settings.idle.word().to_owned()),
        },
        drills: Some(settings.drills),
        initial_state: options.initial_state.map(|digest| hex::encode(digest.0)),
        batching: RawBatching {
            frames_max: Some(batching.frames_max),
            bytes_max: Some(batching.bytes_max),
            delay_us: Some(batching.delay.0 / 1_000),
            in_flight_max: Some(batching.in_flight_max),
            unbatched: Some(batching.unbatched),
        },
        replica: raw_replicas(options, path, replicas)?,
        client: (0..).zip(clients).map(|(id, secret)| raw_client(id, secret)).collect(),
    })
}

fn absolute(path: &Path) -> Result<PathBuf, GenesisError> {
    std::path::absolute(path).map_err(|source| GenesisError::Io {
        path: path.to_path_buf(),
        doing: "find the directory",
        source,
    })
}

fn raw_replicas(
    options: &InitOptions,
    path: &Path,
    secrets: &[Secret],
) -> Result<Vec<RawReplica>, GenesisError> {
    let hosts = &options.hosts;
    if hosts.len() != 1 && hosts.len() != secrets.len() {
        let remedy = format!("one host for all replicas, or {} of them", secrets.len());
        return Err(field(path, "hosts", hosts.join(","), &remedy));
    }
    let mut next: BTreeMap<&str, u32> = BTreeMap::new();
    let mut entries = Vec::with_capacity(secrets.len());
    for (id, (secret, host)) in (0..).zip(secrets.iter().zip(hosts.iter().cycle())) {
        let addresses = match options.transport {
            Transport::Tcp => ports_at(options, path, (id, host), &mut next)?,
            Transport::Unix | Transport::Shm => sockets_of(options, path, id)?,
        };
        let keys = hex_keys(&secret.public(Peer::Replica(ReplicaId(id))));
        let [ed25519, x25519, certificate] = keys;
        let (host, port, ports) = (None, None, None);
        let addresses = Some(addresses);
        entries.push(RawReplica { id, host, port, ports, addresses, ed25519, x25519, certificate });
    }
    Ok(entries)
}

/// The addresses of replica `id` at `host`, which may have several interfaces. `next` has the next
/// free port of each.
fn ports_at<'a>(
    options: &InitOptions,
    path: &Path,
    (id, host): (u16, &'a str),
    next: &mut BTreeMap<&'a str, u32>,
) -> Result<Vec<String>, GenesisError> {
    let interfaces: Vec<&str> = host.split('+').collect();
    let count = usize::from(options.pillars) * usize::from(options.settings.partitions);
    let mut addresses = Vec::with_capacity(count);
    if interfaces.len() > usize::from(options.pillars) {
        let remedy = format!(
            "more interfaces than pillars: each pillar listens on one; found the group with \
             {} pillars or more",
            interfaces.len()
        );
        return Err(field(path, &format!("replica {id} host"), host, &remedy));
    }
    for interface in interfaces.iter().cycle().take(count) {
        check::host(path, &format!("replica {id} host"), interface)?;
        let port = next.entry(interface).or_insert(options.port.into());
        let mine = u16::try_from(*port).map_err(|_| past_the_last(options, path, id))?;
        *port += u32::from(options.port > 0);
        addresses.push(Address::tcp(interface, mine).to_string());
    }
    Ok(addresses)
}

/// The sockets of replica `id`, one for each pillar.
fn sockets_of(options: &InitOptions, path: &Path, id: u16) -> Result<Vec<String>, GenesisError> {
    let Some(dir) = &options.sockets else {
        let remedy = "sockets need a directory";
        return Err(field(path, "transport", options.transport.word(), remedy));
    };
    let one = |(partition, pillar): (u16, u16)| {
        let file = match options.settings.partitions {
            1 => dir.join(format!("{id}-{pillar}.sock")),
            _ => dir.join(format!("{id}-{partition}-{pillar}.sock")),
        };
        let text = format!("{}:{}", options.transport.word(), file.display());
        let bad = |remedy: String| field(path, "socket-dir", file.display(), &remedy);
        Address::parse(&text).map_err(bad).map(|_| text)
    };
    let partitions = 0..options.settings.partitions;
    let all = partitions.flat_map(|partition| (0..options.pillars).map(move |p| (partition, p)));
    all.map(one).collect()
}

/// The ports of replica `id` are beyond the last one that there is.
fn past_the_last(options: &InitOptions, path: &Path, id: u16) -> GenesisError {
    let remedy = format!(
        "the ports of replica {id} run past 65535: each replica of a host takes {} of them, \
         beginning here",
        u32::from(options.pillars) * u32::from(options.settings.partitions)
    );
    field(path, "port", options.port, &remedy)
}

fn raw_client(id: u32, secret: &Secret) -> RawClient {
    let [ed25519, x25519, certificate] = hex_keys(&secret.public(Peer::Client(ClientId(id))));
    RawClient { id, name: format!("client-{id}"), ed25519, x25519, certificate }
}

fn hex_keys(keys: &PublicKeys) -> [String; 3] {
    [hex::encode(keys.ed25519), hex::encode(keys.x25519), hex::encode(keys.certificate.0)]
}
