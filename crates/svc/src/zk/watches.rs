//! Requests about watches themselves.

use super::call::{Call, event};
use super::error::ZkError;
use super::jute::{JuteReader, JuteWriter};
use super::state::watch;

impl Call<'_, '_> {
    /// Sets the watches of a client that was away since `relative`: what has happened to a path
    /// meanwhile is told at once.
    pub(super) fn set_watches(
        &mut self,
        r: &mut JuteReader<'_>,
        persistent: bool,
    ) -> Result<(), ZkError> {
        let relative = r.long("zxid")?;
        let (data, exist, child) = (r.paths("data")?, r.paths("exist")?, r.paths("child")?);
        for path in data {
            self.see(path);
            let happened = match self.state.node(path) {
                None => Some(event::DELETED),
                Some(node) if node.mzxid > relative => Some(event::CHANGED),
                Some(_) => None,
            };
            self.tell_or_watch(path, happened, watch::DATA)?;
        }
        for path in exist {
            self.see(path);
            let happened = self.state.node(path).map(|_| event::CREATED);
            self.tell_or_watch(path, happened, watch::DATA)?;
        }
        for path in child {
            self.see(path);
            let happened = match self.state.node(path) {
                None => Some(event::DELETED),
                Some(node) if node.pzxid > relative => Some(event::CHILDREN),
                Some(_) => None,
            };
            self.tell_or_watch(path, happened, watch::CHILD)?;
        }
        if persistent {
            for way in [watch::PERSISTENT, watch::RECURSIVE] {
                for path in r.paths("persistent")? {
                    self.watch_if(true, path, way)?;
                }
            }
        }
        Ok(())
    }

    fn tell_or_watch(&mut self, path: &str, kind: Option<u8>, way: u8) -> Result<(), ZkError> {
        let Some(kind) = kind else { return self.watch_if(true, path, way) };
        let acl = self.state.node(path).map(|node| node.acl);
        // Of what is gone, nothing is left to be protected.
        let acl = acl.unwrap_or_else(|| super::acl::open(super::acl::perms::ALL));
        self.tell(self.session, kind, path, &acl);
        Ok(())
    }

    /// Sets a persistent watch.
    pub(super) fn add_watch(
        &mut self,
        r: &mut JuteReader<'_>,
        w: &mut JuteWriter<'_>,
    ) -> Result<(), ZkError> {
        let path = r.path("path")?;
        let way = match r.int("mode")? {
            0 => watch::PERSISTENT,
            1 => watch::RECURSIVE,
            _ => return Err(ZkError::BadArguments),
        };
        self.watch_if(true, path, way)?;
        w.int(0);
        Ok(())
    }

    /// Takes watches away, or only tells whether there are any.
    pub(super) fn remove_watches(
        &mut self,
        r: &mut JuteReader<'_>,
        remove: bool,
    ) -> Result<(), ZkError> {
        let path = r.path("path")?;
        let ways = match r.int("type")? {
            1 => watch::CHILD,
            2 => watch::DATA,
            3 => watch::ALL,
            4 => watch::PERSISTENT,
            5 => watch::RECURSIVE,
            _ => return Err(ZkError::BadArguments),
        };
        let found = match remove {
            true => self.state.unwatch(self.ctx, self.session, path, ways),
            false => self.state.ways(self.session, path) & ways,
        };
        if found == 0 { Err(ZkError::NoWatcher) } else { Ok(()) }
    }
}
