//! Replicas as processes of a user's own binary: this one, started again.

use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use kit::{
    ClientId, ClientOptions, Completion, Context, InitOptions, KitError, Malformed, Peer,
    ReplicaId, RunOptions, Service, blocking, init, run_replica,
};

const CONFIG: &str = "KIT_TEST_CONFIG";
const REPLICA: &str = "KIT_TEST_REPLICA";

/// Returns operations backwards.
struct Mirror;

impl Service for Mirror {
    fn execute(&mut self, op: &[u8], _: &mut Context<'_>, reply: &mut Vec<u8>) -> Completion {
        reply.extend(op.iter().rev());
        Completion::Done
    }

    fn get(&self, _object: u32, _out: &mut Vec<u8>) {}

    fn put(&mut self, _object: u32, _bytes: &[u8]) -> Result<(), Malformed> {
        Ok(())
    }
}

struct Process(Child);

impl Process {
    fn start(config: &Path, id: u16) -> Process {
        let mut command = Command::new(std::env::current_exe().expect("this program has a path"));
        command.args(["--exact", "a_group_of_processes_serves_and_ends_when_it_is_told_to"]);
        command.env(CONFIG, config).env(REPLICA, id.to_string()).stdout(Stdio::null());
        Process(command.spawn().expect("a process"))
    }

    fn terminate(&mut self) -> bool {
        let id = self.0.id().to_string();
        let told = Command::new("kill").args(["-TERM", &id]).status().expect("kill exists");
        assert!(told.success());
        self.0.wait().expect("our own child").success()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Only what a failed test leaves is still there.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_group_of_processes_serves_and_ends_when_it_is_told_to() {
    // In the processes that this test starts, it is the replica.
    if let (Ok(config), Ok(id)) = (std::env::var(CONFIG), std::env::var(REPLICA)) {
        let id = ReplicaId(id.parse().unwrap());
        return run_replica(Path::new(&config), id, RunOptions::default(), || Mirror).unwrap();
    }
    let dir = tempfile::tempdir().unwrap();
    // The ports were free a moment ago; there is no better way to name them in a file.
    let sockets: Vec<_> = (0..4).map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect();
    let ports: Vec<u16> = sockets.iter().map(|s| s.local_addr().unwrap().port()).collect();
    drop(sockets);
    let options = InitOptions { service: "mirror".to_owned(), ..InitOptions::default() };
    let mut founded = init(dir.path(), &options).unwrap();
    for (id, port) in (0..4).zip(&ports) {
        founded.set_address(ReplicaId(id), "127.0.0.1", &[*port]).unwrap();
    }
    let config = dir.path().join("group.toml");
    std::fs::write(&config, founded.to_toml()).unwrap();

    let mut processes: Vec<_> = (0..4).map(|id| Process::start(&config, id)).collect();
    let group = kit::Group::load(&config).unwrap();
    let secret = group.load_secret(Peer::Client(ClientId(0))).unwrap();
    let client = blocking::Client::connect(ClientOptions::new(group, ClientId(0), secret)).unwrap();
    assert_eq!(client.call(b"abc").unwrap(), b"cba");
    let all_there = || {
        let mut patience = 0..6_000;
        while client.stats().reachable < 4 {
            assert!(patience.next().is_some(), "a replica does not come");
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
    };
    all_there();
    assert!(processes[3].terminate());
    assert_eq!(client.call(b"abcd").unwrap(), b"dcba");
    // It finds its promises on its disk.
    processes[3] = Process::start(&config, 3);
    all_there();
    assert!(processes[0].terminate(), "the leader");
    assert_eq!(client.call(b"abcde").unwrap(), b"edcba");
    drop(client);
    assert!(processes.iter_mut().skip(1).all(Process::terminate));
    // Without its disk, and started before: it says what to do.
    std::fs::remove_dir_all(dir.path().join("state/replica-2")).unwrap();
    let error = run_replica(&config, ReplicaId(2), RunOptions::default(), || Mirror).unwrap_err();
    assert!(error.to_string().contains("--recover"), "{error}");
}

#[test]
fn a_replica_that_cannot_be_says_why() {
    let dir = tempfile::tempdir().unwrap();
    let error =
        run_replica(dir.path(), ReplicaId(0), RunOptions::default(), || Mirror).unwrap_err();
    assert!(matches!(error, KitError::Genesis(_)), "{error}");
    init(dir.path(), &InitOptions::default()).unwrap();
    let error =
        run_replica(dir.path(), ReplicaId(4), RunOptions::default(), || Mirror).unwrap_err();
    assert!(matches!(error, KitError::Genesis(_)), "{error}");
}
