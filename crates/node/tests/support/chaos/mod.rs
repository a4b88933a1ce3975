//! Tools to maltreat a group of real processes and to see whether anybody notices: [`lab`] has
//! the processes and their disks, [`links`] the network, [`load`] the clients, [`ledger`] and
//! [`history`] what clients were told.
//!
//! `chaos_tools.rs` tests the tools themselves. Whoever uses them has `support/cluster.rs` at the
//! root of the test.

// Each test binary uses its own part of this.
#![allow(dead_code, unused_imports)]

pub mod history;
pub mod lab;
pub mod ledger;
pub mod links;
pub mod load;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

pub use lab::{Lab, Setup};
pub use links::{End, Gate, Links};
pub use load::{Connection, Load, Outcome, Plan};

use crate::cluster::Gateway;

/// A load of eight connections over two gateways, some 1,500 requests a second at most.
pub fn steady(gateways: &[&Gateway]) -> Plan {
    let gateways = gateways.iter().map(|gateway| gateway.port).collect();
    Plan { gateways, connections: 8, pace: Duration::from_millis(5), keys: String::new() }
}

/// A page of a metrics port.
pub fn page(port: u16, path: &str) -> String {
    request(port, &format!("GET {path}"))
}

/// Sends a request without a body and returns the answer, head and all.
pub fn request(port: u16, line: &str) -> String {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).expect("the metrics port listens");
    stream.set_read_timeout(Some(crate::cluster::HANG)).expect("a socket");
    let head = format!("{line} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    stream.write_all(head.as_bytes()).expect("it is open");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("text");
    answer
}

/// Deterministic numbers below a bound, for moments and victims.
pub struct Dice(u64);

impl Dice {
    pub fn new(seed: u64) -> Dice {
        Dice(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 16) % bound
    }
}
