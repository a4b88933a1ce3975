//! The micro-benchmarks of CBASE (2004): what the graph of dependencies costs, and what execution
//! in parallel gains where requests wait and where they compute.

use super::super::job::{Job, words};
use super::{CPU, Experiment, Figure, Plot, Point, RATE, Series, series};

/// All of them: requests that do nothing, wait 20 ms, or compute.
pub fn all(cpus: usize) -> Vec<Experiment> {
    vec![graph(), overhead(), resources(), independence(), computing(cpus)]
}

fn graph() -> Experiment {
    let one = |name: &str, flags: &str| {
        let point = |pending: &u32| Point {
            x: (*pending).into(),
            job: Job::Graph(words(&format!("--pending {pending} {flags}"))),
        };
        Series {
            name: name.to_owned(),
            points: [1, 100, 10_000, 100_000].iter().map(point).collect(),
        }
    };
    Experiment {
        name: "cbase-graph".to_owned(),
        title: "The dependency graph alone, on one core (CBASE, section 5.1)".to_owned(),
        about: "Each operation is an insertion and a removal, while as many others are pending. \
            Each touches two classes.",
        x: "pending requests",
        log_x: true,
        plots: vec![RATE, CPU],
        series: vec![one("independent", ""), one("1 of 10 depends on others", "--dependent 10")],
    }
}

fn overhead() -> Experiment {
    let depths = [1, 4, 16, 64, 256, 1024, 4096];
    let line = |outstanding: u32| format!("--service work --clients 2 --outstanding {outstanding}");
    Experiment {
        name: "cbase-4".to_owned(),
        title: "Overhead without anything to gain (CBASE, figure 4)".to_owned(),
        about: "Independent requests that do nothing; 16 workers per replica, and none.",
        x: "operations under way per client",
        log_x: true,
        plots: vec![RATE, Plot { x: Some(Figure::Rate), y: Figure::P50 }, CPU],
        series: vec![
            series(("sequential", "--workers 0"), &depths, line),
            series(("parallel", "--workers 16"), &depths, line),
        ],
    }
}

/// Requests that wait: of many clients, so that few are in a frame and none waits long for the
/// others; the stage has a thread of its own, so that agreement goes on while it waits.
const WAITS: &str = "--service work --sleep 20ms --threads 2";
const WAITING_CLIENTS: u32 = 64;

/// Whoever executes one after the other needs no long queue, and is slow enough in a short one.
fn waits_alone() -> Series {
    let line = |_: u32| format!("{WAITS} --clients 4 --outstanding 1");
    series(("sequential", "--workers 0"), &[1], line)
}

/// Four requests under way for each worker: one that it executes, and those that are agreed on and
/// answered meanwhile.
fn resources() -> Experiment {
    let workers = [2, 4, 8, 16, 32, 64, 128];
    let parallel = series(("parallel", WAITS), &workers, |workers: u32| {
        let clients = WAITING_CLIENTS.min(4 * workers);
        let outstanding = 4 * workers / clients;
        format!("--clients {clients} --outstanding {outstanding} --workers {workers}")
    });
    Experiment {
        name: "cbase-5a".to_owned(),
        title: "Scaling with resources (CBASE, figure 5a)".to_owned(),
        about: "Independent requests that sleep 20 ms, as if each waited for a disk of its own: \
            one worker per disk.",
        x: "workers",
        log_x: true,
        plots: vec![RATE],
        series: vec![waits_alone(), parallel],
    }
}

fn independence() -> Experiment {
    let keys = [1, 2, 5, 10, 20, 50, 100, 200];
    let parallel = series(("parallel, 100 workers", WAITS), &keys, |keys: u32| {
        format!("--clients {WAITING_CLIENTS} --outstanding 8 --workers 100 --keys {keys}")
    });
    Experiment {
        name: "cbase-5b".to_owned(),
        title: "Scaling with parallelism of the requests (CBASE, figure 5b)".to_owned(),
        about: "The same with 100 workers; requests with the same key depend on each other, so \
            that as many may execute at once as there are keys.",
        x: "parallelism factor",
        log_x: true,
        plots: vec![RATE],
        series: vec![waits_alone(), parallel],
    }
}

fn computing(cpus: usize) -> Experiment {
    let times = [5, 10, 20, 50, 100, 200, 500];
    let with = |name: &str, workers: usize| {
        let flags = format!("--agreement none --workers {workers} --client-threads 1");
        series((name, &flags), &times, |us: u32| {
            format!("--service work --spin {us}us --clients 2 --outstanding 512")
        })
    };
    Experiment {
        name: "cbase-cpu".to_owned(),
        title: "Requests that compute, on all processors".to_owned(),
        about: "One server, so that the processors are its own; clients and the server's other \
            threads need their share.",
        x: "µs per request",
        log_x: true,
        plots: vec![RATE, CPU],
        series: vec![with("sequential", 0), with("parallel", cpus)],
    }
}
