//! Asks replicas how they are, each over a link of its own.
//!
//! What it is: a handshake, one question, one answer, per replica and at the same time. It needs
//! neither a session nor a quorum, so it also works when the group does not. What it is not: a
//! client (`client`), nor a judgement about the answers (`health`).

use std::time::Duration;

use anyhow::{Context, Result, bail};
use auth::{Initiator, LinkIdentity, PacketReader, Peer};
use base::packet::PacketKind;
use base::{ClientId, Incarnation, PillarId, ReplicaId, SessionId, limits};
use client::Stream;
use genesis::Group;
use rt::ReplicaReport;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// Who asks, and whom.
#[derive(Clone, Debug)]
pub struct Prober {
    group: Group,
    identity: LinkIdentity,
    timeout: Duration,
}

/// A replica's answer, or why there is none.
pub type Answer = Result<ReplicaReport, String>;

impl Prober {
    /// Asks the replicas of `group` as its client `id`, whose key file must be there.
    ///
    /// # Errors
    /// When the key file is not as it should be.
    pub fn new(group: &Group, id: ClientId, timeout: Duration) -> Result<Prober> {
        let secret = group.load_secret(Peer::Client(id))?;
        let (me, life) = (Peer::Client(id), Incarnation(now_ns()));
        let identity = LinkIdentity::new(&secret, me, life, group.directory())?;
        Ok(Prober { group: group.clone(), identity, timeout })
    }

    /// The same for each of the groups that agreement takes place in: the partitions of `group`, or
    /// it alone.
    ///
    /// # Errors
    /// As [`Prober::new`].
    pub fn each(group: &Group, id: ClientId, timeout: Duration) -> Result<Vec<Prober>> {
        group.parts().iter().map(|part| Prober::new(part, id, timeout)).collect()
    }

    /// The group.
    #[must_use]
    pub fn group(&self) -> &Group {
        &self.group
    }

    /// Asks all replicas at once; the answers come in the order of their numbers.
    pub async fn all(&self) -> Vec<Answer> {
        let asked: Vec<_> = self
            .group
            .quorums()
            .replicas()
            .map(|id| {
                let prober = self.clone();
                tokio::spawn(async move { prober.one(id).await })
            })
            .collect();
        let mut answers = Vec::with_capacity(asked.len());
        for one in asked {
            let ended = one.await;
            answers.push(ended.unwrap_or_else(|error| Err(format!("asking failed: {error}"))));
        }
        answers
    }

    /// Asks one replica.
    ///
    /// # Errors
    /// Why there is no answer, in words.
    pub async fn one(&self, id: ReplicaId) -> Answer {
        match tokio::time::timeout(self.timeout, self.ask(id)).await {
            Ok(answer) => answer.map_err(|error| format!("{error:#}")),
            Err(_) => Err(format!("no answer within {:?}", self.timeout)),
        }
    }

    async fn ask(&self, id: ReplicaId) -> Result<ReplicaReport> {
        let pillar = PillarId(0);
        let address = self.group.address(id, pillar).context("no address")?;
        let mut stream = Stream::connect(address).await.context("cannot connect")?;
        let directory = self.group.directory();
        let session = SessionId(now_ns());
        let (call, first) = Initiator::start(&self.identity, directory, id, pillar, session)?;
        stream.write_all(&first).await?;
        let mut reader = PacketReader::new(limits::HANDSHAKE_PACKET_BYTES_MAX);
        let mut link = loop {
            if let Some(body) = reader.packet()? {
                break call.finish(body)?;
            }
            read_some(&mut stream, &mut reader).await.context(
                "the handshake failed; perhaps its group.toml is not this one: compare the ids \
                 that `stylite config check` prints",
            )?;
        };
        reader.set_max(link.packet_bytes_max);
        let mut out = Vec::new();
        // An empty packet first: whoever dials proves with it that it lives.
        link.sealer.seal(&[], &mut out)?;
        link.sealer.seal(&PacketKind::StatusQuery.alone(), &mut out)?;
        stream.write_all(&out).await?;
        loop {
            while let Some(body) = reader.packet()? {
                let (kind, body) = PacketKind::split(link.opener.open(body)?)?;
                match kind {
                    PacketKind::Status => {
                        return serde_json::from_slice(body).context("the answer is no report");
                    }
                    PacketKind::Goodbye => bail!("the replica shuts down"),
                    _ => {}
                }
            }
            read_some(&mut stream, &mut reader).await?;
        }
    }
}

async fn read_some(stream: &mut Stream, reader: &mut PacketReader) -> Result<()> {
    let read = stream.read(reader.spare()).await?;
    if read == 0 {
        bail!("the replica closed the connection");
    }
    reader.filled(read);
    Ok(())
}

fn now_ns() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    u64::try_from(since.unwrap_or_default().as_nanos()).unwrap_or(u64::MAX)
}
