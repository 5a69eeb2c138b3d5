//! A view offered as NBD exports, one for each volume, to look at or to try something on.

use std::cell::Cell;
use std::path::PathBuf;
use std::rc::Rc;

use grain::VolumeId;
use nbd::{
    BASE_ALLOCATION, BlockSizes, Command, Description, Errno, Export, Extent, Features, Reply,
    STATE_HOLE, STATE_ZERO,
};

use super::overlay::{Overlay, Room};
use super::{Seen, View};
use crate::{Error, Result};

/// Extents looked up for one block status at most.
const MAX_EXTENTS: usize = 512;

/// Where the writes of a drill go, and how many.
#[derive(Clone, Debug)]
pub struct Writable {
    /// A directory for files that have no name.
    pub dir: PathBuf,
    /// The most bytes that they take.
    pub most_bytes: u64,
}

/// What was done with a view.
#[derive(Debug, Default)]
pub struct DrillCounts {
    /// Reads answered.
    pub reads: Cell<u64>,
    /// Their bytes.
    pub read_bytes: Cell<u64>,
    /// Writes, trims and zeroes answered.
    pub writes: Cell<u64>,
    /// Bytes that they changed.
    pub written_bytes: Cell<u64>,
    /// Requests that failed.
    pub errors: Cell<u64>,
}

/// See the module's text.
pub struct Drill {
    view: Rc<View>,
    overlays: Vec<Rc<Overlay>>,
    room: Rc<Room>,
    counts: Rc<DrillCounts>,
}

impl Drill {
    /// A view that can be read, and written if so said.
    pub async fn new(view: View, writable: Option<Writable>) -> Result<Drill> {
        let view = Rc::new(view);
        let replica = view.replica().clone();
        let room = Room::new(writable.as_ref().map_or(0, |writable| writable.most_bytes));
        let mut overlays = Vec::new();
        if let Some(Writable { dir, .. }) = &writable {
            for (volume, _) in replica.volumes().iter() {
                let (over, room) = (view.clone(), room.clone());
                let made = Overlay::new(replica.context(), dir, over, volume, room).await?;
                overlays.push(Rc::new(made));
            }
        }
        Ok(Drill { view, overlays, room, counts: Rc::default() })
    }

    /// What it shows.
    pub fn seen(&self) -> &Seen {
        self.view.seen()
    }

    /// What was done with it.
    pub fn counts(&self) -> &DrillCounts {
        &self.counts
    }

    /// Bytes that the writes take.
    pub fn overlay_bytes(&self) -> u64 {
        self.room.taken()
    }

    /// Why it can be read no more.
    pub fn ended(&self) -> Option<String> {
        self.view.ended()
    }

    /// The exports of all volumes, under their aliases.
    pub fn exports(&self) -> Vec<(String, Rc<dyn Export>)> {
        let volumes = self.view.replica().volumes().clone();
        let make = |(volume, v): (VolumeId, &crate::volumes::Volume)| {
            let export: Rc<dyn Export> = Rc::new(Looked {
                view: self.view.clone(),
                overlay: self.overlays.get(volume.index()).cloned(),
                counts: self.counts.clone(),
                volume,
                bytes: v.bytes,
                alias: v.alias.clone(),
            });
            (v.alias.clone(), export)
        };
        volumes.iter().map(make).collect()
    }

    /// Ends it: what was written is gone, and what was kept for it alone goes.
    pub async fn close(self) {
        let Drill { view, overlays, .. } = self;
        let replica = view.replica().clone();
        view.end("it was closed");
        drop((view, overlays));
        replica.release_view().await;
    }
}

/// One volume of a view.
struct Looked {
    view: Rc<View>,
    overlay: Option<Rc<Overlay>>,
    counts: Rc<DrillCounts>,
    volume: VolumeId,
    bytes: u64,
    alias: String,
}

fn add(count: &Cell<u64>, more: u64) {
    count.set(count.get() + more);
}

impl Looked {
    fn read(&self, offset: u64, len: u64, reply: Reply) {
        let (view, overlay, counts) =
            (self.view.clone(), self.overlay.clone(), self.counts.clone());
        let span = grain::Span { volume: self.volume, start: offset, bytes: len };
        tokio::task::spawn_local(async move {
            let read = match &overlay {
                Some(overlay) => overlay.read(span.start, span.end()).await,
                None => view.read(span).await,
            };
            match read {
                Ok(bytes) => {
                    add(&counts.reads, 1);
                    add(&counts.read_bytes, bytes.len() as u64);
                    reply.data(bytes);
                }
                Err(e) => refuse(&counts, reply, &e),
            }
        });
    }

    fn write(&self, offset: u64, len: u64, data: Option<bytes::Bytes>, reply: Reply) {
        let counts = self.counts.clone();
        let Some(overlay) = self.overlay.clone() else {
            return reply.error_because(Errno::Perm, "this view is read-only");
        };
        tokio::task::spawn_local(async move {
            match overlay.write(offset, len, data).await {
                Ok(()) => {
                    add(&counts.writes, 1);
                    add(&counts.written_bytes, len);
                    reply.done();
                }
                Err(e) => refuse(&counts, reply, &e),
            }
        });
    }

    fn block_status(&self, offset: u64, len: u64, req_one: bool, mut reply: Reply) {
        let (view, overlay, counts) =
            (self.view.clone(), self.overlay.clone(), self.counts.clone());
        let (volume, end) = (self.volume, self.bytes.min(offset.saturating_add(len)));
        tokio::task::spawn_local(async move {
            let most = if req_one { 1 } else { MAX_EXTENTS };
            let whole = grain::Span { volume, start: offset, bytes: end - offset };
            let stretches = match &overlay {
                Some(overlay) => overlay.stretches(offset, end),
                None => vec![(whole, false)],
            };
            let mut extents: Vec<Extent> = Vec::new();
            for (span, written) in stretches {
                if extents.len() >= most {
                    break;
                }
                let found = match written {
                    true => Ok(vec![(span.bytes, false)]),
                    false => view.allocation(span, most).await,
                };
                match found {
                    Ok(found) => extents.extend(found.iter().map(|(len, zero)| {
                        let flags = if *zero { STATE_HOLE | STATE_ZERO } else { 0 };
                        Extent { len: *len, flags }
                    })),
                    Err(e) => return refuse(&counts, reply, &e),
                }
            }
            extents.truncate(most);
            reply.extents(0, &extents);
            reply.done();
        });
    }
}

impl Export for Looked {
    fn describe(&self) -> Description {
        let writable = self.overlay.is_some();
        Description {
            size_bytes: self.bytes,
            text: format!("Grainhaul view of volume {}", self.alias),
            read_only: !writable,
            blocks: BlockSizes::default(),
            features: Features {
                flush: true,
                fua: writable,
                trim: writable,
                zeroes: writable,
                fast_zero: false,
                cache: false,
                multi_conn: true,
                rotational: false,
            },
            contexts: vec![BASE_ALLOCATION.to_owned()],
        }
    }

    fn submit(&self, command: Command, reply: Reply) {
        match command {
            Command::Read { offset, len } => self.read(offset, u64::from(len), reply),
            Command::Write { offset, data, .. } => {
                let data = data.into_bytes();
                self.write(offset, data.len() as u64, Some(data), reply);
            }
            // What is written is thrown away: it has to outlive nothing.
            Command::Flush | Command::Cache { .. } => reply.done(),
            Command::Trim { offset, len, .. } | Command::WriteZeroes { offset, len, .. } => {
                self.write(offset, len, None, reply);
            }
            Command::BlockStatus { offset, len, req_one, .. } => {
                self.block_status(offset, len, req_one, reply);
            }
        }
    }
}

fn refuse(counts: &DrillCounts, reply: Reply, error: &Error) {
    add(&counts.errors, 1);
    let full = matches!(error, Error::Io { source, .. } if source.kind() == std::io::ErrorKind::StorageFull);
    let errno = if full { Errno::NoSpace } else { Errno::Io };
    tracing::warn!(%error, "a request to a view failed");
    reply.error_because(errno, &error.to_string());
}
