//! What an operation touches: who may execute at the same time as whom.
//!
//! The classes are those of sessions (record, events, watches) and of nodes, by the stem of their
//! path. A request writes its session's class, so each client's requests execute in order, and
//!
//! - reads the class of each node that it looks at, the names of children included;
//! - writes the class of each node that it creates, deletes or changes, and of its parent where
//!   that learns of it;
//! - writes the class of each session that may watch what it changes, since it tells them
//!   ([`super::watchers`]). So a session's events are queued in the total order, and a response
//!   comes with all of those before it, although nobody else waits.
//!
//! What touches nodes or sessions that its bytes do not name is a barrier: the end of a session
//! (its ephemeral nodes), a new one (whose number is its place in the total order), recursive
//! watches when they are set (everything below), what the gateway asks for all its sessions.
//!
//! Whoever asks for a footprint asks in the total order, and executes the operation afterwards or
//! gives up everything that is on its way: see [`super::watchers`].

use base::Malformed;
use exec::Footprint;

use super::jute::JuteReader;
use super::multi::{is_create, next};
use super::op::Op;
use super::requests::Create;
use super::state::{State, node_class, session_class};
use super::watchers::Reach;
use super::{kind, path};

/// Most classes that a footprint names: more, and the operation executes alone.
const CLASSES_MAX: usize = 512;

/// What a request does to a path.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Touch<'a> {
    Read(&'a str),
    /// Tells whoever watches.
    Write(&'a str),
    /// Like [`Touch::Write`], to some node whose path has this stem.
    WriteStem(&'a str),
    Watch(&'a str, Reach),
    /// Something else, or everything.
    Everything,
}

/// What `op` touches.
pub(super) fn footprint(state: &State, op: &[u8], out: &mut Footprint) {
    match Op::decode(op) {
        Ok(Op::Request { from, kind, body }) => {
            out.writes.push(session_class(from.0));
            visit(kind, body, &mut |touch| state.declare(from.0, touch, out));
            if out.reads.len() + out.writes.len() > CLASSES_MAX {
                out.barrier = true;
            }
        }
        Ok(Op::Resume { session, .. } | Op::Leave((session, _))) => {
            out.writes.push(session_class(session));
        }
        // Only the first session of all makes the service want to be woken earlier: see
        // `deadline`.
        Ok(Op::Open { .. }) => (out.barrier, out.schedules) = (true, true),
        Ok(Op::Renew(_) | Op::Stats) => out.barrier = true,
        // The answer does not depend on the state.
        Err(_) => {}
    }
}

impl State {
    /// `op` is done: it sets no watch any more.
    pub(super) fn disarm(&self, op: &[u8]) {
        if self.is_armed()
            && let Ok(Op::Request { from, kind, body }) = Op::decode(op)
        {
            visit(kind, body, &mut |touch| {
                if let Touch::Watch(path, reach) = touch {
                    self.arm(from.0, path, reach, false);
                }
            });
        }
    }

    fn declare(&self, session: u64, touch: Touch<'_>, out: &mut Footprint) {
        match touch {
            Touch::Read(path) => out.reads.push(node_class(path::stem(path))),
            Touch::Write(path) => self.declare_write(path::stem(path), out),
            Touch::WriteStem(stem) => self.declare_write(stem, out),
            Touch::Watch(path, reach) => {
                self.arm(session, path, reach, true);
                out.barrier |= reach == Reach::Deep;
            }
            Touch::Everything => out.barrier = true,
        }
    }

    fn declare_write(&self, stem: &str, out: &mut Footprint) {
        out.writes.push(node_class(stem));
        if out.writes.len() > CLASSES_MAX {
            return;
        }
        self.declare_watchers(stem, Reach::Any, out);
        if self.recursive() > 0 {
            let mut above = stem;
            while above != path::ROOT {
                above = path::parent(above);
                self.declare_watchers(path::stem(above), Reach::Deep, out);
            }
        }
    }

    fn declare_watchers(&self, stem: &str, reach: Reach, out: &mut Footprint) {
        let shard = self.shard_of(stem);
        let watchers = shard.watchers.sessions(path::hash(stem), reach);
        out.writes.extend(watchers.map(session_class));
    }
}

/// Calls `touch` for everything that a request touches besides its session. What cannot be read
/// touches nothing from there on, as in its execution.
fn visit<'a>(kind: i32, body: &'a [u8], touch: &mut dyn FnMut(Touch<'a>)) {
    let _ = try_visit(kind, &mut JuteReader::new(body), touch);
}

fn try_visit<'a>(
    kind: i32,
    r: &mut JuteReader<'a>,
    touch: &mut dyn FnMut(Touch<'a>),
) -> Result<(), Malformed> {
    match kind {
        kind::CHECK | kind::GET_ACL => touch(Touch::Read(r.path("path")?)),
        kind::EXISTS | kind::GET_DATA | kind::GET_CHILDREN | kind::GET_CHILDREN2 => {
            visit_read(r, touch)?;
        }
        kind::MULTI => while part(r, touch)? {},
        kind::MULTI_READ => {
            while next(r)?.is_some() {
                visit_read(r, touch)?;
            }
        }
        kind::SET_WATCHES | kind::SET_WATCHES2 => {
            r.long("zxid")?;
            for _ in ["data", "exist", "child"] {
                visit_watches(r, Reach::Any, touch)?;
            }
            if kind == kind::SET_WATCHES2 {
                visit_watches(r, Reach::Any, touch)?;
                visit_watches(r, Reach::Deep, touch)?;
            }
        }
        kind::ADD_WATCH => {
            let (path, mode) = (r.path("path")?, r.int("mode")?);
            touch(Touch::Read(path));
            touch(Touch::Watch(path, Reach::Any));
            if mode == 1 {
                touch(Touch::Watch(path, Reach::Deep));
            }
        }
        kind::CLOSE | kind::GET_EPHEMERALS | kind::GET_ALL_CHILDREN_NUMBER => {
            touch(Touch::Everything);
        }
        kind::SYNC | kind::AUTH | kind::WHO_AM_I | kind::RECONFIG => {}
        kind::CHECK_WATCHES | kind::REMOVE_WATCHES => {}
        _ => visit_write(kind, r, touch)?,
    }
    Ok(())
}

/// The next part of a multi; false at its end.
fn part<'a>(r: &mut JuteReader<'a>, touch: &mut dyn FnMut(Touch<'a>)) -> Result<bool, Malformed> {
    match next(r)? {
        None => return Ok(false),
        Some(kind::CHECK) => {
            touch(Touch::Read(r.path("path")?));
            r.int("version")?;
        }
        Some(kind) => visit_write(kind, r, touch)?,
    }
    Ok(true)
}

fn visit_write<'a>(
    kind: i32,
    r: &mut JuteReader<'a>,
    touch: &mut dyn FnMut(Touch<'a>),
) -> Result<(), Malformed> {
    match kind {
        kind if is_create(kind) => {
            let (path, sequential) = Create::scan(kind, r)?;
            touch(if sequential { Touch::WriteStem(path) } else { Touch::Write(path) });
            touch(Touch::Write(path::parent(path)));
        }
        kind::DELETE => {
            let path = r.path("path")?;
            r.int("version")?;
            touch(Touch::Write(path));
            touch(Touch::Write(path::parent(path)));
        }
        kind::SET_DATA => {
            touch(Touch::Write(r.path("path")?));
            r.buffer("data")?;
            r.int("version")?;
        }
        kind::SET_ACL => touch(Touch::Write(r.path("path")?)),
        // Nothing that there is.
        _ => {}
    }
    Ok(())
}

fn visit_read<'a>(
    r: &mut JuteReader<'a>,
    touch: &mut dyn FnMut(Touch<'a>),
) -> Result<(), Malformed> {
    let (path, watched) = (r.path("path")?, r.bool("watch")?);
    touch(Touch::Read(path));
    if watched {
        touch(Touch::Watch(path, Reach::Any));
    }
    Ok(())
}

fn visit_watches<'a>(
    r: &mut JuteReader<'a>,
    reach: Reach,
    touch: &mut dyn FnMut(Touch<'a>),
) -> Result<(), Malformed> {
    for path in r.paths("watches")? {
        touch(Touch::Read(path));
        touch(Touch::Watch(path, Reach::Any));
        if reach == Reach::Deep {
            touch(Touch::Watch(path, Reach::Deep));
        }
    }
    Ok(())
}
