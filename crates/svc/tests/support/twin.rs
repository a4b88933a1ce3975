//! The service in this process, at the time of this process's clock.
//!
//! Operations execute as they would beside others, on the part of the key space that they
//! declare, and are held against what they declare.

use std::time::SystemTime;

use base::AgreedTime;
use exec::testing::Harness;
use svc::KvService;
use svc::kv::op;
use svc::kv::reply::Protocol;

use super::resp::Reply;

pub struct Twin {
    harness: Harness<KvService>,
    protocol: Protocol,
}

impl Twin {
    pub fn new(protocol: u8) -> Twin {
        let harness = Harness::new(KvService::new()).checking_declarations();
        let protocol = if protocol == 3 { Protocol::Resp3 } else { Protocol::Resp2 };
        Twin { harness, protocol }
    }

    /// Executes a command.
    pub fn command(&mut self, args: &[Vec<u8>]) -> Reply {
        let mut bytes = vec![];
        op::encode_command(self.protocol, args, &mut bytes);
        let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        let nanos = since.expect("after 1970").as_nanos() as u64;
        self.harness.tick(AgreedTime(nanos));
        let reply = self.harness.run(&bytes);
        let mut rest = &reply[..];
        let parsed = Reply::read(&mut rest).expect("a whole reply");
        assert!(rest.is_empty(), "one reply and no more: {}", reply.escape_ascii());
        parsed
    }
}
