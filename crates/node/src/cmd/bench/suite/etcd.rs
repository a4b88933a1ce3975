//! Three etcd servers on this machine, and a client that writes to them in their own protocol:
//! gRPC, which is HTTP/2 with a length before each message. The one message that is sent has two
//! fields, and of what comes back only the status counts, so that no generated code is needed.
//!
//! etcd syncs what it acknowledges to its disk; compare it with durability `sync`.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use http_body_util::{BodyExt, Full};
use hyper::body::Bytes;
use hyper::client::conn::http2::{SendRequest, handshake};
use hyper::header::{CONTENT_TYPE, HeaderMap, TE};
use hyper::{Request, StatusCode};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use super::job::Peer;
use super::peers::{CONNECTIONS, START_TIMEOUT, Sample, Server};

/// Servers of the cluster.
const NODES: usize = 3;
/// What every key gets, as redis-benchmark does.
const VALUE: &[u8] = b"xxx";

/// A running cluster; its processes end and its data goes with this value.
pub struct Cluster {
    /// The processes.
    pub servers: Vec<Server>,
    /// Where clients connect, one port for each.
    ports: Vec<u16>,
    _data: Data,
}

/// A directory that goes with this value.
struct Data(PathBuf);

impl Drop for Data {
    fn drop(&mut self) {
        // What cannot be removed stays in the report's directory, where whoever reads it sees it.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

impl Cluster {
    /// Starts it and waits until each server takes a write.
    ///
    /// # Errors
    /// When a process cannot be started, or none answers in time.
    pub async fn start(dir: &Path) -> Result<Cluster> {
        // All at once, so that they differ.
        let taken = (0..2 * NODES).map(|_| TcpListener::bind("127.0.0.1:0"));
        let taken = taken.collect::<std::io::Result<Vec<_>>>().context("no port is free")?;
        let ports = taken.iter().map(|one| Ok(one.local_addr()?.port()));
        let ports = ports.collect::<Result<Vec<u16>>>()?;
        drop(taken);
        let (clients, peers) = ports.split_at(NODES);
        let data = Data(dir.join("etcd"));
        let all = peers.iter().enumerate();
        let all: Vec<String> = all.map(|(at, port)| format!("n{at}={}", url(*port))).collect();
        let mut servers = Vec::new();
        for (at, (client, peer)) in clients.iter().zip(peers).enumerate() {
            let mut command = Command::new("etcd");
            command
                .args(["--name", &format!("n{at}"), "--data-dir"])
                .arg(data.0.join(format!("n{at}")));
            command.args(["--listen-client-urls", &url(*client)]);
            command.args(["--advertise-client-urls", &url(*client)]);
            command.args(["--listen-peer-urls", &url(*peer)]);
            command.args(["--initial-advertise-peer-urls", &url(*peer)]);
            command.args(["--initial-cluster", &all.join(","), "--initial-cluster-state", "new"]);
            command.args(["--logger", "zap", "--log-level", "error"]);
            command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
            servers.push(Server(command.spawn().context("cannot start etcd")?));
        }
        let cluster = Cluster { servers, ports: clients.to_vec(), _data: data };
        for port in &cluster.ports {
            cluster.answers(*port).await?;
        }
        Ok(cluster)
    }

    async fn answers(&self, port: u16) -> Result<()> {
        let until = Instant::now() + START_TIMEOUT;
        loop {
            let asked = async { put(&mut connect(port).await?, port, 0).await };
            match tokio::time::timeout(Duration::from_secs(1), asked).await {
                Ok(Ok(())) => return Ok(()),
                Ok(Err(error)) if Instant::now() >= until => {
                    return Err(error.context(format!("etcd does not serve on port {port}")));
                }
                Err(_) if Instant::now() >= until => {
                    bail!("etcd does not answer on port {port} after {START_TIMEOUT:?}")
                }
                _ => tokio::time::sleep(Duration::from_millis(100)).await,
            }
        }
    }

    /// Writes for so long, with `depth` writes under way on each connection, and connections
    /// spread over the servers.
    ///
    /// # Errors
    /// When a server refuses a write or hangs up.
    pub async fn load(&self, peer: Peer, duration: Duration) -> Result<(Sample, u64)> {
        let (start, mut tasks) = (Instant::now(), JoinSet::new());
        let until = start + duration;
        for number in 0..CONNECTIONS {
            let port = self.ports[number as usize % NODES];
            let line = connect(port).await?;
            for lane in 0..peer.depth {
                let first = number * peer.depth + lane;
                tasks.spawn(writes(line.clone(), port, first, peer, until));
            }
        }
        let mut all = Vec::new();
        while let Some(one) = tasks.join_next().await {
            all.extend(one.context("a client panicked")??);
        }
        let ops = all.len() as u64;
        Ok((Sample::of(all, ops, start.elapsed())?, ops))
    }
}

fn url(port: u16) -> String {
    format!("http://127.0.0.1:{port}")
}

type Line = SendRequest<Full<Bytes>>;

async fn connect(port: u16) -> Result<Line> {
    let stream = TcpStream::connect(("127.0.0.1", port)).await?;
    stream.set_nodelay(true)?;
    let (line, connection) = handshake(TokioExecutor::new(), TokioIo::new(stream)).await?;
    // It ends with the line; why it ended shows at whoever waits for an answer.
    tokio::spawn(async { drop(connection.await) });
    Ok(line)
}

/// One write after the other; returns how long each took, in microseconds.
async fn writes(
    mut line: Line,
    port: u16,
    first: u32,
    peer: Peer,
    until: Instant,
) -> Result<Vec<u64>> {
    // A step that has no divisor in common with any number of keys in use visits them all.
    const STEP: u32 = 7_919;
    let (mut took, mut key) = (Vec::new(), first.wrapping_mul(STEP) % peer.keys);
    while Instant::now() < until {
        let start = Instant::now();
        put(&mut line, port, key).await?;
        took.push(u64::try_from(start.elapsed().as_micros()).unwrap_or(u64::MAX));
        key = (key + STEP) % peer.keys;
    }
    Ok(took)
}

async fn put(line: &mut Line, port: u16, key: u32) -> Result<()> {
    line.ready().await?;
    let request = Request::post(format!("{}/etcdserverpb.KV/Put", url(port)))
        .header(CONTENT_TYPE, "application/grpc")
        .header(TE, "trailers")
        .body(Full::new(Bytes::from(message(key))))?;
    let answer = line.send_request(request).await?;
    ensure!(answer.status() == StatusCode::OK, "etcd answers {}", answer.status());
    // An error without a body says so in the head.
    let refused = status(answer.headers());
    let body = answer.into_body().collect().await?;
    let said = refused.or_else(|| body.trailers().and_then(status));
    ensure!(said.as_deref() == Some("0"), "etcd refuses a write: gRPC status {said:?}");
    Ok(())
}

fn status(headers: &HeaderMap) -> Option<String> {
    headers.get("grpc-status").and_then(|value| value.to_str().ok()).map(str::to_owned)
}

/// A `PutRequest` in a frame of gRPC: not compressed, length, then field 1 (key) and 2 (value).
fn message(key: u32) -> Vec<u8> {
    let key = format!("key:{key:012}");
    let mut fields = Vec::new();
    for (tag, bytes) in [(0x0a, key.as_bytes()), (0x12, VALUE)] {
        // Both are shorter than 128 bytes, so that a length is one byte.
        let len = u8::try_from(bytes.len()).expect("short");
        fields.extend([tag, len]);
        fields.extend(bytes);
    }
    let len = u32::try_from(fields.len()).expect("short");
    let mut framed = vec![0];
    framed.extend(len.to_be_bytes());
    framed.extend(fields);
    framed
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_write_is_what_protobuf_and_grpc_make_of_it() {
        let expected = b"\x00\x00\x00\x00\x17\x0a\x10key:000000000042\x12\x03xxx";
        assert_eq!(message(42), expected);
    }
}
