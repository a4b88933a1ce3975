//! What stands in `group.toml`, before anything about it is believed.

use std::path::Path;

use serde::Deserialize;

use crate::error::GenesisError;

/// The version of the file's layout.
pub(crate) const FORMAT: u32 = 1;

/// Unknown keys are found by [`parse`].
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct RawGroup {
    pub(crate) format: u32,
    pub(crate) name: String,
    pub(crate) service: String,
    pub(crate) agreement: String,
    pub(crate) replicas: u16,
    pub(crate) faults: u16,
    pub(crate) pillars: u16,
    pub(crate) partitions: Option<u16>,
    pub(crate) checkpoint_interval: Option<u64>,
    pub(crate) window: Option<u64>,
    pub(crate) clock_skew_ms: Option<u64>,
    pub(crate) view_timeout_ms: Option<u64>,
    #[serde(flatten)]
    pub(crate) ways: RawWays,
    pub(crate) drills: Option<bool>,
    pub(crate) initial_state: Option<String>,
    #[serde(default)]
    pub(crate) batching: RawBatching,
    #[serde(default)]
    pub(crate) replica: Vec<RawReplica>,
    #[serde(default)]
    pub(crate) client: Vec<RawClient>,
}

/// The switches of the group.
#[derive(Clone, Debug, Default, Deserialize)]
pub(crate) struct RawWays {
    pub(crate) leaders: Option<String>,
    pub(crate) commits: Option<String>,
    pub(crate) replies: Option<String>,
    pub(crate) repliers: Option<String>,
    pub(crate) bodies: Option<String>,
    pub(crate) tentative: Option<String>,
    pub(crate) reads: Option<String>,
    pub(crate) idle: Option<String>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct RawBatching {
    pub(crate) frames_max: Option<usize>,
    pub(crate) bytes_max: Option<usize>,
    pub(crate) delay_us: Option<u64>,
    pub(crate) in_flight_max: Option<usize>,
    pub(crate) unbatched: Option<bool>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct RawReplica {
    pub(crate) id: u16,
    pub(crate) host: Option<String>,
    pub(crate) port: Option<u16>,
    pub(crate) ports: Option<Vec<u16>>,
    pub(crate) addresses: Option<Vec<String>>,
    pub(crate) ed25519: String,
    pub(crate) x25519: String,
    pub(crate) certificate: String,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct RawClient {
    pub(crate) id: u32,
    pub(crate) name: String,
    pub(crate) ed25519: String,
    pub(crate) x25519: String,
    pub(crate) certificate: String,
}

const GROUP_KEYS: &[&str] = &[
    "format",
    "name",
    "service",
    "agreement",
    "replicas",
    "faults",
    "pillars",
    "partitions",
    "checkpoint_interval",
    "window",
    "clock_skew_ms",
    "view_timeout_ms",
    "leaders",
    "commits",
    "replies",
    "repliers",
    "bodies",
    "tentative",
    "reads",
    "idle",
    "drills",
    "initial_state",
    "batching",
    "replica",
    "client",
];
const BATCHING_KEYS: &[&str] =
    &["frames_max", "bytes_max", "delay_us", "in_flight_max", "unbatched"];
const REPLICA_KEYS: &[&str] =
    &["id", "host", "port", "ports", "addresses", "ed25519", "x25519", "certificate"];
const CLIENT_KEYS: &[&str] = &["id", "name", "ed25519", "x25519", "certificate"];

/// Reads the text. Unknown keys are found first, so that a typing error is answered with a
/// suggestion and not with a missing field.
pub(crate) fn parse(text: &str, path: &Path) -> Result<RawGroup, GenesisError> {
    let syntax = |error: toml::de::Error| GenesisError::Syntax {
        path: path.to_path_buf(),
        message: error.to_string().trim_end().to_owned(),
    };
    let table: toml::Table = text.parse().map_err(syntax)?;
    let unknown = unknown_key(&table);
    if let Some((key, suggestion)) = unknown {
        return Err(GenesisError::UnknownKey { path: path.to_path_buf(), key, suggestion });
    }
    toml::from_str(text).map_err(syntax)
}

type Unknown = Option<(String, Option<String>)>;

fn unknown_key(group: &toml::Table) -> Unknown {
    let mut found = unknown_in(group, "", GROUP_KEYS);
    let tables = [("batching", BATCHING_KEYS), ("replica", REPLICA_KEYS), ("client", CLIENT_KEYS)];
    for (name, known) in tables {
        let inner: &[toml::Value] = match group.get(name) {
            Some(toml::Value::Array(items)) => items,
            Some(value) => std::slice::from_ref(value),
            None => &[],
        };
        let prefix = format!("{name}.");
        let mut tables = inner.iter().filter_map(toml::Value::as_table);
        found = found.or_else(|| tables.find_map(|table| unknown_in(table, &prefix, known)));
    }
    found
}

fn unknown_in(table: &toml::Table, prefix: &str, known: &[&str]) -> Unknown {
    let key = table.keys().find(|key| !known.contains(&key.as_str()))?;
    Some((format!("{prefix}{key}"), suggest(key, known)))
}

/// The known key that `key` was probably meant to be.
pub(crate) fn suggest(key: &str, known: &[&str]) -> Option<String> {
    let key = key.to_ascii_lowercase().replace('-', "_");
    // Longer than any key by more than the tolerance: nothing is near, and nothing is computed.
    if key.len() > 64 {
        return None;
    }
    let near = |candidate: &&&str| distance(&key, candidate) <= 1 + candidate.len() / 3;
    let best = known.iter().filter(near).min_by_key(|candidate| distance(&key, candidate))?;
    Some((*best).to_owned())
}

/// Levenshtein distance in bytes: how many insertions, deletions and substitutions lead from one
/// word to the other. For suggestions in errors about names.
#[must_use]
pub fn distance(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.bytes().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.bytes().enumerate() {
            let changed = diagonal + usize::from(x != y);
            diagonal = row[j + 1];
            row[j + 1] = changed.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distances_are_those_of_the_textbook() {
        assert_eq!(distance("kitten", "sitting"), 3);
        assert_eq!(distance("", "abc"), 3);
        assert_eq!(distance("abc", ""), 3);
        assert_eq!(distance("window", "window"), 0);
    }

    #[test]
    fn typing_errors_are_answered_with_the_key_that_was_meant() {
        assert_eq!(suggest("pilars", GROUP_KEYS).as_deref(), Some("pillars"));
        assert_eq!(suggest("Window", GROUP_KEYS).as_deref(), Some("window"));
        assert_eq!(suggest("clock-skew-ms", GROUP_KEYS).as_deref(), Some("clock_skew_ms"));
        assert_eq!(suggest("zzzzzz", GROUP_KEYS), None);
        assert_eq!(suggest(&"w".repeat(1000), GROUP_KEYS), None);
    }
}
