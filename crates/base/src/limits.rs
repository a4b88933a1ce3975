//! Every bound in the system, in one place, with their relations checked at compile time.

/// Largest group. Vote sets are one machine word.
pub const REPLICAS_MAX: usize = 64;
/// Most pillars of a group.
pub const PILLARS_MAX: usize = 64;
/// Most partitions of a group: each is a group of its own in the same processes.
pub const PARTITIONS_MAX: usize = 64;
/// Most principals in a group's configuration.
pub const CLIENTS_MAX: usize = 65_536;

/// Largest sealed packet on a link between replicas, in bytes, seal included.
pub const REPLICA_PACKET_BYTES_MAX: usize = 32 << 20;
/// Largest sealed packet on a link of a client, in bytes, seal included.
pub const CLIENT_PACKET_BYTES_MAX: usize = 20 << 20;
/// Largest packet before a link is authenticated, in bytes.
pub const HANDSHAKE_PACKET_BYTES_MAX: usize = 1024;

/// Largest request frame, in bytes: header, operations and authenticator.
pub const FRAME_BYTES_MAX: usize = 16 << 20;
/// Most bytes of the body of a frame that travels with a proposal, where bodies do that.
pub const INLINE_BYTES_MAX: usize = 64 << 10;
/// Most operations in one frame.
pub const FRAME_OPS_MAX: usize = 16_384;
/// Largest single operation, in bytes.
pub const OP_BYTES_MAX: usize = 12 << 20;
/// Largest reply to one frame, in bytes. A larger one is replaced by a refusal.
pub const REPLY_BYTES_MAX: usize = 18 << 20;

/// How far a stream's frame ids may run ahead of the lowest one not yet acknowledged by the
/// client: the window of unacknowledged frames a client may have in one stream.
pub const STREAM_WINDOW: u64 = 64;
/// Most streams of one session.
pub const STREAMS_PER_SESSION_MAX: usize = 64;
/// Most sessions of one principal; the least recently used one is evicted beyond it.
pub const SESSIONS_PER_CLIENT_MAX: usize = 64;
/// Most bytes of cached replies of one session; the oldest are dropped beyond it.
pub const CACHED_REPLY_BYTES_PER_SESSION_MAX: usize = 32 << 20;
/// Most bytes of cached replies of all sessions of one principal; those of the least recently
/// used session are dropped first beyond it.
pub const CACHED_REPLY_BYTES_PER_CLIENT_MAX: usize = 128 << 20;

/// Most bytes of cached replies of all principals together that share one of the 1,024 buckets of
/// the client table, which are those whose numbers differ by a multiple of that; of whoever keeps
/// most, the oldest are dropped first beyond it. A principal that has a bucket to itself is not
/// concerned.
pub const CACHED_REPLY_BYTES_PER_BUCKET_MAX: usize = 160 << 20;

/// Most frames in one batch.
pub const BATCH_FRAMES_MAX: usize = 1024;
/// Most bytes of frames in one batch.
pub const BATCH_BYTES_MAX: usize = 64 << 20;

/// Most frames a replica keeps of one principal while they wait for their order, per pillar.
pub const PENDING_FRAMES_PER_CLIENT_MAX: usize = 1024;
/// Most bytes a replica keeps of one principal while they wait for their order, per pillar.
pub const PENDING_BYTES_PER_CLIENT_MAX: usize = 64 << 20;

/// Largest reply to a frame of reads, in bytes. A client keeps those of all replicas, result by
/// result, until enough of them say the same; what is larger is ordered.
pub const READ_REPLY_BYTES_MAX: usize = 1 << 20;
/// Most frames of reads that a replica keeps of one principal until it answers them.
pub const WAITING_READS_PER_CLIENT_MAX: usize = 1024;
/// Most frames of reads that a replica keeps of all principals together; who has none waiting
/// always gets one in.
pub const WAITING_READS_MAX: usize = 16_384;
/// Most bytes of such frames, likewise.
pub const WAITING_READ_BYTES_MAX: usize = 256 << 20;

/// Most objects that a service may cut its state into.
pub const OBJECTS_MAX: u32 = 1 << 24;

const _: () = assert!(OP_BYTES_MAX < FRAME_BYTES_MAX);
const _: () = assert!(FRAME_BYTES_MAX < CLIENT_PACKET_BYTES_MAX);
const _: () = assert!(REPLY_BYTES_MAX < CLIENT_PACKET_BYTES_MAX);
const _: () = assert!(CLIENT_PACKET_BYTES_MAX < REPLICA_PACKET_BYTES_MAX);
const _: () = assert!(FRAME_BYTES_MAX <= BATCH_BYTES_MAX);
const _: () = assert!(FRAME_BYTES_MAX <= PENDING_BYTES_PER_CLIENT_MAX);
const _: () = assert!(STREAM_WINDOW as usize <= PENDING_FRAMES_PER_CLIENT_MAX);
const _: () = assert!(REPLY_BYTES_MAX <= CACHED_REPLY_BYTES_PER_SESSION_MAX);
const _: () = assert!(CACHED_REPLY_BYTES_PER_SESSION_MAX <= CACHED_REPLY_BYTES_PER_CLIENT_MAX);
const _: () = assert!(CACHED_REPLY_BYTES_PER_CLIENT_MAX <= CACHED_REPLY_BYTES_PER_BUCKET_MAX);
const _: () = assert!(READ_REPLY_BYTES_MAX < REPLY_BYTES_MAX);
const _: () = assert!(FRAME_BYTES_MAX <= WAITING_READ_BYTES_MAX);
const _: () = assert!(REPLICAS_MAX <= u64::BITS as usize);
