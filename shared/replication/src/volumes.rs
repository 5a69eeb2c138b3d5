//! The base volumes of a site: regular files or block devices, opened exclusively.

use std::cell::Cell;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use bytes::Bytes;
use disk::{Context, File, FileKind, OpenMode};
use grain::{Content, Geometry, GrainData, Run, SpanData, VolumeId, is_zero};

use crate::group_commit::GroupCommit;
use crate::{Error, Result};

/// One open volume.
pub struct Volume {
    /// Its exported name.
    pub alias: String,
    /// Where it is.
    pub path: PathBuf,
    /// Size in bytes as the relationship knows it.
    pub bytes: u64,
    /// The open file.
    pub file: Rc<dyn File>,
}

/// The open volumes of a relationship, in the order of its geometry.
pub struct Volumes {
    geometry: Geometry,
    volumes: Rc<Vec<Volume>>,
    syncer: GroupCommit,
    failed_syncs: Rc<Cell<u64>>,
}

/// Bytes of a volume as it is now, before there is a geometry.
pub async fn measure(ctx: &Context, path: &Path) -> Result<u64> {
    let file = ctx.storage.open(path, OpenMode::Read).await.map_err(Error::io("open", path))?;
    file.len().map_err(Error::io("measure", path))
}

impl Volumes {
    /// Opens all volumes for exclusive use and checks their sizes.
    pub async fn open(ctx: &Context, geometry: &Geometry, paths: &[PathBuf]) -> Result<Volumes> {
        let mut volumes = Vec::new();
        for ((_, shape), path) in geometry.iter().zip(paths) {
            let opened = ctx.storage.open(path, OpenMode::Exclusive).await;
            let file = opened.map_err(|e| match e.kind() {
                std::io::ErrorKind::WouldBlock | std::io::ErrorKind::ResourceBusy => {
                    Error::Volume {
                        alias: shape.alias.clone(),
                        detail: format!("{} is in use by another program", path.display()),
                    }
                }
                _ => Error::io("open", path)(e),
            })?;
            let now = file.len().map_err(Error::io("measure", path))?;
            if now != shape.bytes {
                return Err(Error::Volume {
                    alias: shape.alias.clone(),
                    detail: format!(
                        "{} has {now} bytes, the relationship says {}",
                        path.display(),
                        shape.bytes
                    ),
                });
            }
            volumes.push(Volume {
                alias: shape.alias.clone(),
                path: path.clone(),
                bytes: shape.bytes,
                file,
            });
        }
        let volumes = Rc::new(volumes);
        let failed_syncs = Rc::new(Cell::new(0));
        let syncer = syncer(&volumes, &failed_syncs);
        Ok(Volumes { geometry: geometry.clone(), volumes, syncer, failed_syncs })
    }

    /// The same volumes, each through another file.
    pub fn with_files(&self, through: impl Fn(VolumeId, Rc<dyn File>) -> Rc<dyn File>) -> Volumes {
        let volume = |(id, v): (VolumeId, &Volume)| Volume {
            alias: v.alias.clone(),
            path: v.path.clone(),
            bytes: v.bytes,
            file: through(id, v.file.clone()),
        };
        let volumes = Rc::new(self.iter().map(volume).collect());
        let failed_syncs = Rc::new(Cell::new(0));
        let syncer = syncer(&volumes, &failed_syncs);
        Volumes { geometry: self.geometry.clone(), volumes, syncer, failed_syncs }
    }

    /// The geometry.
    pub fn geometry(&self) -> &Geometry {
        &self.geometry
    }

    /// The volumes with their ids.
    pub fn iter(&self) -> impl Iterator<Item = (VolumeId, &Volume)> {
        self.volumes.iter().enumerate().map(|(i, v)| (VolumeId(i as u16), v))
    }

    /// One volume.
    pub fn get(&self, volume: VolumeId) -> Result<&Volume> {
        self.volumes
            .get(volume.index())
            .ok_or_else(|| Error::State(format!("there is no volume {}", volume.0)))
    }

    /// Whether all of a run that somebody else named lies inside the volumes.
    pub fn holds(&self, run: Run) -> bool {
        let grains = self.geometry.grains(run.volume);
        run.count > 0 && run.first < grains && run.count <= grains - run.first
    }

    /// A place in words, for people who look for it with their own tools.
    pub fn place(&self, run: Run) -> String {
        let range = self.geometry.byte_range(run.volume, run.first, run.count);
        let alias = self.get(run.volume).map_or("?", |volume| volume.alias.as_str());
        format!("bytes {}..{} of volume {alias}", range.start, range.end)
    }

    /// Reads the bytes of a run.
    pub async fn read(&self, run: Run) -> Result<Bytes> {
        let volume = self.get(run.volume)?;
        let range = self.geometry.byte_range(run.volume, run.first, run.count);
        let len = (range.end - range.start) as usize;
        let read = volume.file.read_at(range.start, len).await;
        Ok(read.map_err(Error::io("read", &volume.path))?.into())
    }

    /// How many whole grains from the start of `run` are a hole that reads as zeros.
    pub async fn hole_at(&self, run: Run) -> Result<u64> {
        let volume = self.get(run.volume)?;
        if volume.file.kind() == FileKind::Block {
            return Ok(0);
        }
        let range = self.geometry.byte_range(run.volume, run.first, run.count);
        let found = volume.file.extents(range.start, range.end - range.start, 1).await;
        let found = found.map_err(Error::io("map", &volume.path))?;
        match found.first() {
            Some(extent) if !extent.data && extent.offset == range.start => {
                if extent.len >= range.end - range.start {
                    return Ok(run.count);
                }
                Ok((extent.len >> self.geometry.grain.shift()).min(run.count))
            }
            _ => Ok(0),
        }
    }

    /// Writes the content of a run; zeros are punched where that is possible.
    pub async fn write(&self, data: &GrainData) -> Result<()> {
        let span = self.geometry.span_of(data.run);
        self.write_span(&SpanData { span, content: data.content.clone() }).await
    }

    /// The same for a span of bytes.
    pub async fn write_span(&self, data: &SpanData) -> Result<()> {
        let span = data.span;
        let volume = self.get(span.volume)?;
        let outcome = match &data.content {
            Content::Data(bytes) if bytes.len() as u64 == span.bytes => {
                volume.file.write_at(span.start, bytes.clone()).await
            }
            Content::Data(bytes) => {
                let detail = format!("{} bytes for a run of {}", bytes.len(), span.bytes);
                return Err(Error::Volume { alias: volume.alias.clone(), detail });
            }
            Content::Zero => volume.file.zero(span.start, span.bytes, true).await,
        };
        outcome.map_err(Error::io("write", &volume.path))
    }

    /// How many syncs have failed since the volumes were opened: what was written before one of them and
    /// not synced by then may never reach the disk, whatever later syncs say.
    pub fn failed_syncs(&self) -> u64 {
        self.failed_syncs.get()
    }

    /// Syncs all volumes. Who calls it does not call it again before it has ended.
    pub async fn sync(&self) -> Result<()> {
        sync_all(&self.volumes, &self.failed_syncs).await
    }

    /// Syncs what was written since [`Volumes::failed_syncs`] gave `failed`; fails, too, when another sync
    /// failed meanwhile. It goes on when the caller goes away, and there is one at a time: whoever is told
    /// that one went well knows of all that failed before it.
    pub async fn sync_since(&self, failed: u64) -> Result<()> {
        self.syncer.join().await?;
        self.none_failed_since(failed)
    }

    /// Fails when a sync failed since [`Volumes::failed_syncs`] gave `failed`: what was written since may
    /// be lost.
    pub fn none_failed_since(&self, failed: u64) -> Result<()> {
        if self.failed_syncs.get() == failed {
            return Ok(());
        }
        let path = self.volumes.first().map_or(Path::new(""), |volume| &volume.path);
        Err(Error::io("sync", path)(std::io::Error::other("another sync failed meanwhile")))
    }
}

async fn sync_all(volumes: &[Volume], failed: &Cell<u64>) -> Result<()> {
    for volume in volumes {
        volume.file.sync_data().await.map_err(|e| {
            failed.set(failed.get() + 1);
            Error::io("sync", &volume.path)(e)
        })?;
    }
    Ok(())
}

/// Syncs the volumes in a task of its own, so that a failure is seen whoever goes away.
fn syncer(volumes: &Rc<Vec<Volume>>, failed: &Rc<Cell<u64>>) -> GroupCommit {
    let (volumes, failed) = (volumes.clone(), failed.clone());
    GroupCommit::new(move || {
        let (volumes, failed) = (volumes.clone(), failed.clone());
        Box::pin(async move { sync_all(&volumes, &failed).await })
    })
}

/// Splits a run that was read into maximal runs of data and of zero grains.
pub fn split_zeros(geometry: &Geometry, run: Run, bytes: Bytes) -> Vec<GrainData> {
    let grain = geometry.grain.bytes() as usize;
    let mut out: Vec<GrainData> = Vec::new();
    let mut first = 0_usize;
    let grains = bytes.len().div_ceil(grain);
    let zero_at =
        |i: usize| is_zero(bytes.get(i * grain..bytes.len().min((i + 1) * grain)).unwrap_or(&[]));
    while first < grains {
        let zero = zero_at(first);
        let mut end = first + 1;
        while end < grains && zero_at(end) == zero {
            end += 1;
        }
        let piece = Run {
            volume: run.volume,
            first: run.first + first as u64,
            count: (end - first) as u64,
        };
        let content = if zero {
            Content::Zero
        } else {
            Content::Data(bytes.slice(first * grain..bytes.len().min(end * grain)))
        };
        out.push(GrainData { run: piece, content });
        first = end;
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use grain::{GrainSize, VolumeShape};

    #[test]
    fn runs_split_at_zero_grains() {
        let grain = GrainSize::MIN;
        let bytes = 5 * 4096 + 100;
        let volumes = vec![VolumeShape { alias: "v".into(), bytes }];
        let geometry = Geometry { grain, volumes };
        let mut content = vec![0; bytes as usize];
        content[4096] = 1;
        content[2 * 4096 + 9] = 1;
        let run = Run { volume: VolumeId(0), first: 0, count: 6 };
        let out = split_zeros(&geometry, run, content.into());
        let shape: Vec<_> =
            out.iter().map(|d| (d.run.first, d.run.count, d.content == Content::Zero)).collect();
        assert_eq!(shape, [(0, 1, true), (1, 2, false), (3, 3, true)]);
    }
}
