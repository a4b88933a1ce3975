//! `group.toml` as `init` writes it: every setting with a comment.

use std::fmt::Write;

use auth::PublicKeys;

use crate::group::{Group, ReplicaEntry};
use crate::raw::FORMAT;
use crate::settings::on_off;

const HEAD: &str = "\
# The genesis configuration of a Stylite group, written by `stylite init`.
#
# Every member has the same copy. The group's identity is a digest of all of it but where
# replicas listen, so a member whose copy differs in anything else is a member of another group.
# Only hosts, ports and addresses may be edited, and may differ between copies.
# Secret keys are not here; they are in keys/, one file per member.
";

/// The configuration with its comments. Names and hosts are of characters that need no
/// escaping: that was checked.
pub(crate) fn to_toml(group: &Group) -> String {
    let mut out = String::from(HEAD);
    write_all(&mut out, group).expect("writing to a string does not fail");
    out
}

fn write_all(out: &mut String, group: &Group) -> std::fmt::Result {
    let (n, f) = (group.quorums.n(), group.quorums.f());
    let settings = &group.settings;
    writeln!(out, "\n# Version of this file's layout.\nformat = {FORMAT}")?;
    writeln!(out, "name = \"{}\"", group.name)?;
    writeln!(out, "\n# What is replicated: kv, echo, or a service of your own.")?;
    writeln!(out, "service = \"{}\"", group.service)?;
    writeln!(out, "\n# The agreement protocol, and how many replicas may be faulty: n >= 3f + 1.")?;
    writeln!(out, "# pbft; or none: one server that nobody replicates, for comparison.")?;
    writeln!(out, "agreement = \"{}\"", settings.agreement.word())?;
    writeln!(out, "replicas = {n}\nfaults = {f}")?;
    write_lanes(out, group)?;
    writeln!(out, "\n# Sequence numbers between checkpoints, and how many may be in agreement")?;
    writeln!(out, "# above the last stable checkpoint: a multiple, at least twice as many.")?;
    writeln!(out, "checkpoint_interval = {}", settings.checkpoint_interval)?;
    writeln!(out, "window = {}", settings.window)?;
    writeln!(out, "\n# How far a leader's clock may be off a backup's before it is contradicted.")?;
    writeln!(out, "clock_skew_ms = {}", settings.clock_skew_max.0 / 1_000_000)?;
    writeln!(out, "\n# How long a new leader may take at first; doubles with each that fails.")?;
    writeln!(out, "view_timeout_ms = {}", settings.view_timeout.0 / 1_000_000)?;
    writeln!(
        out,
        "\n# Who leads in a view: fixed, one replica; or rotating, all of them in turn."
    )?;
    writeln!(out, "leaders = \"{}\"", settings.leaders.word())?;
    writeln!(
        out,
        "\n# When COMMITs leave: prompt, at once; or piggybacked, with the next proposal."
    )?;
    writeln!(out, "commits = \"{}\"", settings.commits.word())?;
    writeln!(out, "\n# Who gets clients' frames: separate, all; or inline, the leader, signed.")?;
    writeln!(out, "bodies = \"{}\"", settings.bodies.word())?;
    writeln!(out, "\n# Whether what is prepared is executed and answered before it is committed.")?;
    writeln!(out, "tentative = \"{}\"", on_off(settings.tentative))?;
    writeln!(
        out,
        "\n# How reads are answered: ordered, like writes; or unordered, by each replica at once."
    )?;
    writeln!(out, "reads = \"{}\"", settings.reads.word())?;
    writeln!(
        out,
        "\n# How replicas answer: full; or digest, all but one by a digest of what is large."
    )?;
    writeln!(out, "replies = \"{}\"", settings.replies.word())?;
    writeln!(
        out,
        "\n# Which replicas answer: all; or relieved, a quorum, the others in turn not."
    )?;
    writeln!(out, "repliers = \"{}\"", settings.repliers.word())?;
    writeln!(
        out,
        "\n# How a pillar without clients fills its numbers: fill, one by one; or ahead, in runs."
    )?;
    writeln!(out, "idle = \"{}\"", settings.idle.word())?;
    writeln!(out, "\n# Whether replicas obey orders to misbehave. For drills only.")?;
    writeln!(out, "drills = {}", settings.drills)?;
    if let Some(digest) = group.initial_state {
        writeln!(
            out,
            "\n# The state that the group begins with: the service's root in a snapshot."
        )?;
        writeln!(out, "initial_state = \"{}\"", hex::encode(digest.0))?;
    }
    write_batching(out, group)?;
    write_members(out, group)
}

fn write_lanes(out: &mut String, group: &Group) -> std::fmt::Result {
    writeln!(out, "\n# Pillars: parallel lanes of agreement. At most one per core is of use.")?;
    writeln!(out, "pillars = {}", group.pillars())?;
    if group.partitions() > 1 {
        writeln!(
            out,
            "\n# Partitions: parts of the service's state, each a group of its own with"
        )?;
        writeln!(out, "# as many pillars, in the same processes.")?;
        writeln!(out, "partitions = {}", group.partitions())?;
    }
    Ok(())
}

fn write_batching(out: &mut String, group: &Group) -> std::fmt::Result {
    let batching = &group.settings.batching;
    writeln!(out, "\n[batching]")?;
    writeln!(out, "# Most frames (of many requests each) and most bytes in a batch.")?;
    writeln!(out, "frames_max = {}\nbytes_max = {}", batching.frames_max, batching.bytes_max)?;
    writeln!(out, "# How long a batch that is not full waits for more, in microseconds.")?;
    writeln!(out, "delay_us = {}", batching.delay.0 / 1_000)?;
    writeln!(out, "# Batches of a pillar in agreement at once; above it, requests gather.")?;
    writeln!(out, "in_flight_max = {}", batching.in_flight_max)?;
    writeln!(out, "# One frame per batch: for comparisons.\nunbatched = {}", batching.unbatched)
}

fn write_members(out: &mut String, group: &Group) -> std::fmt::Result {
    writeln!(out, "\n# The replicas, and where their pillars listen: at a host, pillar p on")?;
    writeln!(out, "# port + p; or at addresses, one for each pillar: \"host:port\", or on one")?;
    writeln!(out, "# host \"unix:/path\", a socket, or \"shm:/path\", shared memory.")?;
    if group.partitions() > 1 {
        writeln!(out, "# The pillars of partition 0 first, then those of partition 1, and so on.")?;
    }
    for replica in &group.replicas {
        writeln!(out, "\n[[replica]]\nid = {}", replica.id)?;
        write_addresses(out, replica)?;
        write_keys(out, &replica.keys)?;
    }
    writeln!(out, "\n# The principals that may send requests: gateways and programs.")?;
    for client in &group.clients {
        writeln!(out, "\n[[client]]\nid = {}\nname = \"{}\"", client.id, client.name)?;
        write_keys(out, &client.keys)?;
    }
    Ok(())
}

fn write_addresses(out: &mut String, replica: &ReplicaEntry) -> std::fmt::Result {
    let Some((host, ports)) = replica.host_and_ports() else {
        writeln!(out, "addresses = [")?;
        for address in &replica.addresses {
            writeln!(out, "    \"{address}\",")?;
        }
        return writeln!(out, "]");
    };
    writeln!(out, "host = \"{host}\"")?;
    let base = ports[0];
    if base > 0 && ports.iter().zip(u32::from(base)..).all(|(p, at)| u32::from(*p) == at) {
        writeln!(out, "port = {base}")
    } else {
        writeln!(out, "ports = {ports:?}")
    }
}

fn write_keys(out: &mut String, keys: &PublicKeys) -> std::fmt::Result {
    writeln!(out, "ed25519 = \"{}\"", hex::encode(keys.ed25519))?;
    writeln!(out, "x25519 = \"{}\"", hex::encode(keys.x25519))?;
    writeln!(out, "certificate = \"{}\"", hex::encode(keys.certificate.0))
}
