//! Who may do what to a node: the schemes `world`, `auth` and `digest`.
//!
//! `ip` is refused: the address of a client is known to its gateway alone, and replicas believe
//! no gateway about its clients.

use std::sync::Arc;

use base::{Malformed, Reader, Writer};
use sha1::{Digest as _, Sha1};

use super::error::ZkError;
use super::jute::{JuteReader, JuteWriter};

/// What an ACL allows, as bits.
pub mod perms {
    /// Read data, ACL and names of children.
    pub const READ: i32 = 1;
    /// Write data.
    pub const WRITE: i32 = 2;
    /// Create children.
    pub const CREATE: i32 = 4;
    /// Delete children.
    pub const DELETE: i32 = 8;
    /// Set the ACL.
    pub const ADMIN: i32 = 16;
    /// Everything.
    pub const ALL: i32 = 31;
}

/// Most entries of an ACL that is kept.
pub const ENTRIES_MAX: usize = 256;
/// Most bytes of the ids that entries with the scheme `auth` stand for, together: what a request
/// says in a few bytes is kept for each node that it creates.
const AUTH_BYTES_MAX: usize = 8 << 10;
/// Longest credentials, in bytes.
pub const CREDENTIALS_BYTES_MAX: usize = 4096;

/// Whom an entry is about.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Id {
    /// `world`, `auth` or `digest`.
    pub scheme: Box<str>,
    /// In the scheme's own words.
    pub id: Box<str>,
}

/// An entry: whom it lets do what.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Entry {
    /// Bits of [`perms`].
    pub perms: i32,
    /// Whom.
    pub who: Id,
}

/// The entries of a node.
pub type Acl = Arc<[Entry]>;

impl Id {
    /// An id.
    #[must_use]
    pub fn new(scheme: &str, id: &str) -> Id {
        Id { scheme: scheme.into(), id: id.into() }
    }

    /// Bytes that `encode` appends.
    pub(super) fn encoded_len(&self) -> usize {
        8 + self.scheme.len() + self.id.len()
    }

    fn is_anyone(&self) -> bool {
        &*self.scheme == "world" && &*self.id == "anyone"
    }

    /// The id that credentials `user:password` prove.
    ///
    /// # Errors
    /// [`ZkError::AuthFailed`] for other schemes than `digest`, and for what is not a text.
    pub fn prove(scheme: &str, credentials: &[u8]) -> Result<Id, ZkError> {
        let text = std::str::from_utf8(credentials).map_err(|_| ZkError::AuthFailed)?;
        if scheme != "digest" || credentials.len() > CREDENTIALS_BYTES_MAX {
            return Err(ZkError::AuthFailed);
        }
        let user = text.split(':').next().unwrap_or("");
        let hash: [u8; 20] = Sha1::digest(credentials).into();
        Ok(Id::new("digest", &format!("{user}:{}", base64(&hash))))
    }

    pub(super) fn encode(&self, w: &mut Writer<'_>) {
        w.sized(self.scheme.as_bytes()).sized(self.id.as_bytes());
    }

    pub(super) fn decode(r: &mut Reader<'_>) -> Result<Id, Malformed> {
        let mut text = || {
            let bytes = r.sized(1 << 20, "id")?;
            std::str::from_utf8(bytes).map_err(|_| Malformed("id"))
        };
        Ok(Id { scheme: text()?.into(), id: text()?.into() })
    }
}

/// The ACL that lets anybody do `perms`.
#[must_use]
pub fn open(perms: i32) -> Acl {
    [Entry { perms, who: Id::new("world", "anyone") }].into()
}

/// Reads an ACL as a client sends it.
///
/// # Errors
/// When it is none.
pub fn read(r: &mut JuteReader<'_>) -> Result<Vec<Entry>, Malformed> {
    let entry = |r: &mut JuteReader<'_>| {
        let perms = r.int("permissions")?;
        Ok(Entry { perms, who: Id::new(r.text_or_none("scheme")?, r.text_or_none("id")?) })
    };
    (0..r.count(12, "ACL")?).map(|_| entry(r)).collect()
}

/// Reads over an ACL; fails where [`read`] does.
///
/// # Errors
/// When it is none.
pub fn skip(r: &mut JuteReader<'_>) -> Result<(), Malformed> {
    for _ in 0..r.count(12, "ACL")? {
        r.int("permissions")?;
        r.text_or_none("scheme")?;
        r.text_or_none("id")?;
    }
    Ok(())
}

/// Makes the ACL that is kept of the one that was asked for: `auth` becomes what the client has
/// proved, and entries are there once.
///
/// # Errors
/// [`ZkError::InvalidAcl`].
pub fn settle(asked: &[Entry], proved: &[Id]) -> Result<Acl, ZkError> {
    let mut kept: Vec<Entry> = Vec::new();
    let mut seen: Vec<&Entry> = Vec::new();
    let proved_bytes: usize = proved.iter().map(|who| who.scheme.len() + who.id.len()).sum();
    let mut auth_bytes = 0;
    for entry in asked {
        if seen.contains(&entry) {
            continue;
        }
        seen.push(entry);
        match &*entry.who.scheme {
            _ if entry.who.is_anyone() => kept.push(entry.clone()),
            "auth" if !proved.is_empty() => {
                auth_bytes += proved_bytes;
                if auth_bytes > AUTH_BYTES_MAX {
                    return Err(ZkError::InvalidAcl);
                }
                let perms = entry.perms;
                kept.extend(proved.iter().map(|who| Entry { perms, who: who.clone() }));
            }
            "digest" if is_digest(&entry.who.id) => kept.push(entry.clone()),
            _ => return Err(ZkError::InvalidAcl),
        }
        if kept.len() > ENTRIES_MAX || seen.len() > ENTRIES_MAX {
            return Err(ZkError::InvalidAcl);
        }
    }
    if kept.is_empty() { Err(ZkError::InvalidAcl) } else { Ok(kept.into()) }
}

/// Whether an id of the scheme `digest` has two parts, as Java splits it: without empty parts at
/// its end.
fn is_digest(id: &str) -> bool {
    id.trim_end_matches(':').split(':').count() == 2
}

/// Whether `acl` lets somebody who has proved `proved` do all or some of `wanted`.
///
/// # Errors
/// [`ZkError::NoAuth`].
pub fn check(acl: &[Entry], wanted: i32, proved: &[Id]) -> Result<(), ZkError> {
    let lets = |entry: &Entry| {
        entry.perms & wanted != 0 && (entry.who.is_anyone() || proved.contains(&entry.who))
    };
    if acl.iter().any(lets) { Ok(()) } else { Err(ZkError::NoAuth) }
}

/// How often [`check`] compares at most.
pub(super) fn comparisons(acl: &[Entry], proved: &[Id]) -> usize {
    acl.len() * proved.len()
}

/// Appends an ACL as a client reads it; passwords are masked from whoever is no administrator.
pub fn write(acl: &[Entry], masked: bool, w: &mut JuteWriter<'_>) {
    w.count(acl.len());
    for Entry { perms, who } in acl {
        w.int(*perms).text(&who.scheme);
        match who.id.split_once(':') {
            Some((user, _)) if masked && &*who.scheme == "digest" => w.text(&format!("{user}:x")),
            _ => w.text(&who.id),
        };
    }
}

/// Appends the canonical bytes of an ACL.
pub(super) fn encode(acl: &[Entry], w: &mut Writer<'_>) {
    w.count(acl.len());
    for Entry { perms, who } in acl {
        w.i64(i64::from(*perms));
        who.encode(w);
    }
}

/// Reads the canonical bytes of an ACL.
pub(super) fn decode(r: &mut Reader<'_>) -> Result<Acl, Malformed> {
    let count = r.count(ENTRIES_MAX, 16, "ACL")?;
    let mut entries = Vec::with_capacity(count);
    for _ in 0..count {
        let perms = i32::try_from(r.i64("permissions")?).map_err(|_| Malformed("permissions"))?;
        entries.push(Entry { perms, who: Id::decode(r)? });
    }
    Ok(entries.into())
}

fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = String::new();
    for three in bytes.chunks(3) {
        let byte = |at: usize| three.get(at).copied().map_or(0, u32::from);
        let bits = byte(0) << 16 | byte(1) << 8 | byte(2);
        for digit in 0..4 {
            let index = (bits >> (18 - 6 * digit) & 63) as usize;
            out.push(if digit <= three.len() { char::from(DIGITS[index]) } else { '=' });
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_is_that_of_rfc_4648() {
        let cases =
            [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foob", "Zm9vYg==")];
        for (plain, coded) in cases {
            assert_eq!(base64(plain.as_bytes()), coded);
        }
    }

    /// The example of ZooKeeper's own documentation of superusers.
    #[test]
    fn credentials_prove_the_id_that_zookeeper_derives() {
        let id = Id::prove("digest", b"super:superpw").expect("credentials");
        assert_eq!(&*id.id, "super:g9oN2HttPfn8MMWJZ2r45Np/LIA=");
        assert_eq!(Id::prove("sasl", b"a:b"), Err(ZkError::AuthFailed));
        assert_eq!(Id::prove("digest", b"\xff"), Err(ZkError::AuthFailed));
    }

    #[test]
    fn what_is_asked_for_is_settled_or_refused() {
        let entry = |scheme, id| Entry { perms: 31, who: Id::new(scheme, id) };
        let proved = [Id::new("digest", "u:p"), Id::new("digest", "v:q")];
        let acl = settle(&[entry("auth", ""), entry("auth", "")], &proved).expect("settled");
        assert_eq!(acl.len(), 2);
        assert!(check(&acl, perms::READ, &proved[1..]).is_ok());
        assert_eq!(check(&acl, perms::READ, &[]), Err(ZkError::NoAuth));
        assert!(check(&open(perms::READ), perms::READ | perms::ADMIN, &[]).is_ok());
        assert!(check(&open(perms::READ), perms::WRITE, &[]).is_err());
        for bad in [
            entry("auth", ""),
            entry("world", "all"),
            entry("ip", "127.0.0.1"),
            entry("digest", "a"),
            entry("digest", "a:"),
            entry("digest", "a:b:c"),
        ] {
            assert_eq!(
                settle(std::slice::from_ref(&bad), &[]),
                Err(ZkError::InvalidAcl),
                "{bad:?}"
            );
        }
        assert_eq!(settle(&[], &proved), Err(ZkError::InvalidAcl));
        // A few bytes of a request do not become megabytes of each node.
        let long = "u".repeat(4000);
        let proved = [0, 1].map(|i| Id::new("digest", &format!("{long}{i}:p")));
        assert_eq!(settle(&[entry("auth", "")], &proved).map(|acl| acl.len()), Ok(2));
        let other = Entry { perms: 1, ..entry("auth", "") };
        assert_eq!(settle(&[entry("auth", ""), other], &proved), Err(ZkError::InvalidAcl));
    }

    #[test]
    fn canonical_bytes_are_read_back() {
        let acl = settle(&[Entry { perms: -1, who: Id::new("digest", "a:b") }], &[]).expect("acl");
        let mut out = vec![];
        encode(&acl, &mut Writer::new(&mut out));
        assert_eq!(decode(&mut Reader::new(&out)), Ok(acl));
        for len in 0..out.len() {
            assert!(decode(&mut Reader::new(&out[..len])).is_err());
        }
    }
}
