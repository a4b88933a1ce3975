//! A checked group: who its members are, where they listen, what they agreed on.

use std::path::{Path, PathBuf};

use auth::{AuthError, Directory, Peer, PublicKeys, Secret};
use base::digest::{Domain, Hasher};
use base::{ClientId, Digest, Epoch, GroupId, PillarId, Quorums, ReplicaId, Stripe};

use crate::address::{Address, Transport};
use crate::error::GenesisError;
use crate::settings::Settings;
use crate::{check, file, key_file, raw, write};

/// The file that holds a group's configuration, in the group's directory.
pub const GROUP_FILE: &str = "group.toml";

/// A group's genesis configuration. All fields and all relations between them are checked.
#[derive(Clone, Debug)]
pub struct Group {
    pub(crate) path: PathBuf,
    pub(crate) name: String,
    pub(crate) service: String,
    pub(crate) quorums: Quorums,
    pub(crate) stripe: Stripe,
    pub(crate) settings: Settings,
    pub(crate) initial_state: Option<Digest>,
    pub(crate) replicas: Vec<ReplicaEntry>,
    pub(crate) clients: Vec<ClientEntry>,
    pub(crate) directory: Directory,
    /// Which partition of a larger group this is, if it is one.
    pub(crate) partition: Option<u16>,
}

/// One replica, as the configuration knows it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ReplicaEntry {
    /// Its number, and its place in the list.
    pub id: ReplicaId,
    /// Where each pillar listens and is reached, partition by partition. Not agreed.
    pub addresses: Vec<Address>,
    /// Its public keys.
    pub keys: PublicKeys,
}

/// One principal that may send requests.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ClientEntry {
    /// Its number.
    pub id: ClientId,
    /// What people call it; unique in the group.
    pub name: String,
    /// Its public keys.
    pub keys: PublicKeys,
}

impl ReplicaEntry {
    /// The ports of those pillars that are reached over TCP.
    #[must_use]
    pub fn ports(&self) -> Vec<u16> {
        self.addresses.iter().filter_map(Address::port).collect()
    }

    /// The host and the ports, if all pillars are reached over TCP at one host.
    #[must_use]
    pub fn host_and_ports(&self) -> Option<(&str, Vec<u16>)> {
        let (host, _) = self.addresses.first()?.host_and_port()?;
        let port = |address: &Address| {
            address.host_and_port().filter(|(other, _)| *other == host).map(|(_, port)| port)
        };
        let ports = self.addresses.iter().map(port).collect::<Option<_>>()?;
        Some((host, ports))
    }

    /// What carries its packets: of those of its pillars, the one that asks most of a host.
    #[must_use]
    pub fn transport(&self) -> Transport {
        self.addresses.iter().map(Address::transport).max().unwrap_or_default()
    }

    /// Where it is, for people: all of its addresses, in short.
    #[must_use]
    pub fn place(&self) -> String {
        if let Some((host, ports)) = self.host_and_ports() {
            let ports: Vec<String> = ports.iter().map(u16::to_string).collect();
            return format!("{host}:{}", ports.join(","));
        }
        let addresses: Vec<String> = self.addresses.iter().map(Address::to_string).collect();
        addresses.join(", ")
    }
}

impl Group {
    /// Reads and checks a configuration. A directory stands for the `group.toml` in it.
    ///
    /// # Errors
    /// When the file cannot be read, or anything in it is not as it should be.
    pub fn load(path: &Path) -> Result<Group, GenesisError> {
        let path = if path.is_dir() { path.join(GROUP_FILE) } else { path.to_path_buf() };
        let text = file::read_config(&path)?;
        Group::parse(&text, &path)
    }

    /// Checks a configuration's text; `path` is what errors call it and where key files are
    /// looked for.
    ///
    /// # Errors
    /// When anything in it is not as it should be.
    pub fn parse(text: &str, path: &Path) -> Result<Group, GenesisError> {
        check::check(raw::parse(text, path)?, path, check::Ports::Fixed)
    }

    /// The configuration as `init` writes it, with its comments.
    #[must_use]
    pub fn to_toml(&self) -> String {
        write::to_toml(self)
    }

    /// The group's identity: the digest of everything agreed. Hosts and ports are not in it,
    /// because the same group looks different from different networks and may move; a wrong
    /// address is found out by the handshake.
    #[must_use]
    pub fn id(&self) -> GroupId {
        self.directory.group()
    }

    /// The epoch that this configuration describes: the first.
    #[must_use]
    pub fn epoch(&self) -> Epoch {
        self.directory.epoch()
    }

    /// The group's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Which service the group replicates: `kv`, `echo`, or a user's own.
    #[must_use]
    pub fn service(&self) -> &str {
        &self.service
    }

    /// n, f and what follows from them.
    #[must_use]
    pub fn quorums(&self) -> Quorums {
        self.quorums
    }

    /// P, and the striping of sequence numbers over the pillars.
    #[must_use]
    pub fn stripe(&self) -> Stripe {
        self.stripe
    }

    /// The number of pillars, P.
    #[must_use]
    pub fn pillars(&self) -> u16 {
        self.stripe.pillars()
    }

    /// Into how many partitions the service's state falls. A group of several is none that
    /// anything is agreed in: its partitions are ([`Group::parts`]).
    #[must_use]
    pub fn partitions(&self) -> u16 {
        self.settings.partitions
    }

    /// Which partition of a larger group this is; `None` of a group that is whole.
    #[must_use]
    pub fn partition(&self) -> Option<u16> {
        self.partition
    }

    /// The groups that agreement takes place in, in the order of their numbers: the partitions, or
    /// this group itself where it has but one.
    ///
    /// A partition has the members and the keys of its group, addresses of its own and an identity
    /// that follows from the group's and its number: nothing that is signed, authenticated or
    /// sealed for one partition means anything in another.
    #[must_use]
    pub fn parts(&self) -> Vec<Group> {
        match self.partitions() {
            1 => vec![self.clone()],
            several => (0..several).map(|number| self.part(number)).collect(),
        }
    }

    fn part(&self, number: u16) -> Group {
        let id =
            Hasher::new(Domain::Partition).update(&self.id().0).update_u64(number.into()).finish();
        let mut part = self.clone();
        part.directory = self.directory.in_group(GroupId(id.0));
        part.settings.partitions = 1;
        part.partition = Some(number);
        let lanes = usize::from(self.pillars());
        for replica in &mut part.replicas {
            let own = usize::from(number) * lanes..(usize::from(number) + 1) * lanes;
            replica.addresses = replica.addresses[own].to_vec();
        }
        part
    }

    /// What the members do alike.
    #[must_use]
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// The root over the service's objects that the group begins with, when it was founded from
    /// a snapshot; `None`: with the service's own initial state.
    #[must_use]
    pub fn initial_state(&self) -> Option<Digest> {
        self.initial_state
    }

    /// The directory that the configuration is in.
    #[must_use]
    pub fn dir(&self) -> &Path {
        let beside = self.path.parent().filter(|parent| !parent.as_os_str().is_empty());
        beside.unwrap_or(Path::new("."))
    }

    /// The replicas in the order of their numbers, from 0.
    #[must_use]
    pub fn replicas(&self) -> &[ReplicaEntry] {
        &self.replicas
    }

    /// The clients in ascending order of their numbers.
    #[must_use]
    pub fn clients(&self) -> &[ClientEntry] {
        &self.clients
    }

    /// The client with this name.
    #[must_use]
    pub fn client_named(&self, name: &str) -> Option<&ClientEntry> {
        self.clients.iter().find(|client| client.name == name)
    }

    /// Everybody's public keys, for `auth`.
    #[must_use]
    pub fn directory(&self) -> &Directory {
        &self.directory
    }

    /// Where a pillar of a replica listens. `None` when there is none such. In a group of several
    /// partitions, ask one of them.
    #[must_use]
    pub fn address(&self, replica: ReplicaId, pillar: PillarId) -> Option<&Address> {
        let entry = self.replicas.get(usize::from(replica.0))?;
        entry.addresses.get(usize::from(pillar.0))
    }

    /// What carries packets in this group: of all its addresses, what asks most of a host.
    #[must_use]
    pub fn transport(&self) -> Transport {
        self.replicas.iter().map(ReplicaEntry::transport).max().unwrap_or_default()
    }

    /// Says where a replica listens: one port per pillar. Addresses are local knowledge, so
    /// this changes nothing about the group's identity.
    ///
    /// # Errors
    /// When there is no such replica, the host is not one, or the ports are not one each.
    pub fn set_address(
        &mut self,
        replica: ReplicaId,
        host: &str,
        ports: &[u16],
    ) -> Result<(), GenesisError> {
        check::host(&self.path, &format!("replica {replica} host"), host)?;
        let addresses = ports.iter().map(|port| Address::tcp(host, *port)).collect();
        self.set_addresses(replica, addresses)
    }

    /// The same with an address for each pillar.
    ///
    /// # Errors
    /// When there is no such replica, or the addresses are not one each.
    pub fn set_addresses(
        &mut self,
        replica: ReplicaId,
        addresses: Vec<Address>,
    ) -> Result<(), GenesisError> {
        let path = self.path.clone();
        let lanes = usize::from(self.pillars()) * usize::from(self.partitions());
        let Some(entry) = self.replicas.get_mut(usize::from(replica.0)) else {
            let remedy = "there is no such replica";
            return Err(check::field(&path, "replica.id", replica, remedy));
        };
        if addresses.len() != lanes {
            let remedy = format!("one address per pillar, {lanes} in all");
            let field = format!("replica {replica} addresses");
            return Err(check::field(&path, &field, addresses.len(), &remedy));
        }
        entry.addresses = addresses;
        Ok(())
    }

    /// The configuration file that this group was read from or written to.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Where a member's key file is by default: in `keys` beside the configuration.
    #[must_use]
    pub fn key_path(&self, peer: Peer) -> PathBuf {
        let dir = self.path.parent().unwrap_or(Path::new("."));
        dir.join("keys").join(key_file::file_name(peer))
    }

    /// Reads a member's secret from its default key file; see [`Group::load_secret_from`].
    ///
    /// # Errors
    /// As [`Group::load_secret_from`].
    pub fn load_secret(&self, peer: Peer) -> Result<Secret, GenesisError> {
        self.load_secret_from(&self.key_path(peer), peer)
    }

    /// Reads a member's secret from `path` and checks that it belongs to that member's public
    /// keys in this configuration.
    ///
    /// # Errors
    /// Everything that [`key_file::read`] refuses; [`GenesisError::KeyMismatch`] when the key
    /// is another one.
    pub fn load_secret_from(&self, path: &Path, peer: Peer) -> Result<Secret, GenesisError> {
        let secret = key_file::read(path, peer, &self.name)?;
        let mismatch = |source| GenesisError::KeyMismatch { path: path.to_path_buf(), source };
        let keys = self.directory.peer(peer).ok_or(mismatch(AuthError::UnknownPeer(peer)))?;
        if secret.public(peer) != *keys {
            return Err(mismatch(AuthError::WrongSecret(peer)));
        }
        Ok(secret)
    }
}
