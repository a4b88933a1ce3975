//! Requests that read the tree; some of them leave a watch.

use super::acl::{self, perms};
use super::call::Call;
use super::error::ZkError;
use super::jute::{JuteReader, JuteWriter};
use super::state::watch;
use super::{kind, path};

/// Most nodes that a request counts.
const COUNTED_MAX: i32 = 1 << 20;

impl Call<'_, '_> {
    pub(super) fn read(
        &mut self,
        kind: i32,
        r: &mut JuteReader<'_>,
        w: &mut JuteWriter<'_>,
    ) -> Result<(), ZkError> {
        match kind {
            kind::EXISTS => {
                let (path, watched) = (r.path("path")?, r.bool("watch")?);
                if path.contains('\0') {
                    return Err(ZkError::BadArguments);
                }
                // Whoever waits for a node to come watches what is not there.
                self.watch_if(watched, path, watch::DATA)?;
                self.stat(path, w)
            }
            kind::GET_DATA => self.get_data(r.path("path")?, r.bool("watch")?, w),
            kind::GET_CHILDREN | kind::GET_CHILDREN2 => {
                let (path, watched) = (r.path("path")?, r.bool("watch")?);
                self.get_children(path, watched, w)?;
                if kind == kind::GET_CHILDREN2 { self.stat(path, w) } else { Ok(()) }
            }
            kind::GET_ACL => {
                let path = r.path("path")?;
                let node = self.node(path, perms::READ | perms::ADMIN)?;
                let masked = !self.lets(&node.acl, perms::ADMIN);
                acl::write(&node.acl, masked, w);
                self.stat(path, w)
            }
            kind::GET_EPHEMERALS => {
                let prefix = r.text_or_none("prefix")?;
                let mut own = self.state.ephemerals(self.session);
                own.retain(|path| prefix == path::ROOT || path.starts_with(prefix));
                w.count(own.len());
                for path in own {
                    w.text(&path);
                }
                Ok(())
            }
            kind::GET_ALL_CHILDREN_NUMBER => {
                let path = r.path("path")?;
                self.node(path, perms::READ)?;
                w.int(self.count_below(path)?);
                Ok(())
            }
            kind::WHO_AM_I => {
                w.count(self.proved.len());
                for id in &self.proved {
                    w.text(&id.scheme).text(id.id.split(':').next().unwrap_or(""));
                }
                Ok(())
            }
            _ => Err(ZkError::Unimplemented),
        }
    }

    /// Appends data and stat.
    pub(super) fn get_data(
        &mut self,
        path: &str,
        watched: bool,
        w: &mut JuteWriter<'_>,
    ) -> Result<(), ZkError> {
        w.buffer(self.node(path, perms::READ)?.data.as_deref());
        self.watch_if(watched, path, watch::DATA)?;
        self.stat(path, w)
    }

    /// Appends the names of children.
    pub(super) fn get_children(
        &mut self,
        path: &str,
        watched: bool,
        w: &mut JuteWriter<'_>,
    ) -> Result<(), ZkError> {
        self.node(path, perms::READ)?;
        let at = if path.is_empty() { path::ROOT } else { path };
        self.state.look(at, |slot| {
            w.count(slot.map_or(0, |slot| slot.children.len()));
            slot.into_iter().flat_map(|slot| &slot.children).for_each(|name| {
                w.text(name);
            });
        });
        self.watch_if(watched, path, watch::CHILD)
    }

    pub(super) fn watch_if(&mut self, wanted: bool, path: &str, ways: u8) -> Result<(), ZkError> {
        let path = if path.is_empty() { path::ROOT } else { path };
        let set = !wanted || self.state.watch(self.ctx, self.session, path, ways);
        if set { Ok(()) } else { Err(ZkError::SystemError) }
    }

    fn count_below(&self, path: &str) -> Result<i32, ZkError> {
        let mut count = 0;
        let mut open = vec![if path.is_empty() { path::ROOT.into() } else { path.to_owned() }];
        while let Some(at) = open.pop() {
            for name in self.state.children(&at) {
                count += 1;
                open.push(path::join(&at, &name));
            }
            if count > COUNTED_MAX {
                return Err(ZkError::SystemError);
            }
        }
        Ok(count)
    }
}
