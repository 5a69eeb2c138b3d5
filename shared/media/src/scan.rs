//! Finding frames without an index: walk from header to header, and after damage search for the
//! next marker.
//!
//! A header that passes its checksum says where the next frame begins; whatever does not pass is
//! searched byte by byte. So damage costs the frames that it hit and no other.

use std::io;
use std::rc::Rc;

use disk::File;

use crate::frame::{FRAME_HEADER_BYTES, FrameHeader};

const WINDOW_BYTES: usize = 1 << 20;
/// More frames than a file of ours has are not looked for.
const MAX_FRAMES: usize = 1 << 20;

/// A frame header found at an offset of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FoundFrame {
    pub(crate) offset: u64,
    pub(crate) header: FrameHeader,
}

impl FoundFrame {
    /// One past the frame's last byte.
    pub(crate) fn end(&self) -> u64 {
        self.offset + self.header.frame_len()
    }
}

/// All frames that begin in `from..end` and fit before `end`.
pub(crate) async fn find_frames(
    file: &Rc<dyn File>,
    marker: [u8; 8],
    from: u64,
    end: u64,
) -> io::Result<Vec<FoundFrame>> {
    let mut frames = Vec::new();
    let mut at = from;
    while at < end && frames.len() < MAX_FRAMES {
        let found = match read_header(file, marker, at, end).await? {
            Some(found) => Some(found),
            None => search(file, marker, at + 1, end).await?,
        };
        at = found.map_or(end, |found| found.end());
        frames.extend(found);
    }
    Ok(frames)
}

async fn read_header(
    file: &Rc<dyn File>,
    marker: [u8; 8],
    offset: u64,
    end: u64,
) -> io::Result<Option<FoundFrame>> {
    if end - offset < FRAME_HEADER_BYTES as u64 {
        return Ok(None);
    }
    let bytes = file.read_at(offset, FRAME_HEADER_BYTES).await?;
    Ok(accept(&bytes, marker, offset, end))
}

fn accept(bytes: &[u8], marker: [u8; 8], offset: u64, end: u64) -> Option<FoundFrame> {
    let header = FrameHeader::decode(bytes, marker, offset).ok()?;
    let found = FoundFrame { offset, header };
    (found.end() <= end).then_some(found)
}

/// The first acceptable header at or after `from`.
async fn search(
    file: &Rc<dyn File>,
    marker: [u8; 8],
    mut from: u64,
    end: u64,
) -> io::Result<Option<FoundFrame>> {
    while end.saturating_sub(from) >= FRAME_HEADER_BYTES as u64 {
        let len = (end - from).min(WINDOW_BYTES as u64) as usize;
        let window = file.read_at(from, len).await?;
        for (i, candidate) in window.windows(FRAME_HEADER_BYTES).enumerate() {
            if candidate.starts_with(&marker)
                && let Some(found) = accept(candidate, marker, from + i as u64, end)
            {
                return Ok(Some(found));
            }
        }
        // The last bytes may hold the beginning of a header: they are looked at again.
        from += (len - FRAME_HEADER_BYTES + 1) as u64;
    }
    Ok(None)
}
