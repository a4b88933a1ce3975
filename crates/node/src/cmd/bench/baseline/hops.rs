//! How long a small sealed message takes one way over loopback, between threads that sleep while
//! they wait: half of a round trip. Each thread has a processor of its own where there are two,
//! as replicas would have.

use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow};
use hdrhistogram::Histogram;

use super::link::{Keys, Link, wait};
use crate::cpus::Cpus;

/// What came of it, in microseconds.
pub struct Hop {
    /// Median.
    pub p50_us: f64,
    /// 99th percentile.
    pub p99_us: f64,
}

/// Bytes of a message: about those of a vote.
const MESSAGE: [u8; 64] = [0; 64];
/// Longest round trip that is told apart, in nanoseconds.
const TRIP_NS_MAX: u64 = 10_000_000_000;

/// Measures once.
///
/// # Errors
/// When the system refuses threads or sockets.
pub fn measure(duration: Duration) -> Result<Hop> {
    let (near, far) = Keys::new(1, 1)?.link(0, 0)?;
    let [one, other] = Cpus::allowed().two();
    let echo = on(other, move || echo(far));
    let ping = on(one, move || ping(near, duration));
    let hop = ping.join().map_err(|_| anyhow!("a thread panicked"))?;
    echo.join().map_err(|_| anyhow!("a thread panicked"))??;
    hop
}

/// A thread that is tied to processors, as far as the system allows.
fn on<T: Send + 'static>(
    cpus: Cpus,
    run: impl FnOnce() -> Result<T> + Send + 'static,
) -> JoinHandle<Result<T>> {
    std::thread::spawn(move || {
        // Without it the figure is that of wherever the threads run.
        let _ = cpus.enter();
        run()
    })
}

fn ping(near: Link, duration: Duration) -> Result<Hop> {
    let mut links = [near];
    let mut trips = Histogram::<u64>::new_with_bounds(1, TRIP_NS_MAX, 3)?;
    let until = Instant::now() + duration;
    loop {
        let start = Instant::now();
        if start >= until {
            break;
        }
        links[0].queue(|out| out.extend_from_slice(&MESSAGE))?;
        links[0].flush()?;
        let mut back = false;
        while !back {
            wait(&links)?;
            links[0].read(|_| back = true)?;
        }
        let trip = u64::try_from(start.elapsed().as_nanos()).unwrap_or(TRIP_NS_MAX);
        trips.record(trip.clamp(1, TRIP_NS_MAX))?;
    }
    let one_way = |share| trips.value_at_quantile(share) as f64 / 2_000.0;
    Ok(Hop { p50_us: one_way(0.5), p99_us: one_way(0.99) })
}

fn echo(link: Link) -> Result<()> {
    let mut links = [link];
    loop {
        wait(&links)?;
        let mut came = 0;
        let open = links[0].read(|_| came += 1)?;
        for _ in 0..came {
            links[0].queue(|out| out.extend_from_slice(&MESSAGE))?;
        }
        if !open || links[0].flush().is_err() {
            return Ok(());
        }
    }
}
