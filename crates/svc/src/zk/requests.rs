//! Requests that write the tree, and where each request is answered.

use base::Malformed;

use super::acl::{self, Id};
use super::call::{Call, Mode, is_sequential};
use super::error::ZkError;
use super::jute::{JuteReader, JuteWriter};
use super::path;
use super::session::Session;
use super::{RESPONSE_BYTES_MAX, kind};

/// A request to create a node, as clients send it.
pub(super) struct Create<'a> {
    path: &'a str,
    data: Option<&'a [u8]>,
    acl: Vec<acl::Entry>,
    flags: i32,
    ttl: i64,
}

impl From<Malformed> for ZkError {
    fn from(_: Malformed) -> ZkError {
        ZkError::Marshalling
    }
}

impl<'a> Create<'a> {
    pub(super) fn read(kind: i32, r: &mut JuteReader<'a>) -> Result<Create<'a>, Malformed> {
        let (path, data) = (r.path("path")?, r.buffer("data")?);
        let (acl, flags) = (acl::read(r)?, r.int("flags")?);
        let ttl = if kind == kind::CREATE_TTL { r.long("time to live")? } else { -1 };
        Ok(Create { path, data, acl, flags, ttl })
    }

    /// Reads no more than what tells which nodes are touched: the path, and whether the name
    /// gets a suffix. Fails where [`Create::read`] does.
    pub(super) fn scan(kind: i32, r: &mut JuteReader<'a>) -> Result<(&'a str, bool), Malformed> {
        let path = r.path("path")?;
        r.buffer("data")?;
        acl::skip(r)?;
        let flags = r.int("flags")?;
        if kind == kind::CREATE_TTL {
            r.long("time to live")?;
        }
        Ok((path, is_sequential(flags)))
    }

    pub(super) fn run(&self, kind: i32, call: &mut Call<'_, '_>) -> Result<String, ZkError> {
        let mode = Mode::of(kind, self.flags, self.ttl, call.session)?;
        call.create(self.path, self.data, &self.acl, mode)
    }
}

impl Call<'_, '_> {
    /// Answers a request: appends the body of the response.
    pub(super) fn answer(
        &mut self,
        kind: i32,
        body: &[u8],
        out: &mut Vec<u8>,
    ) -> Result<(), ZkError> {
        let start = out.len();
        let mut r = JuteReader::new(body);
        let w = &mut JuteWriter::new(out);
        self.dispatch(kind, &mut r, w)?;
        // ZooKeeper does not look at what follows a request either.
        if out.len() - start > RESPONSE_BYTES_MAX { Err(ZkError::SystemError) } else { Ok(()) }
    }

    fn dispatch(
        &mut self,
        kind: i32,
        r: &mut JuteReader<'_>,
        w: &mut JuteWriter<'_>,
    ) -> Result<(), ZkError> {
        match kind {
            kind::CREATE | kind::CREATE2 | kind::CREATE_CONTAINER | kind::CREATE_TTL => {
                let path = Create::read(kind, r)?.run(kind, self)?;
                w.text(&path);
                if kind != kind::CREATE {
                    self.stat(&path, w)?;
                }
            }
            kind::DELETE => self.delete(r.path("path")?, r.int("version")?)?,
            kind::SET_DATA => {
                let (path, data) = (r.path("path")?, r.buffer("data")?);
                self.set_data(path, data, r.int("version")?)?;
                self.stat(path, w)?;
            }
            kind::SET_ACL => {
                let (path, acl) = (r.path("path")?, acl::read(r)?);
                self.set_acl(path, &acl, r.int("version")?)?;
                self.stat(path, w)?;
            }
            kind::CHECK => self.check(r.path("path")?, r.int("version")?)?,
            kind::SYNC => {
                w.text(r.path("path")?);
            }
            kind::MULTI => self.multi(r, w)?,
            kind::MULTI_READ => self.multi_read(r, w)?,
            kind::AUTH => self.auth(r)?,
            kind::CLOSE => self.end_session(self.session),
            kind::RECONFIG => return Err(ZkError::ReconfigDisabled),
            kind::SET_WATCHES | kind::SET_WATCHES2 => {
                self.set_watches(r, kind == kind::SET_WATCHES2)?;
            }
            kind::ADD_WATCH => self.add_watch(r, w)?,
            kind::CHECK_WATCHES => self.remove_watches(r, false)?,
            kind::REMOVE_WATCHES => self.remove_watches(r, true)?,
            _ => self.read(kind, r, w)?,
        }
        Ok(())
    }

    /// Appends the stat of a node.
    pub(super) fn stat(&self, path: &str, w: &mut JuteWriter<'_>) -> Result<(), ZkError> {
        let path = if path.is_empty() { path::ROOT } else { path };
        self.node(path, 0)?.stat(self.state.child_count(path), w);
        Ok(())
    }

    fn auth(&mut self, r: &mut JuteReader<'_>) -> Result<(), ZkError> {
        r.int("type")?;
        let scheme = r.text("scheme")?;
        let id = Id::prove(scheme, r.buffer("credentials")?.unwrap_or(b""))?;
        let left = self.state.left_to_remember(self.session);
        let prove = |session: &mut Session| session.prove(id, left);
        let proved = self.state.with_session(self.ctx, self.session, prove);
        if proved == Some(true) { Ok(()) } else { Err(ZkError::AuthFailed) }
    }
}
