//! Values on the command line that `clap` does not know by itself.
//!
//! Also words for values that are shown to people. Depends on the standard library, `genesis`
//! and `rt`.

use std::net::SocketAddr;
use std::time::Duration;

use base::ReplicaId;
use genesis::GenesisError;
use rt::Drill;

use crate::exit::Misuse;

/// Reads a duration: a number and `us`, `ms`, `s`, `m` or `h`; a bare number is seconds.
///
/// # Errors
/// When it is none, or longer than a day.
pub fn duration(text: &str) -> Result<Duration, String> {
    let bad = || format!("`{text}` is no duration: give a number and a unit, such as 500ms or 10s");
    let split = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(split);
    let number: f64 = number.parse().map_err(|_| bad())?;
    let unit = match unit.trim() {
        "us" => 1e-6,
        "ms" => 1e-3,
        "s" | "" => 1.0,
        "m" => 60.0,
        "h" => 3600.0,
        _ => return Err(bad()),
    };
    let seconds = number * unit;
    if !(0.0..=86_400.0).contains(&seconds) {
        return Err(format!("`{text}` is longer than a day"));
    }
    Ok(Duration::from_secs_f64(seconds))
}

/// Reads a duration that is not 0; see [`duration`].
///
/// # Errors
/// When it is none, 0, or longer than a day.
pub fn some_duration(text: &str) -> Result<Duration, String> {
    match duration(text)? {
        Duration::ZERO => Err(format!("`{text}` is no time at all: give more than 0")),
        some => Ok(some),
    }
}

/// A number of things: "1 pillar", "2 pillars".
#[must_use]
pub fn count(number: u64, thing: &str) -> String {
    format!("{number} {thing}{}", if number == 1 { "" } else { "s" })
}

/// What is wrong with the options of a group that is being founded, in the words of the command
/// line: fields of its configuration, which is not there yet, become the flags that set them.
#[must_use]
pub fn flagged(error: GenesisError) -> anyhow::Error {
    let GenesisError::Field { field, value, remedy, .. } = &error else {
        return error.into();
    };
    let flag = match field.rsplit(' ').next().unwrap_or(field) {
        "hosts" | "host" => "host",
        "port" | "ports" => "port",
        "window" | "checkpoint_interval" => "checkpoint-interval",
        "view_timeout_ms" => "view-timeout",
        known @ ("name" | "service" | "agreement" | "leaders" | "commits" | "replies"
        | "repliers" | "bodies" | "tentative" | "reads" | "idle" | "transport"
        | "socket-dir" | "replicas" | "faults" | "pillars" | "partitions" | "clients") => known,
        _ => return error.into(),
    };
    // A flag that belongs to one replica says to which; a derived value says what it is.
    let of = if field.replace('_', "-") == flag || field == "hosts" {
        ""
    } else {
        &format!(" (as {field})")
    };
    Misuse::of(format!("--{flag} {value}{of}: {remedy}"))
}

/// Reads a number from 1 to 1024.
///
/// # Errors
/// When it is none.
pub fn positive(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(number @ 1..=1024) => Ok(number),
        _ => Err(format!("`{text}` is not a number from 1 to 1024")),
    }
}

/// Where metrics are served.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Metrics {
    /// Nowhere.
    Off,
    /// There.
    At(SocketAddr),
}

/// Reads where metrics are served: an address with a port, or `none`.
///
/// # Errors
/// When it is neither.
pub fn metrics(text: &str) -> Result<Metrics, String> {
    match text {
        "none" => Ok(Metrics::Off),
        _ => text.parse().map(Metrics::At).map_err(|_| {
            format!("`{text}` is no address: give one with a port, such as 127.0.0.1:9100, or none")
        }),
    }
}

/// Reads an address with a port that something listens on.
///
/// # Errors
/// When it is none.
pub fn some_address(text: &str) -> Result<SocketAddr, String> {
    let bad = || format!("`{text}` is no address with a port, such as 127.0.0.1:8400");
    text.parse().ok().filter(|address: &SocketAddr| address.port() > 0).ok_or_else(bad)
}

/// Which replica is to misbehave, and how.
pub type Assignment = (ReplicaId, Drill);

/// Reads a replica and its behaviour, such as `1=wrong-reply`.
///
/// # Errors
/// When it is none.
pub fn assignment(text: &str) -> Result<Assignment, String> {
    let bad = || format!("`{text}`: give a replica and a behaviour, such as 1=wrong-reply");
    let (replica, behaviour) = text.split_once('=').ok_or_else(bad)?;
    let replica = replica.trim().parse().map_err(|_| bad())?;
    let drill = behaviour.trim().parse::<Drill>().map_err(|error| error.to_string())?;
    Ok((ReplicaId(replica), drill))
}

/// Bytes as people read them: "12 MiB".
#[must_use]
pub fn bytes(number: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut shown = number;
    let mut unit = 0;
    while shown >= 10_000 && unit + 1 < UNITS.len() {
        shown /= 1024;
        unit += 1;
    }
    format!("{shown} {}", UNITS[unit])
}

/// The one of `known` that looks most like `word`, if any looks like it at all.
pub fn closest<'a>(word: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let near = known.map(|candidate| (genesis::distance(word, candidate), candidate));
    let (far, candidate) = near.min()?;
    (far <= 2.max(word.chars().count() / 3)).then_some(candidate)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_units() {
        assert_eq!(duration("10s"), Ok(Duration::from_secs(10)));
        assert_eq!(duration("1.5"), Ok(Duration::from_millis(1500)));
        assert_eq!(duration("250us"), Ok(Duration::from_micros(250)));
        assert_eq!(duration("2m"), Ok(Duration::from_secs(120)));
        assert!(some_duration("0ms").is_err() && some_duration("1ms").is_ok());
        for bad in ["", "s", "10x", "-1s", "1e9", "25h", "1.2.3s"] {
            assert!(duration(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn metrics_are_at_an_address_or_nowhere() {
        assert_eq!(metrics("none"), Ok(Metrics::Off));
        let at = "127.0.0.1:9100".parse().expect("an address");
        assert_eq!(metrics("127.0.0.1:9100"), Ok(Metrics::At(at)));
        assert_eq!(some_address("127.0.0.1:9100"), Ok(at));
        for bad in ["", "9100", "off", "localhost:1", "127.0.0.1"] {
            assert!(metrics(bad).is_err() && some_address(bad).is_err(), "{bad}");
        }
        assert!(some_address("127.0.0.1:0").is_err(), "nothing listens there");
    }

    #[test]
    fn misbehaviour_is_assigned_to_a_replica() {
        assert_eq!(assignment("1=wrong-reply"), Ok((ReplicaId(1), Drill::WrongReply)));
        assert_eq!(assignment("0=crash-after=9"), Ok((ReplicaId(0), Drill::CrashAfter(9))));
        for bad in ["", "1", "=silent", "x=silent", "1=", "1=loud", "70000=silent"] {
            assert!(assignment(bad).is_err(), "{bad}");
        }
        let told = assignment("1=loud").expect_err("unknown");
        assert!(told.contains("`loud`") && told.contains("slow-leader"), "{told}");
    }

    #[test]
    fn bytes_have_units() {
        assert_eq!(bytes(0), "0 B");
        assert_eq!(bytes(9_999), "9999 B");
        assert_eq!(bytes(10_240), "10 KiB");
        assert_eq!(bytes(64 << 20), "64 MiB");
        assert_eq!(bytes(u64::MAX), "16777215 TiB");
    }

    #[test]
    fn suggestions_are_close() {
        let known = ["threads", "durability", "listen"];
        assert_eq!(closest("thread", known.into_iter()), Some("threads"));
        assert_eq!(closest("durabilty", known.into_iter()), Some("durability"));
        assert_eq!(closest("colour", known.into_iter()), None);
    }
}
