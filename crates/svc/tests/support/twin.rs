//! The service in this process, at the time of this process's clock.

use std::time::SystemTime;

use base::{AgreedTime, ClientId, FrameId, Seq, SessionId};
use exec::{Context, ObjectTree, Service};
use svc::KvService;
use svc::kv::op;
use svc::kv::reply::Protocol;

use super::resp::Reply;

pub struct Twin {
    service: KvService,
    tree: ObjectTree,
    seq: u64,
    time: AgreedTime,
    protocol: Protocol,
}

impl Twin {
    pub fn new(protocol: u8) -> Twin {
        let service = KvService::new();
        let tree = ObjectTree::new(service.objects());
        let protocol = if protocol == 3 { Protocol::Resp3 } else { Protocol::Resp2 };
        Twin { service, tree, seq: 0, time: AgreedTime(0), protocol }
    }

    /// Executes a command.
    pub fn command(&mut self, args: &[Vec<u8>]) -> Reply {
        let (mut bytes, mut reply, mut outputs) = (vec![], vec![], vec![]);
        op::encode_command(self.protocol, args, &mut bytes);
        let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        let nanos = since.expect("after 1970").as_nanos() as u64;
        self.time = self.time.advance(AgreedTime(nanos));
        self.seq += 1;
        let frame = FrameId { client: ClientId(0), session: SessionId(1), stream: 0, id: self.seq };
        let mut context =
            Context::new(Seq(self.seq), 0, self.time, frame, &mut self.tree, &mut outputs);
        self.service.execute(&bytes, &mut context, &mut reply);
        let mut rest = &reply[..];
        let parsed = Reply::read(&mut rest).expect("a whole reply");
        assert!(rest.is_empty(), "one reply and no more: {}", reply.escape_ascii());
        parsed
    }
}
