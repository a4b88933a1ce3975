//! What a path may look like, and its parts.

use super::error::ZkError;

/// The root.
pub const ROOT: &str = "/";
/// Nodes that are there from the beginning and stay.
pub const SPECIAL: [&str; 4] = [ROOT, "/zookeeper", "/zookeeper/quota", "/zookeeper/config"];

/// Checks a path by ZooKeeper's rules.
///
/// # Errors
/// [`ZkError::BadArguments`].
pub fn validate(path: &str) -> Result<(), ZkError> {
    let Some(names) = path.strip_prefix('/') else { return Err(ZkError::BadArguments) };
    if names.is_empty() {
        return Ok(());
    }
    let legal = |name: &str| !matches!(name, "" | "." | "..") && !name.contains(is_illegal);
    if names.split('/').all(legal) { Ok(()) } else { Err(ZkError::BadArguments) }
}

/// Characters that no path has: controls, and what is more than one unit of UTF-16 or private.
fn is_illegal(c: char) -> bool {
    matches!(u32::from(c), 0..=0x1f | 0x7f..=0x9f | 0xd800..=0xf8ff | 0xfff0..)
}

/// The parent of a valid path; the root's is itself.
#[must_use]
pub fn parent(path: &str) -> &str {
    match path.rfind('/') {
        None | Some(0) => ROOT,
        Some(at) => &path[..at],
    }
}

/// The last name of a valid path; empty for the root.
#[must_use]
pub fn name(path: &str) -> &str {
    path.rfind('/').map_or(path, |at| &path[at + 1..])
}

/// The path of a child.
#[must_use]
pub fn join(parent: &str, name: &str) -> String {
    if parent == ROOT { format!("/{name}") } else { format!("{parent}/{name}") }
}

/// Digits of the suffix of a sequential node.
const SUFFIX: usize = 10;

/// A path without what may be the suffix of a sequential node: what is known of such a node's
/// path before it is made. The root is known by two names.
#[must_use]
pub fn stem(path: &str) -> &str {
    let path = if path.is_empty() { ROOT } else { path };
    match path.len().checked_sub(SUFFIX) {
        Some(at) if path.as_bytes()[at..].iter().all(u8::is_ascii_digit) => &path[..at],
        _ => path,
    }
}

/// A hash of a path, by FNV-1a.
#[must_use]
pub fn hash(path: &str) -> u64 {
    let step = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3);
    path.bytes().fold(0xcbf2_9ce4_8422_2325, step)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_checked_as_zookeeper_does() {
        for good in ["/", "/a", "/a/b", "/a.b", "/...", "/.a", "/a..", "/ü/\u{fdd0}"] {
            assert_eq!(validate(good), Ok(()), "{good}");
        }
        let bad = [
            "",
            "a",
            "a/b",
            "//",
            "/a/",
            "/a//b",
            "/.",
            "/..",
            "/a/./b",
            "/a/../b",
            "/a\0",
            "/\u{1}",
            "/\u{7f}",
            "/\u{9f}",
            "/\u{e000}",
            "/\u{fff0}",
            "/\u{1f600}",
        ];
        for bad in bad {
            assert_eq!(validate(bad), Err(ZkError::BadArguments), "{bad:?}");
        }
    }

    #[test]
    fn paths_have_parents_and_names() {
        for (path, up, last) in [("/", "/", ""), ("/a", "/", "a"), ("/a/b", "/a", "b")] {
            assert_eq!((parent(path), name(path)), (up, last));
            assert!(path == ROOT || join(up, last) == path);
        }
    }

    #[test]
    fn stems_leave_out_what_may_be_a_suffix() {
        for (path, left) in [
            ("/q/n-0000000012", "/q/n-"),
            ("/q/0000000012", "/q/"),
            ("/q/n-00000000120000000001", "/q/n-0000000012"),
            ("/q/n-000000012", "/q/n-000000012"),
            ("/q/n-000000001x", "/q/n-000000001x"),
            ("/", "/"),
            ("", "/"),
            ("/ü/12", "/ü/12"),
        ] {
            assert_eq!(stem(path), left);
        }
    }
}
