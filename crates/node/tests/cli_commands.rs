//! The command line without a running group: usage, founding, keys, settings, refusals.

#[path = "support/cluster.rs"]
mod cluster;

use std::os::unix::fs::PermissionsExt;

use cluster::{Cluster, Shape, code, json, run, stderr, stdout, stylite};
use rustix::process::Signal;
use tempfile::TempDir;

const FOUR: Shape = Shape { replicas: 4, pillars: 1, service: "kv" };

#[test]
fn every_command_has_help_with_examples_and_wrong_usage_ends_with_2() {
    for command in [
        &["demo"][..],
        &["init"],
        &["replica"],
        &["gateway"],
        &["gateway", "redis"],
        &["config"],
        &["status"],
        &["bench"],
        &["bench", "suite"],
        &["bench", "baseline"],
        &["config", "check"],
        &["config", "show"],
        &["snapshot"],
        &["snapshot", "save"],
        &["snapshot", "verify"],
        &["snapshot", "restore"],
        &["version"],
        &["completions"],
    ] {
        let output = run(&[command, &["--help"]].concat());
        assert_eq!(code(&output), 0, "{command:?}");
        assert!(stdout(&output).contains("Examples:\n  stylite "), "{command:?}");
        let output = run(&[command, &["--no-such-flag"]].concat());
        assert_eq!(code(&output), 2, "{command:?}");
    }
    assert_eq!(code(&run(&["bench"])), 2, "neither --local nor --config");
    assert_eq!(code(&run(&["status"])), 2);
    let codes = stdout(&run(&["status", "--help"]));
    assert!(codes.contains("0 healthy; 3 degraded") && codes.contains("4 unavailable"));
}

#[test]
fn version_and_completions_are_printed() {
    let version = env!("CARGO_PKG_VERSION");
    assert_eq!(stdout(&run(&["version"])), format!("stylite {version}\n"));
    assert_eq!(json(&run(&["version", "-o", "json"]))["version"], version);
    for shell in ["bash", "zsh", "fish"] {
        assert!(stdout(&run(&["completions", shell])).contains("gateway"), "{shell}");
    }
}

#[test]
fn init_refuses_to_overwrite_and_changes_nothing() {
    let cluster = Cluster::found(FOUR);
    let read = || {
        let files = ["group.toml", "keys/replica-0.key", "state/replica-0.virgin"];
        files.map(|file| std::fs::read(cluster.path().join(file)).expect("it is there"))
    };
    let before = read();
    let output = run(&["init", &cluster.config(), "--replicas", "7"]);
    assert_eq!(code(&output), 1);
    assert!(stderr(&output).contains("exists already"), "{}", stderr(&output));
    assert_eq!(read(), before);
}

#[test]
fn init_refuses_groups_that_are_none() {
    let dir = TempDir::new().expect("a temporary directory");
    let path = dir.path().join("group").display().to_string();
    for wrong in [
        &["--replicas", "0"][..],
        &["--replicas", "3", "--faults", "1"],
        &["--replicas", "4", "--pillars", "0"],
        &["--replicas", "4", "--host", "a,b"],
        &["--replicas", "4", "--port", "65535"],
        &["--replicas", "4", "--checkpoint-interval", "0"],
    ] {
        let output = run(&[&["init", &path], wrong].concat());
        assert_eq!(code(&output), 2, "{wrong:?}: {}", stderr(&output));
        // The flag is named, not a file that is not there.
        let told = format!("error: {} {}", wrong[wrong.len() - 2], wrong[wrong.len() - 1]);
        assert!(stderr(&output).starts_with(&told), "{}", stderr(&output));
    }
    let output = run(&["init", &path, "--replicas", "4", "--port", "65534"]);
    assert!(stderr(&output).contains("run past 65535"), "{}", stderr(&output));
    assert_eq!(code(&run(&["init", &path, "--replicas", "4", "--service", "none"])), 2);
    assert_eq!(code(&run(&["init", &path, "--replicas", "4", "--clients", "0"])), 2);
    assert!(!dir.path().join("group/group.toml").exists());
    for wrong in [["--replicas", "0"], ["--pillars", "0"]] {
        let output = run(&[&["demo"][..], &wrong].concat());
        assert_eq!(code(&output), 2, "{wrong:?}: {}", stderr(&output));
        assert!(stderr(&output).contains(&wrong.join(" ")), "{}", stderr(&output));
    }
}

#[test]
fn a_configuration_is_checked_however_it_is_named() {
    let dir = TempDir::new().expect("a temporary directory");
    let path = dir.path().join("group").display().to_string();
    assert_eq!(code(&run(&["config", "check"])), 2, "none is named");
    let nowhere = run(&["config", "check", &path]);
    assert!(stderr(&nowhere).contains("stylite init"), "{}", stderr(&nowhere));
    assert_eq!(code(&run(&["init", &path, "--replicas", "4"])), 0);
    assert_eq!(code(&run(&["config", "check", &path])), 0);
    assert_eq!(code(&run(&["config", "check", "--config", &path])), 0);
    let both = run(&["config", "check", "nowhere", "--config", &path]);
    assert_eq!(code(&both), 2, "{}", stderr(&both));
    assert!(stderr(&both).contains("one configuration is checked at a time"), "{}", stderr(&both));
    let named = stylite()
        .args(["config", "check", "--config", &path])
        .env("STYLITE_CONFIG", "other")
        .output();
    assert_eq!(code(&named.expect("it runs")), 0, "the flag counts");
}

#[test]
fn groups_that_tolerate_nothing_or_waste_replicas_are_founded_with_a_word_about_it() {
    let dir = TempDir::new().expect("a temporary directory");
    for (name, args, told) in [
        ("a", &["--replicas", "3"][..], "warning: a group of 3 replicas tolerates no fault"),
        ("b", &["--replicas", "5"], "hint: 5 replicas tolerate no more faults than 4"),
        ("c", &["--replicas", "3", "--faults", "0"], ""),
        ("d", &["--replicas", "4"], ""),
    ] {
        let path = dir.path().join(name).display().to_string();
        let output = run(&[&["init", &path], args].concat());
        assert_eq!(code(&output), 0);
        assert!(stderr(&output).starts_with(told), "{}", stderr(&output));
        assert_eq!(stderr(&output).is_empty(), told.is_empty(), "{}", stderr(&output));
    }
    let path = dir.path().join("d").display().to_string();
    let shown = json(&run(&["config", "show", "-o", "json", &path]));
    let values = &shown["group"]["values"];
    assert_eq!(
        (&values["checkpoint_interval"], &values["window"]),
        (&"128".into(), &"8192".into())
    );
}

#[test]
fn values_that_mean_nothing_are_refused() {
    let output = run(&["--log", "bogus", "version"]);
    assert_eq!(code(&output), 1);
    assert!(stderr(&output).contains("`bogus` is no level"), "{}", stderr(&output));
    assert_eq!(code(&run(&["bench", "--local", "--duration", "0"])), 2);
    let mut command = stylite();
    command.args(["replica", "--config", "none", "--id", "0"]);
    let output = command.env("STYLITE_NO_PIN", "maybe").output().expect("it runs");
    assert_eq!(code(&output), 2, "{}", stderr(&output));
    assert!(stderr(&output).contains("variable STYLITE_NO_PIN"), "{}", stderr(&output));
    let output = run(&["status", "--config", "none"]);
    assert_eq!(stderr(&output).matches("os error").count(), 1, "{}", stderr(&output));
}

#[test]
fn a_gateway_says_at_once_that_its_address_is_taken() {
    let cluster = Cluster::found(FOUR);
    let taken = std::net::TcpListener::bind(("127.0.0.1", 0)).expect("a free port");
    let address = taken.local_addr().expect("bound").to_string();
    let output = run(&["gateway", "redis", "--config", &cluster.config(), "--listen", &address]);
    assert_eq!(code(&output), 1);
    let told = stderr(&output);
    assert!(told.contains(&address) && !told.contains("waiting"), "{told}");
}

#[test]
fn a_key_that_others_can_read_is_refused() {
    let cluster = Cluster::found(FOUR);
    let key = cluster.path().join("keys/replica-2.key");
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o640)).expect("own file");
    let output = cluster.command(2).output().expect("it runs");
    assert_eq!(code(&output), 1);
    assert!(stderr(&output).contains("chmod 600"), "{}", stderr(&output));
    let output = run(&["config", "check", &cluster.config()]);
    assert_eq!(code(&output), 1);
    // The refusal has not used up the first start.
    assert!(cluster.path().join("state/replica-2.virgin").exists());
}

#[test]
fn a_replica_starts_again_but_not_on_a_lost_disk() {
    let mut cluster = Cluster::found(FOUR);
    cluster.start_one(1);
    let mark = cluster.path().join("state/replica-1.virgin");
    cluster::until("the mark is taken", || {
        if mark.exists() { Err("it is there".to_owned()) } else { Ok(()) }
    });
    // While it runs, its ports are taken: that is what the second one sees.
    let second = cluster.command(1).output().expect("it runs");
    assert_eq!(code(&second), 1);
    assert!(stderr(&second).contains("running already"), "{}", stderr(&second));
    let reachable = |cluster: &Cluster| {
        let (_, status) = cluster.status();
        let reachable = &status["replicas"][1]["reachable"];
        if reachable == true { Ok(()) } else { Err(status.to_string()) }
    };
    cluster::until("it listens to signals and to clients", || reachable(&cluster));
    cluster.replica(1).signal(Signal::TERM);
    assert_eq!(cluster.replica(1).wait().code(), Some(0), "drains: {}", cluster.log(1));
    cluster.start_one(1);
    cluster::until("it is back", || reachable(&cluster));
    cluster.replica(1).signal(Signal::KILL);
    cluster.replica(1).wait();
    let dir = cluster.path().join("state/replica-1");
    std::fs::remove_dir_all(&dir).expect("its directory was there");
    let lost = cluster.command(1).output().expect("it runs");
    assert_eq!(code(&lost), 1);
    let told = stderr(&lost);
    for part in ["its mark", "is gone", "stylite replica --recover"] {
        assert!(told.contains(part), "{told}");
    }
}

#[test]
fn a_demo_refuses_a_group_whose_replicas_have_forgotten_their_votes() {
    let cluster = Cluster::found(FOUR);
    for id in 0..2 {
        let mark = cluster.path().join(format!("state/replica-{id}.virgin"));
        std::fs::remove_file(mark).expect("it was there");
    }
    let demo = run(&["demo", "--dir", &cluster.config(), "--redis", "127.0.0.1:0"]);
    assert_eq!(code(&demo), 1);
    let told = stderr(&demo);
    for part in [
        "2 replicas of this group may have forgotten",
        "No checkpoint is left",
        "--durability sync",
    ] {
        assert!(told.contains(part), "{told}");
    }
}

#[test]
fn misbehaviour_is_for_groups_that_were_founded_for_it() {
    let cluster = Cluster::found(FOUR);
    let output = cluster.command(0).args(["--misbehave", "silent"]).output().expect("it runs");
    assert_eq!(code(&output), 1);
    assert!(stderr(&output).contains("init --drills"), "{}", stderr(&output));
    let output = cluster.command(0).args(["--misbehave", "loud"]).output().expect("it runs");
    assert_eq!(code(&output), 2);
    assert!(stderr(&output).contains("slow-leader"), "{}", stderr(&output));
    let config = cluster.config();
    let demo =
        run(&["demo", "--dir", &config, "--redis", "127.0.0.1:0", "--misbehave", "1=silent"]);
    assert_eq!(code(&demo), 1);
    assert!(stderr(&demo).contains("drills = false"), "{}", stderr(&demo));
    let demo = run(&["demo", "--misbehave", "0=silent,1=silent"]);
    assert_eq!(code(&demo), 2);
    assert!(stderr(&demo).contains("--replicas 7"), "{}", stderr(&demo));
    let demo = run(&["demo", "--misbehave", "9=silent"]);
    assert_eq!(code(&demo), 2);
    assert!(stderr(&demo).contains("no replica 9"), "{}", stderr(&demo));
    assert!(cluster.path().join("state/replica-0.virgin").exists());
}

#[test]
fn a_metrics_address_that_is_taken_is_refused_when_it_was_asked_for() {
    let cluster = Cluster::found(FOUR);
    let taken = std::net::TcpListener::bind(("127.0.0.1", 0)).expect("a free port");
    let address = taken.local_addr().expect("bound").to_string();
    let output = cluster.command(0).args(["--metrics", &address]).output().expect("it runs");
    assert_eq!(code(&output), 1);
    assert!(stderr(&output).contains(&format!("--metrics {address}")), "{}", stderr(&output));
    assert!(cluster.path().join("state/replica-0.virgin").exists());
    let output = cluster.command(0).args(["--metrics", "nowhere"]).output().expect("it runs");
    assert_eq!(code(&output), 2);
}

#[test]
fn what_is_no_snapshot_is_refused_and_nothing_is_written() {
    let cluster = Cluster::found(FOUR);
    let (config, dir) = (cluster.config(), TempDir::new().expect("a temporary directory"));
    let file = |name: &str| dir.path().join(name).display().to_string();
    std::fs::write(file("junk"), vec![7; 100_000]).expect("own directory");
    let refused = |args: &[&str], part: &str| {
        let output = run(args);
        assert_eq!(code(&output), 1, "{args:?}");
        assert!(stderr(&output).contains(part), "{}", stderr(&output));
    };
    refused(&["snapshot", "verify", &file("junk"), "--config", &config], "head");
    refused(&["snapshot", "verify", &file("none"), "--config", &config], "cannot open");
    let out = file("out");
    refused(&["snapshot", "save", "--config", &config, "--out", &out], "no certified checkpoint");
    let save = ["snapshot", "save", "--config", &config, "--out", &out, "--running", "127.0.0.1:1"];
    refused(&save, "no replica answers");
    let restore = ["snapshot", "restore", &file("junk"), "--config", &config, "--replica", "1"];
    refused(&restore, "head");
    let group = file("group");
    refused(&["init", &group, "--replicas", "4", "--from-snapshot", &file("junk")], "head");
    assert!(!dir.path().join("group").exists() && !dir.path().join("out").exists());
    assert!(cluster.path().join("state/replica-1.virgin").exists());
}

#[test]
fn a_taken_port_does_not_use_up_the_first_start() {
    let cluster = Cluster::found(FOUR);
    let check = run(&["config", "show", "--config", &cluster.config(), "-o", "json"]);
    assert_eq!(code(&check), 0, "{}", stderr(&check));
    let text = std::fs::read_to_string(cluster.path().join("group.toml")).expect("it is there");
    let port = text.lines().find_map(|line| line.strip_prefix("port = ")).expect("a port");
    let port: u16 = port.parse().expect("a number");
    let taken = std::net::TcpListener::bind(("127.0.0.1", port)).expect("free until now");
    let output = cluster.command(0).output().expect("it runs");
    assert_eq!(code(&output), 1);
    assert!(stderr(&output).contains(&format!("127.0.0.1:{port}")), "{}", stderr(&output));
    assert!(cluster.path().join("state/replica-0.virgin").exists());
    drop(taken);
}

#[test]
fn a_mark_of_another_group_is_refused() {
    let (cluster, other) = (Cluster::found(FOUR), Cluster::found(FOUR));
    let mark = "state/replica-0.virgin";
    std::fs::copy(other.path().join(mark), cluster.path().join(mark)).expect("own files");
    let output = cluster.command(0).output().expect("it runs");
    assert_eq!(code(&output), 1);
    assert!(stderr(&output).contains("another group"), "{}", stderr(&output));
}

#[test]
fn a_gateway_listens_to_others_only_when_told_twice() {
    let cluster = Cluster::found(FOUR);
    let config = cluster.config();
    let output = run(&["gateway", "redis", "--config", &config, "--listen", "0.0.0.0:0"]);
    assert_eq!(code(&output), 1);
    assert!(stderr(&output).contains("--allow-remote"), "{}", stderr(&output));
    let output = run(&["gateway", "redis", "--config", &config, "--client", "99"]);
    assert_eq!(code(&output), 1);
    assert!(stderr(&output).contains("no client 99"), "{}", stderr(&output));
}

#[test]
fn flags_beat_the_environment_which_beats_the_file_which_beats_the_default() {
    let cluster = Cluster::found(FOUR);
    let show = |env: Option<&str>, flag: Option<&str>| {
        let mut command = stylite();
        command.args(["config", "show", "-o", "json", "--config", &cluster.config(), "replica"]);
        command.args(flag.map(|value| ["--threads", value]).into_iter().flatten());
        env.map(|value| command.env("STYLITE_THREADS", value));
        let output = command.output().expect("it runs");
        let shown = json(&output);
        let mut settings = shown["settings"].as_array().expect("a list").iter();
        let threads = settings.find(|one| one["name"] == "threads").expect("it is there").clone();
        (threads["value"].clone(), threads["source"].as_str().expect("a text").to_owned())
    };
    assert_eq!(show(None, None), (serde_json::Value::Null, "unset".to_owned()));
    let file = cluster.path().join("stylite.toml");
    std::fs::write(&file, "threads = 5\nlog = \"debug\"\n").expect("own directory");
    assert_eq!(show(None, None), ("5".into(), file.display().to_string()));
    assert_eq!(show(Some("6"), None), ("6".into(), "environment".to_owned()));
    assert_eq!(show(Some("6"), Some("7")), ("7".into(), "flag".to_owned()));
    // What is wrong is blamed on where it stands.
    std::fs::write(&file, "threads = \"many\"\n").expect("own directory");
    let wrong = |env: Option<&str>, flags: &[&str]| {
        let mut command = stylite();
        command.args(["replica", "--config", &cluster.config(), "--id", "0"]).args(flags);
        env.map(|value| command.env("STYLITE_THREADS", value));
        let output = command.output().expect("it runs");
        assert_eq!(code(&output), 2, "{}", stderr(&output));
        stderr(&output)
    };
    let told = wrong(None, &[]);
    assert!(told.contains(&format!("`threads` in {}", file.display())), "{told}");
    let told = wrong(Some("few"), &[]);
    assert!(told.contains("the variable STYLITE_THREADS"), "{told}");
    let told = wrong(Some("few"), &["--threads", "some"]);
    assert!(!told.contains("comes from"), "{told}");
}

#[test]
fn what_a_file_says_is_checked_as_flags_are() {
    let cluster = Cluster::found(FOUR);
    let file = cluster.path().join("stylite.toml");
    let run_with = |text: &str| {
        std::fs::write(&file, text).expect("own directory");
        run(&["status", "--config", &cluster.config(), "--timeout", "1s"])
    };
    let output = run_with("time_out = \"1s\"\n");
    assert_eq!(code(&output), 1);
    assert!(stderr(&output).contains("did you mean `timeout`"), "{}", stderr(&output));
    assert_eq!(code(&run_with("client = \"many\"\n")), 2);
    assert_eq!(code(&run_with("client = {}\n")), 1);
    // Settings of other commands are no mistake; output = json is obeyed.
    let output = run_with("threads = 1\nno_pin = true\noutput = \"json\"\n");
    assert_eq!(code(&output), 4, "{}", stderr(&output));
    assert_eq!(json(&output)["health"], "unavailable");
    let check = run(&["config", "check", &cluster.config()]);
    assert_eq!(code(&check), 0, "{}", stderr(&check));
}

#[test]
fn unknown_keys_and_variables_are_named_with_a_suggestion() {
    let cluster = Cluster::found(FOUR);
    let path = cluster.path().join("group.toml");
    let text = std::fs::read_to_string(&path).expect("it is there");
    std::fs::write(&path, text.replace("window =", "windw =")).expect("own file");
    let output = run(&["config", "check", &cluster.config()]);
    assert_eq!(code(&output), 1);
    assert!(stderr(&output).contains("did you mean `window`"), "{}", stderr(&output));
    let output = stylite().arg("version").env("STYLITE_THREDS", "1").output().expect("it runs");
    assert_eq!(code(&output), 0);
    assert!(stderr(&output).contains("did you mean STYLITE_THREADS"), "{}", stderr(&output));
}
