//! A volume of the source as an NBD export.

use std::rc::Rc;

use grain::{Run, VolumeId};
use nbd::{
    BASE_ALLOCATION, BlockSizes, Command, Description, Errno, Export, Extent, Features, Reply,
    STATE_HOLE, STATE_ZERO,
};

use tokio::time::Instant;

use super::{Change, Source, Tickets, Tried, Written};
use crate::Error;

/// The metadata context that shows what the peers do not have yet.
pub const DIRTY: &str = "grainhaul:dirty";
/// Extents looked up for one block status at most.
const MAX_EXTENTS: usize = 512;

/// See the module's text.
pub struct VolumeExport {
    source: Rc<Source>,
    volume: VolumeId,
    bytes: u64,
    alias: String,
}

impl VolumeExport {
    /// The exports of all volumes, under their aliases.
    pub fn all(source: &Rc<Source>) -> Vec<(String, Rc<dyn Export>)> {
        let make = |(volume, v): (VolumeId, &crate::volumes::Volume)| {
            let export: Rc<dyn Export> = Rc::new(VolumeExport {
                source: source.clone(),
                volume,
                bytes: v.bytes,
                alias: v.alias.clone(),
            });
            (v.alias.clone(), export)
        };
        source.volumes().iter().map(make).collect()
    }

    fn spawn_write(
        &self,
        tried: Tried,
        offset: u64,
        change: Change,
        fua: bool,
        (reply, begun): (Reply, Option<Instant>),
    ) {
        let (source, volume) = (self.source.clone(), self.volume);
        let pace = source.pace().clone();
        tokio::task::spawn_local(async move {
            match source.carry_out(tried, volume, offset, change, fua).await {
                Ok(()) => reply.done(),
                Err(e) => refuse(reply, &e),
            }
            pace.answered(begun);
        });
    }

    fn spawn_confirm(&self, tickets: Tickets, reply: Reply) {
        let source = self.source.clone();
        tokio::task::spawn_local(async move {
            match source.confirm(tickets).await {
                Ok(()) => reply.done(),
                Err(e) => refuse(reply, &e),
            }
        });
    }

    fn read(&self, offset: u64, len: u32, reply: Reply) {
        let (source, volume) = (&self.source, self.volume);
        let begun = source.pace().begins();
        let inline = reply.fill(|buf| source.read_now(volume, buf, offset).map_err(|e| errno(&e)));
        let Err(reply) = inline else { return source.pace().answered(begun) };
        let source = self.source.clone();
        tokio::task::spawn_local(async move {
            match source.read(volume, offset, len as usize).await {
                Ok(bytes) => reply.data(bytes),
                Err(e) => refuse(reply, &e),
            }
            source.pace().answered(begun);
        });
    }

    fn block_status(
        &self,
        offset: u64,
        len: u64,
        contexts: Vec<usize>,
        req_one: bool,
        mut reply: Reply,
    ) {
        let (source, volume, end) = (self.source.clone(), self.volume, self.bytes);
        tokio::task::spawn_local(async move {
            let len = len.min(end - offset);
            let most = if req_one { 1 } else { MAX_EXTENTS };
            for context in contexts {
                let extents = match context {
                    0 => allocation(&source, volume, offset, len, most).await,
                    _ => Ok(dirty(&source, volume, offset, len, most)),
                };
                match extents {
                    Ok(extents) => reply.extents(context, &extents),
                    Err(e) => return refuse(reply, &e),
                }
            }
            reply.done();
        });
    }
}

async fn allocation(
    source: &Source,
    volume: VolumeId,
    offset: u64,
    len: u64,
    most: usize,
) -> Result<Vec<Extent>, Error> {
    let volume = source.volumes().get(volume)?;
    let found = volume.file.extents(offset, len, most).await;
    let found = found.map_err(Error::io("map", &volume.path))?;
    let flags = |data| if data { 0 } else { STATE_HOLE | STATE_ZERO };
    Ok(found.iter().map(|e| Extent { len: e.len, flags: flags(e.data) }).collect())
}

/// Extents of flag 1 (dirty) and 0 (clean).
fn dirty(source: &Source, volume: VolumeId, offset: u64, len: u64, most: usize) -> Vec<Extent> {
    let set = source.dirty();
    let geometry = source.volumes().geometry();
    let end = offset + len;
    let mut at = offset;
    let mut out = Vec::new();
    while at < end && out.len() < most {
        let from = geometry.grain.index_of(at);
        let next = set.next_run((volume, from), u64::MAX).filter(|run| run.volume == volume);
        let (stop, flags) = match next {
            Some(run) if run.first <= from => (byte_end(geometry, run), 1),
            Some(run) => (run.first << geometry.grain.shift(), 0),
            None => (end, 0),
        };
        let stop = stop.min(end);
        out.push(Extent { len: stop - at, flags });
        at = stop;
    }
    out
}

fn byte_end(geometry: &grain::Geometry, run: Run) -> u64 {
    geometry.byte_range(run.volume, run.first, run.count).end
}

impl Export for VolumeExport {
    fn describe(&self) -> Description {
        Description {
            size_bytes: self.bytes,
            text: format!("Grainhaul volume {}", self.alias),
            read_only: false,
            blocks: BlockSizes::default(),
            features: Features::ALL,
            contexts: vec![BASE_ALLOCATION.to_owned(), DIRTY.to_owned()],
        }
    }

    fn submit(&self, command: Command, reply: Reply) {
        match command {
            Command::Read { offset, len } => self.read(offset, len, reply),
            Command::Write { offset, data, fua } => {
                let mut tried = Tried::default();
                let begun = self.source.pace().begins();
                if !fua {
                    match self.source.write_now(self.volume, offset, &data) {
                        Ok(Written::Done) => {
                            reply.done();
                            return self.source.pace().answered(begun);
                        }
                        Ok(Written::Waits(tickets)) => return self.spawn_confirm(tickets, reply),
                        Ok(Written::NotNow(left)) => tried = left,
                        Err(e) => return refuse(reply, &e),
                    }
                }
                let change = Change::Data(data.into_bytes());
                self.spawn_write(tried, offset, change, fua, (reply, begun));
            }
            Command::Flush => {
                let source = self.source.clone();
                tokio::task::spawn_local(async move {
                    match source.flush().await {
                        Ok(()) => reply.done(),
                        Err(e) => refuse(reply, &e),
                    }
                });
            }
            Command::Trim { offset, len, fua } => {
                self.spawn_write(
                    Tried::default(),
                    offset,
                    Change::Zero { len, punch: true, fast: false },
                    fua,
                    (reply, None),
                );
            }
            Command::WriteZeroes { offset, len, fua, no_hole, fast_zero } => {
                let change = Change::Zero { len, punch: !no_hole, fast: fast_zero };
                self.spawn_write(Tried::default(), offset, change, fua, (reply, None));
            }
            Command::Cache { offset, len } => {
                let (source, volume) = (self.source.clone(), self.volume);
                tokio::task::spawn_local(async move {
                    let len = len.min(4 << 20) as usize;
                    match source.read(volume, offset, len).await {
                        Ok(_) => reply.done(),
                        Err(e) => refuse(reply, &e),
                    }
                });
            }
            Command::BlockStatus { offset, len, contexts, req_one } => {
                self.block_status(offset, len, contexts, req_one, reply);
            }
        }
    }
}

fn errno(e: &Error) -> Errno {
    match e {
        Error::Io { source, .. } => match source.kind() {
            std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => Errno::NoSpace,
            std::io::ErrorKind::Unsupported => Errno::NotSupported,
            _ => Errno::Io,
        },
        _ => Errno::Io,
    }
}

fn refuse(reply: Reply, e: &Error) {
    if e.class() != grain::ErrorClass::Operator || errno(e) == Errno::Io {
        tracing::warn!(error = %e, "a request failed");
    }
    reply.error_because(errno(e), &e.to_string());
}
