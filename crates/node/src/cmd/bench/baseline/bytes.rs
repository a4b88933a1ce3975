//! The same bytes as the group's, moved by a plain program.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};
use base::Digest;
use base::digest::Domain;

use super::link::{Keys, Link, wait};
use crate::cli::BaselineArgs;
use crate::cmd::bench::cpu;

/// What came of it.
pub struct Moved {
    /// Operations that all servers answered, per second.
    pub ops_per_s: f64,
    /// Processor time of the whole process per operation, in microseconds.
    pub cpu_us: f64,
}

/// The form of the traffic.
#[derive(Clone, Copy)]
struct Shape {
    frame_ops: u64,
    /// Frames that a client keeps under way.
    frames: u64,
    request: usize,
    reply: usize,
}

/// Bytes that an operation takes in a frame beside what it carries, as in the group's frames with
/// the echo service: its length and that of the wanted result.
const OP_BYTES: usize = 8;

/// Measures once.
///
/// # Errors
/// When the system refuses threads or sockets.
pub fn measure(args: &BaselineArgs) -> Result<Moved> {
    let frame_ops = u64::from(args.frame_ops.min(args.outstanding));
    let shape = Shape {
        frame_ops,
        frames: u64::from(args.outstanding).div_ceil(frame_ops),
        request: (args.payload as usize + OP_BYTES) * args.frame_ops as usize,
        reply: args.reply as usize * args.frame_ops as usize,
    };
    let keys = Keys::new(args.replicas, args.clients)?;
    let mut servers: Vec<Vec<Link>> = (0..args.replicas).map(|_| Vec::new()).collect();
    let mut clients: Vec<Vec<Link>> = Vec::new();
    for client in 0..args.clients {
        let mut links = Vec::new();
        for (id, server) in (0..).zip(&mut servers) {
            let (near, far) = keys.link(client, id)?;
            links.push(near);
            server.push(far);
        }
        clients.push(links);
    }
    let (done, stop) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
    let mut threads: Vec<JoinHandle<Result<()>>> = Vec::new();
    for links in servers {
        threads.push(spawn("server", move || serve(links, shape))?);
    }
    for links in clients {
        let (done, stop) = (Arc::clone(&done), Arc::clone(&stop));
        threads.push(spawn("client", move || drive(links, shape, &done, &stop))?);
    }
    std::thread::sleep(args.warmup);
    let look = || (cpu::used_us(std::process::id()), done.load(Ordering::Relaxed), Instant::now());
    let before = look();
    std::thread::sleep(args.duration.max(Duration::from_millis(1)));
    let after = look();
    stop.store(true, Ordering::Relaxed);
    for thread in threads {
        thread.join().map_err(|_| anyhow!("a thread panicked"))??;
    }
    let ops = (after.1 - before.1) as f64;
    let seconds = (after.2 - before.2).as_secs_f64();
    Ok(Moved { ops_per_s: ops / seconds, cpu_us: (after.0 - before.0) as f64 / ops.max(1.0) })
}

fn spawn(
    name: &str,
    run: impl FnOnce() -> Result<()> + Send + 'static,
) -> Result<JoinHandle<Result<()>>> {
    let thread = std::thread::Builder::new().name(name.to_owned()).spawn(run);
    thread.context("cannot start a thread")
}

/// Answers every frame, until all clients are gone.
fn serve(mut links: Vec<Link>, shape: Shape) -> Result<()> {
    let reply = vec![0; shape.reply.max(1)];
    while !links.is_empty() {
        wait(&links)?;
        let mut at = 0;
        while at < links.len() {
            let mut frames = 0;
            let open = links[at].read(|frame| {
                std::hint::black_box(Digest::of(Domain::Frame, frame));
                frames += 1;
            })?;
            for _ in 0..frames {
                std::hint::black_box(Digest::of(Domain::Reply, &reply));
                links[at].queue(|out| out.extend_from_slice(&reply))?;
            }
            if open && links[at].flush().is_ok() {
                at += 1;
            } else {
                links.swap_remove(at);
            }
        }
    }
    Ok(())
}

/// Keeps frames under way at all servers; one is done when all of them have answered it.
fn drive(mut links: Vec<Link>, shape: Shape, done: &AtomicU64, stop: &AtomicBool) -> Result<()> {
    let request = vec![0; shape.request];
    let mut answered = vec![0_u64; links.len()];
    let (mut sent, mut finished) = (0, 0);
    while !stop.load(Ordering::Relaxed) {
        while sent < finished + shape.frames {
            std::hint::black_box(Digest::of(Domain::Frame, &request));
            for link in &mut links {
                link.queue(|out| out.extend_from_slice(&request))?;
            }
            sent += 1;
        }
        links.iter_mut().try_for_each(Link::flush)?;
        wait(&links)?;
        for (link, answered) in links.iter_mut().zip(&mut answered) {
            link.read(|reply| {
                std::hint::black_box(Digest::of(Domain::Reply, reply));
                *answered += 1;
            })?;
        }
        let all = answered.iter().copied().min().unwrap_or(0);
        done.fetch_add((all - finished) * shape.frame_ops, Ordering::Relaxed);
        finished = all;
    }
    Ok(())
}
