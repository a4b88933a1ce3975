//! Every target stands its corpus and a fixed number of inputs made from it. Longer runs:
//! `cargo xtask fuzz`.

use std::sync::Mutex;

use fuzz::{Fuzzer, corpus, registry};

/// One after the other: the memory of a process is counted as a whole.
static ALONE: Mutex<()> = Mutex::new(());

fn full() -> bool {
    std::env::var("STYLITE_TEST_SCALE").is_ok_and(|scale| scale == "full")
}

/// How many times the short number of runs.
fn scaled(ci: u64, full_times: u64) -> u64 {
    if full() { full_times } else { ci }
}

fn stands(name: &str) {
    let _alone = ALONE.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    let target = *registry::find(name).expect("is a target");
    let mut fuzzer = Fuzzer::new(target, 1, false).expect("the corpus can be read");
    let mut result = fuzzer.corpus();
    for _ in 0..target.short_runs * scaled(1, 100) {
        if result.is_err() {
            break;
        }
        result = fuzzer.step();
    }
    if let Err(failure) = result {
        let (wrong, text) = (failure.wrong, corpus::written("", &failure.input));
        panic!(
            "{name} {wrong}\nwith\n{text}as a file, replay it with:\n  \
             cargo xtask fuzz {name} --replay FILE"
        );
    }
    let tally = fuzzer.tally();
    assert!(tally.outcomes >= 2, "inputs come to nothing different: {tally:?}");
}

macro_rules! targets {
    ($($test:ident: $name:literal),* $(,)?) => {
        $(#[test]
        fn $test() {
            stands($name);
        })*

        #[test]
        fn every_target_and_no_other_is_tested() {
            let tested = [$($name),*];
            let all: Vec<&str> = registry::ALL.iter().map(|target| target.name).collect();
            assert_eq!(tested[..], all[..]);
            corpus::check(&all).expect("the corpus is of these targets");
        }
    };
}

targets! {
    frames: "frame",
    replies: "reply",
    client_packets: "client-packet",
    peer_packets: "peer-packet",
    state_messages: "state-message",
    manifests: "manifest",
    messages: "message",
    group_messages: "group-message",
    proofs: "proof",
    certificates: "certificate",
    records: "record",
    hellos: "hello",
    handshakes: "handshake",
    answers_to_handshakes: "handshake-answer",
    packets: "packets",
    sealed_packets: "sealed",
    logs: "log",
    life_files: "life",
    checkpoint_files: "checkpoint",
    buckets_of_sessions: "sessions-bucket",
    objects_of_kv: "kv-object",
    operations_of_kv: "kv-op",
    commands_of_kv: "kv-lines",
    operations_of_zookeeper: "zk-op",
    outcomes_of_zookeeper: "zk-outcome",
    objects_of_zookeeper: "zk-object",
    requests_of_zookeeper: "zk-requests",
    values_of_jute: "jute",
    requests_of_redis: "resp",
    frames_of_zookeeper: "zk-frames",
    group_files: "group-toml",
    sessions_with_a_replica: "replica-session",
    sessions_with_a_client: "client-session",
    the_port_of_a_replica: "replica-port",
    the_port_of_a_gateway: "gateway-port",
    the_port_of_the_zookeeper_gateway: "zookeeper-port",
    the_port_of_the_metrics: "http-port",
}
