//! The service itself: operations in, results out, buckets as abstract objects.

use std::cell::RefCell;
use std::sync::Arc;

use base::{AgreedTime, Digest, Malformed};
use exec::{Completion, Context, Footprint, ParallelService, ReadContext, Service};

use super::bucket::Bucket;
use super::call::{Call, Fail};
use super::db::{self, Db};
use super::info;
use super::op::{self, Op, Step};
use super::reply::{Protocol, REPLY_MAX, Resp, TOO_LARGE};
use super::shard::{Shards, Space};
use super::table::{self, Run};
use super::work;

/// Most keys that one [`Service::wake`] removes.
const EXPIRED_PER_WAKE: usize = 1000;

/// The replicated key-value service.
pub struct KvService {
    keys: Keys,
}

/// Where the key space is.
enum Keys {
    /// Here. Reads look at it as all commands do, though they hold no more than a reference to
    /// the service; [`exec::Context::of_read`] sees to it that they do not write.
    Own(RefCell<Db>),
    /// With whoever executes on it, several at a time.
    Shared(Arc<Space>),
}

impl Default for KvService {
    fn default() -> KvService {
        KvService { keys: Keys::Own(RefCell::default()) }
    }
}

impl KvService {
    /// A service without keys.
    #[must_use]
    pub fn new() -> KvService {
        KvService::default()
    }

    /// The key space, for tests and tools.
    pub fn db(&mut self) -> &mut Db {
        if let Keys::Shared(_) = self.keys
            && let Keys::Shared(space) =
                std::mem::replace(&mut self.keys, Keys::Own(RefCell::default()))
        {
            let space = Arc::into_inner(space).expect("all handles are gone by now");
            self.keys = Keys::Own(space.into_db().into());
        }
        match &mut self.keys {
            Keys::Own(db) => db.get_mut(),
            Keys::Shared(_) => unreachable!("just taken back"),
        }
    }
}

/// Executes one operation on the key space, or on the part of it that the operation declares.
pub(super) fn execute(db: &mut Db, op: &[u8], ctx: &mut Context<'_>, reply: &mut Vec<u8>) {
    db.begin(ctx);
    match op::decode(op) {
        _ if ctx.index >= db::NUMBERED => {
            Resp::new(reply, Protocol::Resp2).error(b"ERR too many operations before this one");
        }
        Ok((protocol, Op::Command(args))) => {
            db.command(args.as_slice(), ctx, Resp::new(reply, protocol));
        }
        Ok((_, Op::Watch(keys))) => {
            let versions = keys.as_slice().iter().map(|key| db.watch_version(key));
            versions.for_each(|version| reply.extend_from_slice(&version.to_le_bytes()));
        }
        Ok((protocol, Op::Transaction { watched, steps })) => {
            db.transaction((&watched, &steps), protocol, ctx, reply);
        }
        Err(_) => Resp::new(reply, Protocol::Resp2).error(b"ERR malformed operation"),
    }
    db.end(ctx);
}

/// Answers a command that reads keys.
fn read(
    db: &mut Db,
    args: &[&[u8]],
    protocol: Protocol,
    ctx: &mut ReadContext<'_>,
    reply: &mut Vec<u8>,
) {
    let mut emitted = Vec::new();
    let mut as_any = Context::of_read(ctx, &mut emitted);
    db.begin_read(&as_any);
    db.command(args, &mut as_any, Resp::new(reply, protocol));
    db.end_read(ctx);
}

impl Db {
    fn command(&mut self, args: &[&[u8]], ctx: &mut Context<'_>, mut reply: Resp<'_>) {
        let Some(spec) = table::lookup(args[0]) else {
            return reply.error(&table::unknown_command(args));
        };
        if !spec.takes(args.len()) {
            return reply.error(&table::wrong_arity(spec));
        }
        let Run::Service(handler) = spec.run else {
            return reply.error(b"ERR this command is answered by the gateway");
        };
        if self.work.is_spent() {
            return reply.error(Fail::TOO_MUCH_WORK.0.as_bytes());
        }
        let now_ms = self.now_ms();
        // Nobody will read it: it is not made.
        let unread = reply.overflowed();
        let mut call = Call { args, db: self, ctx, reply, now_ms };
        match handler(&mut call) {
            Ok(()) if call.reply.overflowed() => {
                call.reply.clear();
                call.reply.error(TOO_LARGE);
                // Thrown away, it does not count as a part of the transaction's reply.
                call.db.work.pass(if unread { 0 } else { REPLY_MAX / work::LOOKED_AT });
            }
            Ok(()) => {}
            Err(fail) => {
                call.reply.clear();
                call.reply.error(fail.0.as_bytes());
            }
        }
    }

    fn transaction(
        &mut self,
        (watched, steps): (&[(&[u8], u64)], &[Step<'_>]),
        protocol: Protocol,
        ctx: &mut Context<'_>,
        out: &mut Vec<u8>,
    ) {
        let start = out.len();
        if watched.iter().any(|(key, version)| self.watch_version(key) != *version) {
            return Resp::new(out, protocol).null_array();
        }
        Resp::new(out, protocol).array(steps.len());
        let mut too_large = false;
        for step in steps {
            let mut reply = Resp::new(out, protocol);
            if too_large {
                // Every step executes, but nobody will read what it answers.
                reply.fill();
            }
            match step {
                Step::Command(args) => self.command(args.as_slice(), ctx, reply),
                Step::Reply(bytes) => reply.raw(bytes),
            }
            too_large |= out.len() - start > REPLY_MAX;
            if too_large {
                out.truncate(start);
            }
        }
        if too_large {
            out.truncate(start);
            Resp::new(out, protocol).error(TOO_LARGE);
        }
    }
}

impl Service for KvService {
    fn execute(&mut self, op: &[u8], ctx: &mut Context<'_>, reply: &mut Vec<u8>) -> Completion {
        execute(self.db(), op, ctx, reply);
        Completion::Done
    }

    fn get(&self, object: u32, out: &mut Vec<u8>) {
        match &self.keys {
            Keys::Own(db) => db.borrow().bucket(object as usize).encode(out),
            Keys::Shared(space) => space.with_bucket(object as usize, |bucket| bucket.encode(out)),
        }
    }

    fn put(&mut self, object: u32, bytes: &[u8]) -> Result<(), Malformed> {
        self.db().decode_bucket(object, bytes)
    }

    fn objects(&self) -> u32 {
        db::BUCKETS
    }

    fn digest(&mut self, object: u32) -> Digest {
        self.db().digest_bucket(object)
    }

    fn digest_of(&self, object: u32, bytes: &[u8]) -> Result<Digest, Malformed> {
        Ok(Bucket::decode(object, bytes)?.digest())
    }

    fn put_if(
        &mut self,
        object: u32,
        bytes: &[u8],
        is_right: &mut dyn FnMut(Digest) -> bool,
    ) -> Result<bool, Malformed> {
        let mut decoded = Bucket::decode(object, bytes)?;
        // Its values remember their digests from now on.
        let right = is_right(decoded.digest());
        if right {
            self.db().replace_bucket(object as usize, decoded);
        }
        Ok(right)
    }

    fn read(&self, op: &[u8], ctx: &mut ReadContext<'_>, reply: &mut Vec<u8>) -> bool {
        match op::decode(op) {
            Ok((protocol, Op::Command(args))) if info::is_read(args.as_slice()) => {
                let args = args.as_slice();
                match &self.keys {
                    Keys::Own(db) => read(&mut db.borrow_mut(), args, protocol, ctx, reply),
                    Keys::Shared(space) => {
                        space.with_keys(op, |db| read(db, args, protocol, ctx, reply));
                    }
                }
                true
            }
            _ => false,
        }
    }

    fn footprint(&self, op: &[u8], out: &mut Footprint) {
        info::footprint(op, out);
    }

    fn deadline(&self) -> Option<AgreedTime> {
        let soonest = match &self.keys {
            Keys::Own(db) => db.borrow().next_expiry_ms(),
            Keys::Shared(space) => Some(space.soonest()).filter(|when| *when != db::NEVER),
        };
        let gone_ms = soonest?.saturating_add(1);
        Some(AgreedTime(gone_ms.saturating_mul(1_000_000)))
    }

    fn wake(&mut self, ctx: &mut Context<'_>) {
        let db = self.db();
        db.begin(ctx);
        db.expire(ctx, EXPIRED_PER_WAKE);
    }

    fn parallel(&mut self) -> Option<Arc<dyn ParallelService>> {
        if let Keys::Own(db) = &mut self.keys {
            let Db { shards, full, work, .. } = db.get_mut();
            let Shards::All(all) = shards else { unreachable!("the service has all") };
            let space = Space::new(std::mem::take(all), *full, work.max);
            self.keys = Keys::Shared(Arc::new(space));
        }
        match &self.keys {
            Keys::Shared(space) => Some(Arc::clone(space) as Arc<dyn ParallelService>),
            Keys::Own(_) => None,
        }
    }
}

impl Db {
    /// The digest of a bucket. Costs the values written since the last time, and a pass over
    /// the bucket's keys.
    pub fn digest_bucket(&mut self, bucket: u32) -> Digest {
        self.bucket_mut(bucket as usize).digest()
    }

    /// Replaces a bucket by what another replica's service wrote.
    ///
    /// # Errors
    /// When the bytes are no such bucket; the key space is then as it was.
    pub fn decode_bucket(&mut self, bucket: u32, bytes: &[u8]) -> Result<(), Malformed> {
        let decoded = Bucket::decode(bucket, bytes)?;
        self.replace_bucket(bucket as usize, decoded);
        Ok(())
    }
}
