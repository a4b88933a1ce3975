//! ZooKeeper servers on this machine, and a client that reads and writes nodes in ZooKeeper's own
//! protocol: of three servers from Debian's package, or of a group of ours behind its gateway.
//!
//! ZooKeeper orders writes alone. A read is answered by whichever server the client is connected
//! to, from what that server has applied: it may be old. Ours are ordered and linearizable, so
//! the two do not promise the same.
//!
//! Not here: watches, sessions that move, everything else that a real client does.

use std::collections::VecDeque;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use node::zookeeper::wire::framed;
use svc::zk::jute::{JuteReader, JuteWriter};
use svc::zk::kind;
use tokio::io::{AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::task::JoinSet;

use super::job::{Peer, program};
use super::peers::{CONNECTIONS, START_TIMEOUT, Sample, Server};

/// Where Debian's package has the server.
pub const JAR: &str = "/usr/share/java/zookeeper.jar";
/// Servers of the ensemble.
const NODES: usize = 3;
/// Bytes of each node, as in the paper.
const NODE_BYTES: usize = 128;
/// Nodes that are made at a time.
const MADE_AT_ONCE: usize = 500;
/// What the client asks for as the timeout of its sessions, in ms.
const TIMEOUT_MS: i32 = 30_000;

/// Running servers; the processes end and their data goes with this value.
pub struct Ensemble {
    /// The processes.
    pub servers: Vec<Server>,
    /// Where clients connect.
    ports: Vec<u16>,
    _data: Option<Data>,
}

/// A directory that goes with this value.
struct Data(PathBuf);

impl Drop for Data {
    fn drop(&mut self) {
        // What cannot be removed stays in the report's directory, where whoever reads it sees it.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

impl Ensemble {
    /// Starts three ZooKeeper servers that do not sync their logs, and makes the nodes.
    ///
    /// # Errors
    /// When a process cannot be started, or they do not serve in time.
    pub async fn start(dir: &Path, peer: Peer) -> Result<Ensemble> {
        let ports = free_ports(3 * NODES)?;
        let data = Data(dir.join("zookeeper"));
        let mut servers = Vec::new();
        for at in 0..NODES {
            let own = data.0.join(at.to_string());
            std::fs::create_dir_all(&own).context("cannot make a directory")?;
            std::fs::write(own.join("myid"), at.to_string())?;
            let file = own.join("zoo.cfg");
            std::fs::write(&file, settings(&own, ports[at], &ports[NODES..]))?;
            let mut command = Command::new("java");
            command.args(["-Dzookeeper.forceSync=no", "-cp", JAR]);
            command.arg("org.apache.zookeeper.server.quorum.QuorumPeerMain").arg(&file);
            command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
            servers.push(Server(command.spawn().context("cannot start java")?));
        }
        let ports = ports[..NODES].to_vec();
        let ensemble = Ensemble { servers, ports, _data: Some(data) };
        ensemble.prepare(peer).await?;
        Ok(ensemble)
    }

    /// Starts four replicas of ours and a gateway, in memory, and makes the nodes.
    ///
    /// # Errors
    /// Like [`Ensemble::start`].
    pub async fn ours(peer: Peer) -> Result<Ensemble> {
        let ports = free_ports(1)?;
        let mut command = program()?;
        command.args(["demo", "--service", "zookeeper", "--durability", "memory"]);
        command.args(["--zookeeper", &format!("127.0.0.1:{}", ports[0]), "--log", "error"]);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let servers = vec![Server(command.spawn().context("cannot start this program again")?)];
        let ensemble = Ensemble { servers, ports, _data: None };
        ensemble.prepare(peer).await?;
        Ok(ensemble)
    }

    /// Waits until every server serves, and makes the nodes.
    async fn prepare(&self, peer: Peer) -> Result<()> {
        let until = Instant::now() + START_TIMEOUT;
        for port in &self.ports {
            while let Err(error) = session(*port).await {
                if Instant::now() >= until {
                    return Err(error.context(format!("nothing serves on port {port}")));
                }
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
        let mut line = session(self.ports[0]).await?;
        let bodies: Vec<Vec<u8>> = (0..=peer.keys).map(made).collect();
        for some in bodies.chunks(MADE_AT_ONCE) {
            let mut out = Vec::new();
            some.iter().for_each(|body| request(&mut out, kind::CREATE, body));
            line.writer.write_all(&out).await?;
            for _ in some {
                line.answer().await?;
            }
        }
        Ok(())
    }

    /// Reads and writes for so long, with `depth` requests under way on each connection, and
    /// connections spread over the servers.
    ///
    /// # Errors
    /// When a server refuses a request or hangs up.
    pub async fn load(&self, peer: Peer, duration: Duration) -> Result<(Sample, u64)> {
        let mut lines = Vec::new();
        for number in 0..CONNECTIONS {
            lines.push((number, session(self.ports[number as usize % self.ports.len()]).await?));
        }
        let (start, mut tasks) = (Instant::now(), JoinSet::new());
        for (number, line) in lines {
            tasks.spawn(requests(line, number, peer, start + duration));
        }
        let mut all = Vec::new();
        while let Some(one) = tasks.join_next().await {
            all.extend(one.context("a client panicked")??);
        }
        let ops = all.len() as u64;
        Ok((Sample::of(all, ops, start.elapsed())?, ops))
    }
}

/// As many ports as that, all at once, so that they differ.
fn free_ports(count: usize) -> Result<Vec<u16>> {
    let taken = (0..count).map(|_| TcpListener::bind("127.0.0.1:0"));
    let taken = taken.collect::<std::io::Result<Vec<_>>>().context("no port is free")?;
    taken.iter().map(|one| Ok(one.local_addr()?.port())).collect()
}

fn settings(dir: &Path, port: u16, inner: &[u16]) -> String {
    let (quorum, election) = inner.split_at(NODES);
    let pairs = quorum.iter().zip(election).enumerate();
    let servers: String =
        pairs.map(|(at, (a, b))| format!("server.{at}=127.0.0.1:{a}:{b}\n")).collect();
    format!(
        "tickTime=2000\ninitLimit=10\nsyncLimit=5\nmaxClientCnxns=0\nadmin.enableServer=false\n\
         clientPort={port}\nclientPortAddress=127.0.0.1\ndataDir={}\n{servers}",
        dir.display()
    )
}

/// A connection with a session.
struct Line {
    reader: BufReader<OwnedReadHalf>,
    writer: OwnedWriteHalf,
    /// What is read into.
    body: Vec<u8>,
}

async fn session(port: u16) -> Result<Line> {
    let stream = TcpStream::connect(("127.0.0.1", port)).await?;
    stream.set_nodelay(true)?;
    let (reader, mut writer) = stream.into_split();
    let mut greeting = Vec::new();
    framed(&mut greeting, |w| {
        w.int(0).long(0).int(TIMEOUT_MS).long(0).buffer(Some(&[0; 16])).bool(false);
    });
    writer.write_all(&greeting).await?;
    let mut line = Line { reader: BufReader::new(reader), writer, body: Vec::new() };
    let answer = tokio::time::timeout(Duration::from_secs(5), line.frame()).await;
    answer.context("no answer to the greeting")??;
    let mut r = JuteReader::new(&line.body);
    r.int("version").context("an answer")?;
    ensure!(r.int("timeout").is_ok_and(|timeout| timeout > 0), "no session");
    Ok(line)
}

impl Line {
    async fn frame(&mut self) -> Result<()> {
        let len = usize::try_from(self.reader.read_i32().await?).context("a length")?;
        ensure!(len <= svc::zk::RESPONSE_BYTES_MAX, "a length");
        self.body.resize(len, 0);
        self.reader.read_exact(&mut self.body).await?;
        Ok(())
    }

    /// Reads the next answer, which is to be a good one, or that the node is there already.
    async fn answer(&mut self) -> Result<()> {
        self.frame().await?;
        let mut r = JuteReader::new(&self.body);
        let head = (r.int("xid"), r.long("zxid"), r.int("error"));
        let (Ok(_), Ok(_), Ok(error)) = head else { bail!("an answer that is none") };
        let exists = svc::zk::ZkError::NodeExists.code();
        ensure!(error == 0 || error == exists, "a server answers with error {error}");
        Ok(())
    }
}

fn path(number: u32) -> String {
    format!("/bench/n{number:09}")
}

/// The body of the request that makes a node; number 0 is the parent of the others.
fn made(number: u32) -> Vec<u8> {
    let path = number.checked_sub(1).map_or("/bench".to_owned(), path);
    let mut out = Vec::new();
    let w = &mut JuteWriter::new(&mut out);
    w.text(&path).buffer(Some(&[b'x'; NODE_BYTES])).count(1).int(31).text("world").text("anyone");
    w.int(0);
    out
}

fn request(out: &mut Vec<u8>, kind: i32, body: &[u8]) {
    // Answers come in order, so that nobody looks at the number.
    framed(out, |w| {
        w.int(1).int(kind).raw(body);
    });
}

/// The request of this number: reads and writes as many as were asked for, of nodes in turn.
fn chosen(out: &mut Vec<u8>, number: u64, peer: Peer) {
    let mixed = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let path = path((mixed >> 32) as u32 % peer.keys);
    let reads = number.wrapping_mul(61) % 100 < u64::from(peer.reads);
    let mut body = Vec::new();
    let w = &mut JuteWriter::new(&mut body);
    if reads {
        w.text(&path).bool(false);
    } else {
        w.text(&path).buffer(Some(&[b'y'; NODE_BYTES])).int(-1);
    }
    request(out, if reads { kind::GET_DATA } else { kind::SET_DATA }, &body);
}

/// One request after each answer; returns how long each took, in microseconds.
async fn requests(mut line: Line, first: u32, peer: Peer, until: Instant) -> Result<Vec<u64>> {
    let (mut took, mut sent) = (Vec::new(), VecDeque::new());
    let mut number = u64::from(first) << 32;
    let mut out = Vec::new();
    loop {
        let now = Instant::now();
        while sent.len() < peer.depth as usize && now < until {
            chosen(&mut out, number, peer);
            number += 1;
            sent.push_back(now);
        }
        if !out.is_empty() {
            line.writer.write_all(&out).await?;
            out.clear();
        }
        let Some(at) = sent.pop_front() else { return Ok(took) };
        line.answer().await?;
        took.push(u64::try_from(at.elapsed().as_micros()).unwrap_or(u64::MAX));
        // Those that have come together are answered together.
        while line.reader.buffer().len() >= 4
            && let Some(at) = sent.pop_front()
        {
            line.answer().await?;
            took.push(u64::try_from(at.elapsed().as_micros()).unwrap_or(u64::MAX));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cmd::bench::suite::job::System;

    #[test]
    fn as_many_requests_read_as_were_asked_for() {
        for reads in [0, 25, 50, 100] {
            let peer = Peer { system: System::ZooKeeper, depth: 1, keys: 10_000, reads };
            let mut count = 0;
            for number in 0..10_000 {
                let mut out = Vec::new();
                chosen(&mut out, number, peer);
                let mut r = JuteReader::new(&out[8..]);
                count += u32::from(r.int("kind") == Ok(kind::GET_DATA));
                assert!(r.path("path").is_ok_and(|path| path.starts_with("/bench/n00000")));
            }
            assert_eq!(count, reads * 100);
        }
    }
}
