//! A `redis-server` of our own, on a port of its own, without files.

use std::io::{BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use super::resp::Reply;

/// A `redis-server` that is asked for too much (2^63 random members, say) fails its test instead
/// of taking the machine with it.
fn limit_memory(server: &Child) {
    use rustix::process::{Pid, Resource, Rlimit, prlimit};
    let limit = Rlimit { current: Some(4 << 30), maximum: Some(4 << 30) };
    prlimit(Some(Pid::from_child(server)), Resource::As, limit).expect("our own child");
}

pub struct Redis {
    process: Child,
    stream: BufReader<TcpStream>,
}

impl Redis {
    /// Starts a server, if there is one on this machine, and connects.
    pub fn start(protocol: u8) -> Option<Redis> {
        let program =
            std::env::var("STYLITE_REDIS_SERVER").unwrap_or_else(|_| "redis-server".to_owned());
        let free = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let port = free.local_addr().expect("is bound").port();
        drop(free);
        let args = ["--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--databases", "1"];
        let process = Command::new(program)
            .args(["--port", &port.to_string()])
            .args(args)
            .current_dir(std::env::temp_dir())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .ok()?;
        limit_memory(&process);
        let mut attempts = 0;
        let stream = loop {
            match TcpStream::connect(("127.0.0.1", port)) {
                Ok(stream) => break stream,
                Err(_) if attempts < 200 => std::thread::sleep(Duration::from_millis(50)),
                Err(error) => panic!("redis-server does not listen: {error}"),
            }
            attempts += 1;
        };
        stream.set_nodelay(true).expect("a socket");
        let mut redis = Redis { process, stream: BufReader::new(stream) };
        if protocol == 3 {
            redis.command(&[b"HELLO".to_vec(), b"3".to_vec()]);
        }
        Some(redis)
    }

    /// Executes a command.
    pub fn command(&mut self, args: &[Vec<u8>]) -> Reply {
        let mut bytes = format!("*{}\r\n", args.len()).into_bytes();
        for arg in args {
            bytes.extend_from_slice(format!("${}\r\n", arg.len()).as_bytes());
            bytes.extend_from_slice(arg);
            bytes.extend_from_slice(b"\r\n");
        }
        self.stream.get_mut().write_all(&bytes).expect("redis-server is there");
        Reply::read(&mut self.stream).expect("redis-server answers")
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        // It may have ended by itself; then there is nothing left to do.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
