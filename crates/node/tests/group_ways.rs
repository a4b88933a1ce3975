//! Groups with a switch of theirs that is not the default, as real processes: idle pillars that
//! run ahead, and reads without an order.

#[path = "support/cluster.rs"]
mod cluster;

use cluster::{Cluster, Gateway, Redis, Shape, code, json, run, stderr, stdout};

fn group(pillars: u16, ways: &[&str]) -> Cluster {
    let shape = Shape { replicas: 4, pillars, service: "kv" };
    let mut cluster = Cluster::found_with(shape, ways);
    cluster.flags = vec!["--durability", "memory"];
    (0..3).for_each(|id| cluster.start_one(id));
    cluster
}

/// What was written is read, by the one who wrote it and by another.
fn exchange((redis, other): (&mut Redis, &mut Redis), rounds: std::ops::Range<usize>) {
    for round in rounds {
        assert_eq!(redis.call(&format!("SET key {round}")), "+OK");
        assert_eq!(redis.call("GET key"), round.to_string());
        assert_eq!(other.call("GET key"), round.to_string());
    }
}

#[test]
fn idle_pillars_run_ahead_under_every_leader() {
    let mut cluster = group(4, &["--idle", "ahead"]);
    cluster.start_one(3);
    cluster.wait_for_code(0);
    let output = run(&["status", "--config", &cluster.config()]);
    assert!(stdout(&output).contains("switches: idle ahead"), "{}", stdout(&output));
    let gateway = Gateway::start(&cluster.path());
    let (mut redis, mut other) = (gateway.redis(), gateway.redis());
    exchange((&mut redis, &mut other), 0..200);
    cluster.kill(0);
    exchange((&mut redis, &mut other), 200..400);
}

#[test]
fn reads_without_an_order_see_what_was_written_whoever_lies() {
    let mut cluster = group(1, &["--reads", "unordered", "--drills"]);
    cluster.flags.extend(["--misbehave", "wrong-reply"]);
    cluster.start_one(3);
    cluster.wait_for_code(0);
    let gateway = Gateway::start(&cluster.path());
    exchange((&mut gateway.redis(), &mut gateway.redis()), 0..60);
}

#[test]
fn reads_without_an_order_go_on_when_the_leader_is_killed() {
    let mut cluster = group(1, &["--reads", "unordered"]);
    cluster.start_one(3);
    cluster.wait_for_code(0);
    let gateway = Gateway::start(&cluster.path());
    let (mut redis, mut other) = (gateway.redis(), gateway.redis());
    exchange((&mut redis, &mut other), 0..60);
    cluster.kill(0);
    exchange((&mut redis, &mut other), 60..120);
}

/// `bench --local` with one client that keeps to one pillar of four.
#[test]
fn the_benchmark_keeps_to_a_pillar_and_idle_ones_cost_fewer_messages() {
    let messages = |idle: &str| {
        let all = ["bench", "--local", "-o", "json", "--duration", "500ms", "--warmup", "100ms"];
        let few = ["--pillars", "4", "--clients", "1", "--lines", "1", "--outstanding", "1"];
        let output = run(&[&all[..], &few, &["--idle", idle]].concat());
        assert_eq!(code(&output), 0, "{}", stderr(&output));
        let result = json(&output);
        assert_eq!((&result["errors"], &result["digests"]), (&0.into(), &"equal".into()));
        let config = &result["config"];
        assert_eq!((&config["lines"], &config["group"]["idle"]), (&1.into(), &idle.into()));
        let rows = result["traffic"].as_array().expect("a row per replica").iter();
        rows.map(|row| row["peer_messages"].as_f64().expect("they are counted")).sum::<f64>()
    };
    let (fill, ahead) = (messages("fill"), messages("ahead"));
    assert!(ahead < 0.7 * fill, "{ahead} messages for each operation, and {fill} one by one");
}
