//! Reading the segments of a directory: which belong to the history, and what they hold.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::rc::Rc;

use bytes::Bytes;
use disk::{Context, File, OpenMode};
use grain::Geometry;

use crate::layout::{Nonce, Previous, RECORDS_START};
use crate::segment::{read_if_there, read_twice};

use super::Error;
use super::files::Files;
use super::index::{self, BLOCK, Body, HEAD_LEN, Head};
use super::layout::{ENDED, HeaderFound, Mark, SegmentHeader};
use super::scan::{Known, Scan, scan};
use super::segment::{FileName, Segment, read_header, read_mark};

/// The files of a history's directory.
#[derive(Default)]
pub(super) struct Directory {
    live: BTreeMap<u64, LiveFile>,
    /// Segments of another history.
    pub foreign: Vec<PathBuf>,
    /// A segment that was being made.
    pub litter: Vec<PathBuf>,
}

struct LiveFile {
    path: PathBuf,
    /// When it checks and is this segment's.
    header: Option<SegmentHeader>,
}

/// A place in the chain, read.
pub(super) struct Link {
    pub number: u64,
    pub header: Option<SegmentHeader>,
    pub content: Content,
}

/// What there is at a place in the chain.
pub(super) enum Content {
    /// Nothing that could be read, from this segment up to segment `to`.
    Lost { to: u64, why: &'static str },
    /// A sealed segment with a good index.
    Indexed { segment: Rc<Segment>, head: Head, body: Body, bytes: u64 },
    /// A segment whose records were walked. With `open_end` others follow and nothing says where it ends.
    Scanned { segment: Rc<Segment>, file: Rc<dyn File>, scan: Box<Scan>, open_end: bool },
}

/// Opens what is there and reads the headers.
pub(super) async fn read_directory(files: &Files) -> Result<Directory, Error> {
    let (ctx, dir) = (&files.ctx, &files.dir);
    let entries = ctx.storage.list(dir).await.map_err(|e| Error::io("list", dir, e))?;
    let mut found = Directory::default();
    for entry in entries.into_iter().filter(|entry| !entry.is_dir) {
        let path = dir.join(&entry.name);
        let number = match FileName::parse(&entry.name) {
            Some(FileName::Live(number)) => number,
            Some(FileName::Fresh) => {
                found.litter.push(path);
                continue;
            }
            None => continue,
        };
        let file = open(ctx, &path, OpenMode::Read).await?;
        let read = read_header(&file).await.map_err(|e| Error::io("read", &path, e))?;
        let header = match read {
            HeaderFound::Version(value) => {
                return Err(Error::Newer { segment: number, what: "version", value });
            }
            HeaderFound::Good(header) if header.id != files.id => {
                found.foreign.push(path);
                continue;
            }
            HeaderFound::Good(header) if header.geometry != files.geometry_digest => {
                return Err(Error::OtherGeometry { path });
            }
            HeaderFound::Good(header) if header.number == number => Some(header),
            HeaderFound::Good(_) | HeaderFound::Bad => None,
        };
        found.live.insert(number, LiveFile { path, header });
    }
    Ok(found)
}

async fn open(
    ctx: &Context,
    path: &std::path::Path,
    mode: OpenMode,
) -> Result<Rc<dyn File>, Error> {
    ctx.storage.open(path, mode).await.map_err(|e| Error::io("open", path, e))
}

impl Directory {
    pub(super) fn is_empty(&self) -> bool {
        self.live.is_empty()
    }

    /// The newest number of a file.
    pub(super) fn last(&self) -> u64 {
        self.live.last_key_value().map_or(0, |(number, _)| *number)
    }

    /// Files of segments below `low`.
    pub(super) fn below(&self, low: u64) -> impl Iterator<Item = &PathBuf> {
        self.live.range(..low).map(|(_, file)| &file.path)
    }

    /// What the segment after `number` says of it; its word counts.
    fn said_by_next(&self, number: u64) -> Option<Previous> {
        let next = self.live.get(&(number + 1))?.header.as_ref()?;
        (next.previous.number == number).then_some(next.previous)
    }

    /// Reads the segments that the headers do not call given up, the oldest first.
    pub(super) async fn read_chain(
        &self,
        ctx: &Context,
        geometry: &Geometry,
    ) -> Result<Vec<Link>, Error> {
        let headers = self.live.values().filter_map(|file| file.header.as_ref());
        let low = headers.map(|header| header.low).max().unwrap_or(0);
        let mut expected = match low {
            0 => self.live.first_key_value().map_or(1, |(number, _)| *number),
            low => low,
        };
        let lost =
            |number, to, why| Link { number, header: None, content: Content::Lost { to, why } };
        let missing = "the segment's file is missing";
        let (mut links, mut mark) = (Vec::new(), None::<Mark>);
        for (&number, file) in self.live.range(expected..) {
            if number > expected {
                links.push(lost(expected, number - 1, missing));
                mark = None;
            }
            let next = mark.map(|m| m.next).filter(|next| *next != Nonce::default());
            let (link, own) = self.read_link(ctx, geometry, number, file, next).await?;
            links.push(link);
            mark = own;
            expected = number + 1;
        }
        if mark.is_some_and(|m| m.next != Nonce::default()) {
            links.push(lost(expected, expected, missing));
        }
        Ok(links)
    }

    async fn read_link(
        &self,
        ctx: &Context,
        geometry: &Geometry,
        number: u64,
        live: &LiveFile,
        named: Option<Nonce>,
    ) -> Result<(Link, Option<Mark>), Error> {
        let said = self.said_by_next(number);
        let own = live.header.as_ref().map(|header| header.nonce);
        let vouched = said.map(|previous| previous.nonce).filter(|n| *n != Nonce::default());
        let lost = |why| {
            let content = Content::Lost { to: number, why };
            Ok((Link { number, header: None, content }, None))
        };
        let Some(nonce) = vouched.or(own).or(named) else {
            return lost("the segment's header does not check");
        };
        if own.is_some_and(|own| own != nonce) {
            return lost("the segment is not the one that stood here");
        }
        let cannot = |e| Error::io("read", &live.path, e);
        let is_last = self.last() == number;
        let mode = if is_last { OpenMode::ReadWrite } else { OpenMode::Read };
        let file = open(ctx, &live.path, mode).await?;
        let segment = Rc::new(Segment { number, nonce, path: live.path.clone() });
        let mark = read_mark(&file, &nonce).await.map_err(cannot)?;
        let ended = mark.filter(|m| m.generation == ENDED).map(|m| m.durable);
        let header = live.header.clone();
        let known = match said.map(|previous| previous.end).or(ended) {
            Some(end) => Known::Sealed(end),
            None => Known::Open(mark),
        };
        let bytes = file.len().map_err(cannot)?;
        let bare = live.header.is_none() && mark.is_none();
        if matches!(known, Known::Open(_)) && is_last && (bare || bytes < RECORDS_START) {
            // A segment has its fixed part before it has its name: nothing says what else is gone.
            return lost("the segment's header and marks are gone");
        }
        if let Known::Sealed(end) = known
            && let Some(content) = read_index(ctx, &segment, &file, geometry, end).await?
        {
            return Ok((Link { number, header, content }, mark));
        }
        let scan = Box::new(scan(ctx, &segment, &file, geometry, known).await?);
        let open_end = matches!(known, Known::Open(_)) && !is_last;
        let content = Content::Scanned { segment, file, scan, open_end };
        Ok((Link { number, header, content }, mark))
    }
}

/// The index of a segment whose records end at `end`, when all of it but its blocks checks.
async fn read_index(
    ctx: &Context,
    segment: &Rc<Segment>,
    file: &Rc<dyn File>,
    geometry: &Geometry,
    end: u64,
) -> Result<Option<Content>, Error> {
    let cannot = |e| Error::io("read", &segment.path, e);
    let bytes = file.len().map_err(cannot)?;
    let at = index::place(end);
    let head = read_if_there(file, at, HEAD_LEN).await.map_err(cannot)?;
    let Some(head) = Head::decode(&head, &segment.nonce, end, bytes) else { return Ok(None) };
    debug_assert!(head.body_at() >= at + BLOCK);
    let Ok(body) = read_twice(file, head.body_at(), head.body_bytes as usize).await else {
        return Ok(None);
    };
    let body = Bytes::from(body);
    if Body::digest(ctx, &body).await != head.digest {
        return Ok(None);
    }
    let body = Body::decode(&body, head.blocks(), geometry);
    Ok(body.map(|body| Content::Indexed { segment: segment.clone(), head, body, bytes }))
}
