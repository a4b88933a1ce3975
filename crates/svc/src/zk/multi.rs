//! Several operations in one request: all or nothing, or several reads.

use base::Malformed;

use super::call::Call;
use super::error::ZkError;
use super::jute::{JuteReader, JuteWriter};
use super::kind;
use super::requests::Create;

/// A part of a multi.
enum Part<'a> {
    Create(i32, Create<'a>),
    Delete(&'a str, i32),
    Set(&'a str, Option<&'a [u8]>, i32),
    Check(&'a str, i32),
}

impl<'a> Part<'a> {
    fn read(kind: i32, r: &mut JuteReader<'a>) -> Result<Part<'a>, Malformed> {
        Ok(match kind {
            kind if is_create(kind) => Part::Create(kind, Create::read(kind, r)?),
            kind::DELETE => Part::Delete(r.path("path")?, r.int("version")?),
            kind::SET_DATA => Part::Set(r.path("path")?, r.buffer("data")?, r.int("version")?),
            kind::CHECK => Part::Check(r.path("path")?, r.int("version")?),
            _ => return Err(Malformed("part of a multi")),
        })
    }

    /// Runs the part and appends its result.
    fn run(&self, call: &mut Call<'_, '_>, w: &mut JuteWriter<'_>) -> Result<(), ZkError> {
        match self {
            Part::Create(kind, create) => {
                let path = create.run(*kind, call)?;
                if *kind == kind::CREATE {
                    head(w, kind::CREATE, 0).text(&path);
                } else {
                    // ZooKeeper answers all that come with a stat alike.
                    head(w, kind::CREATE2, 0).text(&path);
                    call.stat(&path, w)?;
                }
            }
            Part::Delete(path, version) => {
                call.delete(path, *version)?;
                head(w, kind::DELETE, 0);
            }
            Part::Set(path, data, version) => {
                call.set_data(path, *data, *version)?;
                call.stat(path, head(w, kind::SET_DATA, 0))?;
            }
            Part::Check(path, version) => {
                call.check(path, *version)?;
                head(w, kind::CHECK, 0);
            }
        }
        Ok(())
    }
}

fn head<'w, 'a>(w: &'w mut JuteWriter<'a>, kind: i32, error: i32) -> &'w mut JuteWriter<'a> {
    w.int(kind).bool(false).int(error)
}

fn failure(w: &mut JuteWriter<'_>, error: i32) {
    head(w, kind::ERROR, error).int(error);
}

fn end(w: &mut JuteWriter<'_>) {
    w.int(kind::ERROR).bool(true).int(-1);
}

/// Whether a request of this kind creates a node.
pub(super) fn is_create(kind: i32) -> bool {
    use kind::{CREATE, CREATE_CONTAINER, CREATE_TTL, CREATE2};
    matches!(kind, CREATE | CREATE2 | CREATE_CONTAINER | CREATE_TTL)
}

/// Reads the head of a part: its kind, or `None` at the end.
pub(super) fn next(r: &mut JuteReader<'_>) -> Result<Option<i32>, Malformed> {
    let (kind, done) = (r.int("kind of a part")?, r.bool("end of a multi")?);
    r.int("error of a part")?;
    Ok((!done).then_some(kind))
}

impl Call<'_, '_> {
    /// Does all parts or none.
    pub(super) fn multi(
        &mut self,
        r: &mut JuteReader<'_>,
        w: &mut JuteWriter<'_>,
    ) -> Result<(), ZkError> {
        let mut parts = Vec::new();
        while let Some(kind) = next(r)? {
            parts.push(Part::read(kind, r)?);
        }
        let mut results = Vec::new();
        let mut done = 0;
        let failed = parts.iter().find_map(|part| {
            let failed = part.run(self, &mut JuteWriter::new(&mut results)).err();
            done += usize::from(failed.is_none());
            failed
        });
        if let Some(failed) = failed {
            self.undo();
            (0..done).for_each(|_| failure(w, 0));
            failure(w, failed.code());
            let rest = ZkError::RuntimeInconsistency.code();
            (done + 1..parts.len()).for_each(|_| failure(w, rest));
        } else {
            w.raw(&results);
        }
        end(w);
        Ok(())
    }

    /// Does several reads, each for itself.
    pub(super) fn multi_read(
        &mut self,
        r: &mut JuteReader<'_>,
        w: &mut JuteWriter<'_>,
    ) -> Result<(), ZkError> {
        let mut bytes = 0;
        while let Some(kind) = next(r)? {
            let mut result = Vec::new();
            let (path, watched) = (r.path("path")?, r.bool("watch")?);
            let inner = &mut JuteWriter::new(&mut result);
            let read = match kind {
                kind::GET_DATA => self.get_data(path, watched, inner),
                kind::GET_CHILDREN => self.get_children(path, watched, inner),
                _ => return Err(ZkError::Marshalling),
            };
            match read {
                Ok(()) => {
                    head(w, kind, 0).raw(&result);
                }
                Err(error) => failure(w, error.code()),
            }
            bytes += result.len();
            if bytes > super::RESPONSE_BYTES_MAX {
                return Err(ZkError::SystemError);
            }
        }
        end(w);
        Ok(())
    }
}
