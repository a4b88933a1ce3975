//! All targets.

use base::limits::{CLIENT_PACKET_BYTES_MAX, FRAME_BYTES_MAX, REPLICA_PACKET_BYTES_MAX};

use crate::decoders::{auth, base as wire, exec, proto, store, text, zk};
use crate::sessions::{client, ports, replica, zookeeper};
use crate::target::{Budget, Target};

/// What a decoder may take: a value is at most some ten times as large in memory as on the
/// wire, and targets hold two of them.
const fn decoder(most: usize) -> Budget {
    Budget { fixed: 64 << 10, per_byte: 32, most: 2 * most }
}

/// A decoder of canonical bytes, with bounds that fit most.
const DECODER: Target = Target {
    name: "",
    about: "",
    seeds: Vec::new,
    words: &[b"\xff\xff\xff\xff", b"\0\0\0\0", b"\x01", b"\x10", b"\x11"],
    bytes_max: 8 << 10,
    budget: decoder(REPLICA_PACKET_BYTES_MAX),
    open: wire::frame,
    slowness: 1,
    short_runs: 20_000,
};

/// Words of the key-value service, and numbers at which commands may turn.
const KV_WORDS: &[&[u8]] = &[
    b"GET",
    b"SET",
    b"EX",
    b"WITHSCORES",
    b"LIMIT",
    b"-inf",
    b"(1",
    b"nan",
    b"1e308",
    b" ",
    b"\n",
    b"-9223372036854775808",
    b"-1000000000",
    b"4294967295",
    b"12582911",
    b"9223372036854775807",
    b"SETRANGE a 12000000 x\n",
    b"SETBIT a 90000000 1\n",
    b"SRANDMEMBER set -100000000\n",
    b"APPEND b ",
    b"SORT ",
    b"STORE ",
    b"LINSERT ",
    b"COPY a b REPLACE\n",
    b"GETRANGE a 0 -1\n",
];

/// Words of ZooKeeper's protocol: paths, schemes, lengths that are none.
const ZK_WORDS: &[&[u8]] = &[
    b"\xff\xff\xff\xff",
    b"\x7f\xff\xff\xff",
    b"\0\0\0\x01",
    b"\0\0\0\0",
    b"\0\0\0\x02/a",
    b"\0\0\0\x01/",
    b"\0\0\0\x11/zookeeper/config",
    b"\0\0\0\x05world\0\0\0\x06anyone",
    b"\0\0\0\x04auth\0\0\0\0",
    b"/a/b/",
    b"\x80\0\0\0\0\0\0\0",
];

/// Every target, by the crate whose code it feeds.
pub static ALL: &[Target] = &[
    Target {
        name: "frame",
        about: "base: request frames",
        seeds: wire::frame_seeds,
        budget: decoder(FRAME_BYTES_MAX),
        open: wire::frame,
        ..DECODER
    },
    Target {
        name: "reply",
        about: "base: replies, as clients read them",
        seeds: wire::reply_seeds,
        budget: decoder(CLIENT_PACKET_BYTES_MAX),
        open: wire::reply,
        ..DECODER
    },
    Target {
        name: "client-packet",
        about: "base: payloads on a client's link",
        seeds: wire::client_packet_seeds,
        budget: decoder(CLIENT_PACKET_BYTES_MAX),
        open: wire::client_packet,
        ..DECODER
    },
    Target {
        name: "peer-packet",
        about: "base, proto: payloads between replicas",
        seeds: wire::peer_packet_seeds,
        open: wire::peer_packet,
        ..DECODER
    },
    Target {
        name: "state-message",
        about: "base: state transfer",
        seeds: wire::state_message_seeds,
        open: wire::state_message,
        ..DECODER
    },
    Target {
        name: "manifest",
        about: "base: what a checkpoint consists of",
        seeds: wire::manifest_seeds,
        open: wire::manifest,
        ..DECODER
    },
    Target {
        name: "message",
        about: "proto: messages between replicas",
        seeds: proto::message_seeds,
        open: proto::message,
        ..DECODER
    },
    Target {
        name: "group-message",
        about: "proto: messages between coordinators, and what proofs prove",
        seeds: proto::group_message_seeds,
        open: proto::group_message,
        ..DECODER
    },
    Target {
        name: "proof",
        about: "proto: evidence",
        seeds: proto::proof_seeds,
        open: proto::proof,
        ..DECODER
    },
    Target {
        name: "certificate",
        about: "proto: certificates of checkpoints",
        seeds: proto::certificate_seeds,
        open: proto::certificate,
        ..DECODER
    },
    Target {
        name: "record",
        about: "proto: records of the log",
        seeds: proto::record_seeds,
        open: proto::record,
        ..DECODER
    },
    Target {
        name: "hello",
        about: "auth: what the caller of a link says in clear",
        seeds: auth::hello_seeds,
        words: &[b"STYL"],
        open: auth::hello,
        ..DECODER
    },
    Target {
        name: "handshake",
        about: "auth: a stranger's first packet",
        seeds: auth::handshake_seeds,
        words: &[b"STYL"],
        bytes_max: 1024,
        open: auth::handshake,
        short_runs: 5_000,
        ..DECODER
    },
    Target {
        name: "handshake-answer",
        about: "auth: what the called answers",
        seeds: auth::handshake_answer_seeds,
        bytes_max: 1024,
        open: auth::handshake_answer,
        short_runs: 2_000,
        ..DECODER
    },
    Target {
        name: "packets",
        about: "auth: lengths of packets, in pieces",
        seeds: auth::packets_seeds,
        budget: Budget { fixed: 1 << 20, per_byte: 32, most: 4 << 20 },
        open: auth::packets,
        ..DECODER
    },
    Target {
        name: "sealed",
        about: "auth: packets that nobody sealed",
        seeds: auth::sealed_seeds,
        open: auth::sealed,
        ..DECODER
    },
    Target {
        name: "log",
        about: "store: a segment of the log",
        seeds: store::log_seeds,
        words: &[b"STYL LOG"],
        bytes_max: 16 << 10,
        budget: Budget { fixed: 4 << 20, per_byte: 32, most: 16 << 20 },
        open: store::log,
        short_runs: 2_000,
        ..DECODER
    },
    Target {
        name: "life",
        about: "store: the life file",
        seeds: store::life_seeds,
        words: &[b"STYF"],
        open: store::life,
        short_runs: 5_000,
        ..DECODER
    },
    Target {
        name: "checkpoint",
        about: "store: checkpoint files and snapshots",
        seeds: store::checkpoint_seeds,
        words: &[b"STYLCKPT", b"SOBJ"],
        bytes_max: 32 << 10,
        budget: Budget { fixed: 4 << 20, per_byte: 32, most: 16 << 20 },
        open: store::checkpoint,
        short_runs: 2_000,
        ..DECODER
    },
    Target {
        name: "sessions-bucket",
        about: "exec: a bucket of the client table",
        seeds: exec::sessions_bucket_seeds,
        budget: Budget { fixed: 1 << 20, per_byte: 64, most: 16 << 20 },
        open: exec::sessions_bucket,
        short_runs: 5_000,
        ..DECODER
    },
    Target {
        name: "kv-object",
        about: "svc: an object of the key-value service",
        seeds: exec::kv_object_seeds,
        budget: Budget { fixed: 8 << 20, per_byte: 64, most: 32 << 20 },
        open: exec::kv_object,
        short_runs: 2_000,
        ..DECODER
    },
    Target {
        name: "kv-op",
        about: "svc: operations of the key-value service, executed",
        seeds: exec::kv_op_seeds,
        words: KV_WORDS,
        budget: Budget { fixed: 32 << 20, per_byte: 64, most: 2 * FRAME_BYTES_MAX },
        open: exec::kv_op,
        short_runs: 2_000,
        ..DECODER
    },
    Target {
        name: "kv-lines",
        about: "svc: commands of the key-value service as lines of words, executed",
        seeds: exec::kv_lines_seeds,
        words: KV_WORDS,
        bytes_max: 1 << 10,
        budget: Budget { fixed: 64 << 20, per_byte: 64 << 10, most: 8 * FRAME_BYTES_MAX },
        open: exec::kv_lines,
        // Some bytes may ask for as many results as fit into a reply: their time is its time.
        slowness: 40,
        short_runs: 300,
    },
    Target {
        name: "zk-op",
        about: "svc: operations of the coordination service, executed",
        seeds: zk::operation_seeds,
        words: ZK_WORDS,
        budget: Budget { fixed: 32 << 20, per_byte: 64, most: 2 * FRAME_BYTES_MAX },
        open: zk::operation,
        short_runs: 2_000,
        ..DECODER
    },
    Target {
        name: "zk-outcome",
        about: "svc: outcomes of the coordination service, as gateways read them",
        seeds: zk::outcome_seeds,
        words: ZK_WORDS,
        open: zk::outcome,
        ..DECODER
    },
    Target {
        name: "zk-object",
        about: "svc: an object of the coordination service",
        seeds: zk::object_seeds,
        words: ZK_WORDS,
        budget: Budget { fixed: 8 << 20, per_byte: 64, most: 32 << 20 },
        open: zk::object,
        short_runs: 2_000,
        ..DECODER
    },
    Target {
        name: "zk-requests",
        about: "svc: requests of two sessions of the coordination service, executed",
        seeds: zk::requests_seeds,
        words: ZK_WORDS,
        budget: Budget { fixed: 32 << 20, per_byte: 4 << 10, most: 8 * FRAME_BYTES_MAX },
        open: zk::requests,
        slowness: 10,
        short_runs: 300,
        ..DECODER
    },
    Target {
        name: "jute",
        about: "svc: values of ZooKeeper's encoding",
        seeds: zk::jute_seeds,
        words: ZK_WORDS,
        open: zk::jute_values,
        ..DECODER
    },
    Target {
        name: "resp",
        about: "node: RESP, as clients of the gateway send it",
        seeds: text::resp_seeds,
        words: &[b"\r\n", b"*", b"$", b"$-1\r\n", b"*-1\r\n", b"*1000000000\r\n", b"\"", b"\\x"],
        budget: Budget { fixed: 1 << 20, per_byte: 256, most: 2 * FRAME_BYTES_MAX },
        open: text::resp,
        ..DECODER
    },
    Target {
        name: "zk-frames",
        about: "node: greetings and requests, as clients of the ZooKeeper gateway send them",
        seeds: zk::frames_seeds,
        words: ZK_WORDS,
        open: zk::frames,
        ..DECODER
    },
    Target {
        name: "group-toml",
        about: "genesis: group.toml",
        words: &[b"[[replica]]", b"[[client]]", b"id = ", b"=", b"\"", b"[", b"\n", b"-1"],
        budget: Budget { fixed: 4 << 20, per_byte: 256, most: 32 << 20 },
        open: text::group_toml,
        short_runs: 2_000,
        ..DECODER
    },
    Target {
        name: "replica-session",
        about: "proto, exec: what other replicas tell a whole replica in memory",
        seeds: replica::session_seeds,
        bytes_max: 16 << 10,
        budget: Budget { fixed: 4 << 20, per_byte: 512, most: 2 * REPLICA_PACKET_BYTES_MAX },
        open: replica::session,
        short_runs: 2_000,
        ..DECODER
    },
    Target {
        name: "client-session",
        about: "proto: what replicas tell a client in memory",
        seeds: client::session_seeds,
        budget: Budget { fixed: 1 << 20, per_byte: 64, most: 2 * CLIENT_PACKET_BYTES_MAX },
        open: client::session,
        ..DECODER
    },
    Target {
        name: "replica-port",
        about: "rt: a replica's port, for strangers, replicas and clients",
        seeds: ports::replica_seeds,
        budget: Budget { fixed: 32 << 20, per_byte: 64, most: 2 * REPLICA_PACKET_BYTES_MAX },
        open: ports::replica,
        short_runs: 100,
        ..DECODER
    },
    Target {
        name: "gateway-port",
        about: "node: the gateway's port",
        seeds: ports::gateway_seeds,
        words: &[b"\r\n", b"*1\r\n$4\r\nQUIT\r\n", b"$-1\r\n", b"*1000000000\r\n", b"MULTI"],
        budget: Budget { fixed: 32 << 20, per_byte: 64, most: 2 * FRAME_BYTES_MAX },
        open: ports::gateway,
        short_runs: 300,
        ..DECODER
    },
    Target {
        name: "zookeeper-port",
        about: "node: the ZooKeeper gateway's port",
        seeds: zk::frames_seeds,
        words: ZK_WORDS,
        budget: Budget { fixed: 32 << 20, per_byte: 4 << 10, most: 2 * FRAME_BYTES_MAX },
        open: zookeeper::port,
        short_runs: 300,
        ..DECODER
    },
    Target {
        name: "http-port",
        about: "node: the metrics port",
        seeds: ports::http_seeds,
        words: &[b"\r\n", b"Content-Length: ", b"Expect: 100-continue\r\n", b"HTTP/1.1", b"POST"],
        bytes_max: 32 << 10,
        budget: Budget { fixed: 8 << 20, per_byte: 64, most: 32 << 20 },
        open: ports::http,
        short_runs: 300,
        ..DECODER
    },
];

/// The target of this name.
#[must_use]
pub fn find(name: &str) -> Option<&'static Target> {
    ALL.iter().find(|target| target.name == name)
}
