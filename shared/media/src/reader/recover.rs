//! When a segment's index is lost: the copy in the part directory, or a scan over the records.

use std::collections::BTreeSet;
use std::rc::Rc;

use disk::File;
use grain::GrainSet;

use super::damage::IndexSource;
use super::segment_reader::SegmentReader;
use crate::frame::FrameKind;
use crate::index::{Index, IndexEntry, MAX_RECORDS};
use crate::part::PartReader;
use crate::record::open_record;
use crate::scan::{FoundFrame, find_frames};
use crate::segment::HEADER_BYTES;

/// The copy of the index in the part directory of the same medium, if it is the signed one.
pub(super) async fn from_part(reader: &SegmentReader) -> Option<Index> {
    let directory = &reader.inner.directory;
    let (set, medium) = (directory.manifest.set, reader.facts.medium);
    let ctx = &reader.inner.signed.ctx;
    let key = reader.inner.key.as_ref();
    let part = PartReader::open(ctx, &reader.part, set, medium, key).await.ok()?;
    for i in 0..part.len() {
        // A damaged entry is only a lost copy.
        let Ok(Some(entry)) = part.entry(i).await else { continue };
        if entry.facts.index_digest == reader.facts.index_digest {
            return Index::decode(&entry.index, &directory.facts.geometry).ok();
        }
    }
    None
}

/// Finds the records by scanning. If they make up the signed index, all is proven as before. If some
/// are lost, the others count where the seal proves who made them; without encryption nothing does,
/// and they are lost too. Returns what can be read, how, and which grains are lost.
pub(super) async fn from_scan(
    reader: &SegmentReader,
    file: &Rc<dyn File>,
    len: u64,
) -> (Index, IndexSource, GrainSet) {
    let geometry = &reader.inner.directory.facts.geometry;
    let all = reader.facts.grain_set(geometry).unwrap_or_default();
    // The index frame that stood behind the records may be found too; it is not a record.
    let found = find_frames(file, reader.marker, HEADER_BYTES as u64, len).await;
    let Ok(frames) = found else { return (Index::default(), IndexSource::Nothing, all) };
    let mut entries: Vec<IndexEntry> = Vec::new();
    let mut seen = BTreeSet::new();
    for frame in frames.iter().filter(|frame| frame.header.kind == FrameKind::Record) {
        if entries.len() >= MAX_RECORDS as usize || !seen.insert(frame.header.number) {
            continue;
        }
        entries.extend(open_entry(reader, file, frame).await);
    }
    let index = Index { entries };
    if Index::digest(&index.encode()) == reader.facts.index_digest {
        return (index, IndexSource::Scan, GrainSet::new());
    }
    if reader.inner.key.is_none() || index.entries.is_empty() {
        return (Index::default(), IndexSource::Nothing, all);
    }
    let mut lost = all;
    index.entries.iter().for_each(|entry| {
        lost.remove_run(entry.run);
    });
    (index, IndexSource::PartialScan, lost)
}

/// What the index says about a record that opens.
async fn open_entry(
    reader: &SegmentReader,
    file: &Rc<dyn File>,
    frame: &FoundFrame,
) -> Option<IndexEntry> {
    let bytes = file.read_at(frame.offset, frame.header.frame_len() as usize).await.ok()?;
    let (sealer, marker) = (reader.sealer.clone(), reader.marker);
    let geometry = reader.inner.directory.facts.geometry.clone();
    let offset = frame.offset;
    let open = move || open_record(bytes, &geometry, &sealer, marker, offset).ok();
    let record = reader.inner.signed.ctx.offload(open).await?;
    Some(IndexEntry {
        offset,
        frame_len: frame.header.frame_len() as u32,
        number: frame.header.number,
        run: record.run,
        encoding: record.encoding,
        head_digest: record.head_digest,
    })
}
