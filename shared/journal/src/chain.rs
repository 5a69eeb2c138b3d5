//! Reading the segments of a directory: which belong to the journal, what their headers and marks
//! say, and what records they hold.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::rc::Rc;

use disk::{Context, File, OpenMode};

use crate::Error;
use crate::damage::{Damage, Stretch, What};
use crate::layout::{HeaderFound, Mark, Nonce, Previous, Progress, RECORDS_START, SegmentHeader};
use crate::scan::{Scan, scan};
use crate::segment::{FileName, Segment, read_header, read_mark};

/// The files of a journal's directory.
pub(crate) struct Directory {
    /// Files named as live segments.
    pub live: BTreeMap<u64, LiveFile>,
    /// Files that mean nothing: spares, and one that was being made.
    pub litter: Vec<PathBuf>,
}

/// A file named as a live segment.
pub(crate) struct LiveFile {
    pub path: PathBuf,
    file: Rc<dyn File>,
    bytes: u64,
    /// Its header, when it checks and is this segment's.
    header: Option<SegmentHeader>,
    mark: Option<Mark>,
}

/// A segment of the chain, read.
pub(crate) struct Link {
    pub number: u64,
    /// The open file, unless it is missing or nothing says its nonce.
    pub segment: Option<Rc<Segment>>,
    pub header: Option<SegmentHeader>,
    pub scan: Scan,
}

/// All that the segments say.
pub(crate) struct Chain {
    /// From the low-water mark on, without gaps.
    pub links: Vec<Link>,
    pub progress: Progress,
    pub damage: Vec<Damage>,
}

/// Opens what is there and reads headers and marks.
pub(crate) async fn read_directory(
    ctx: &Context,
    dir: &std::path::Path,
    geometry: &[u8; 32],
) -> Result<Directory, Error> {
    let entries = ctx.storage.list(dir).await.map_err(|e| Error::io("list", dir, e))?;
    let mut found = Directory { live: BTreeMap::new(), litter: Vec::new() };
    for entry in entries.into_iter().filter(|entry| !entry.is_dir) {
        let path = dir.join(&entry.name);
        match FileName::parse(&entry.name) {
            Some(FileName::Live(number)) => {
                let file = open_live(ctx, path, number, geometry).await?;
                found.live.insert(number, file);
            }
            Some(FileName::Spare(_) | FileName::Fresh) => found.litter.push(path),
            None => {}
        }
    }
    Ok(found)
}

async fn open_live(
    ctx: &Context,
    path: PathBuf,
    number: u64,
    geometry: &[u8; 32],
) -> Result<LiveFile, Error> {
    let opened = ctx.storage.open(&path, OpenMode::ReadWrite).await;
    let file = opened.map_err(|e| Error::io("open", &path, e))?;
    let bytes = file.len().map_err(|e| Error::io("measure", &path, e))?;
    let read = read_header(&file).await.map_err(|e| Error::io("read", &path, e))?;
    let header = match read {
        HeaderFound::Version(value) => {
            return Err(Error::Newer { segment: number, what: "version", value });
        }
        HeaderFound::Good(header) if header.geometry != *geometry => {
            return Err(Error::OtherGeometry { path });
        }
        HeaderFound::Good(header) if header.number == number => Some(header),
        HeaderFound::Good(_) | HeaderFound::Bad => None,
    };
    let mark = match &header {
        Some(h) => read_mark(&file, &h.nonce).await.map_err(|e| Error::io("read", &path, e))?,
        None => None,
    };
    Ok(LiveFile { path, file, bytes, header, mark })
}

impl Directory {
    /// What headers and marks say has been applied and given up.
    fn progress(&self) -> Progress {
        let headers = self.live.values().filter_map(|f| f.header.as_ref()).map(|h| h.progress);
        let marks = self.live.values().filter_map(|f| f.mark).map(|m| m.progress);
        headers.chain(marks).fold(Progress::default(), Progress::max)
    }

    /// The number of the newest segment that there is, or was.
    fn last(&self) -> Option<u64> {
        let (&last, file) = self.live.last_key_value()?;
        let ended = file.mark.is_some_and(|mark| mark.next != Nonce::default());
        Some(if ended { last + 1 } else { last })
    }

    /// What the segment after `number` says of it; its word counts.
    fn said_by_next(&self, number: u64) -> Option<Previous> {
        let next = self.live.get(&(number + 1))?.header.as_ref()?;
        (next.previous.number == number).then_some(next.previous)
    }

    fn nonce_of(&self, number: u64) -> Option<Nonce> {
        let own = self.live.get(&number).and_then(|f| f.header.as_ref()).map(|h| h.nonce);
        let said = self.said_by_next(number).map(|previous| previous.nonce);
        let named = || {
            let mark = self.live.get(&number.checked_sub(1)?)?.mark?;
            Some(mark.next)
        };
        let known = said.or(own).or_else(named)?;
        (known != Nonce::default()).then_some(known)
    }

    /// Walks every segment that counts.
    pub(crate) async fn read_chain(&self, ctx: &Context) -> Result<Chain, Error> {
        let progress = self.progress();
        let mut chain = Chain { links: Vec::new(), progress, damage: Vec::new() };
        let Some(last) = self.last() else { return Ok(chain) };
        let first = match progress.low {
            // No header says anything: what is there is all there is.
            0 => self.live.first_key_value().map_or(last, |(number, _)| *number),
            low => low,
        };
        for number in first..=last.max(first) {
            let link = self.read_link(ctx, number, &mut chain).await?;
            chain.links.push(link);
        }
        Ok(chain)
    }

    async fn read_link(
        &self,
        ctx: &Context,
        number: u64,
        chain: &mut Chain,
    ) -> Result<Link, Error> {
        let whole = |bytes| Stretch { segment: number, offset: 0, bytes };
        let Some(file) = self.live.get(&number) else {
            chain.damaged(whole(0), What::SegmentMissing);
            return Ok(Link { number, segment: None, header: None, scan: Scan::default() });
        };
        let nonce = self.nonce_of(number);
        if file.header.is_none() || nonce.is_none() {
            chain.damaged(whole(file.bytes), What::SegmentHeader);
        }
        let Some(nonce) = nonce else {
            let scan = Scan { durable: file.bytes, end: file.bytes, ..Scan::default() };
            return Ok(Link { number, segment: None, header: None, scan });
        };
        let bytes = file.bytes;
        let segment = Rc::new(Segment { number, nonce, file: file.file.clone(), bytes });
        let read = async {
            let mark = match file.mark {
                None => read_mark(&file.file, &nonce).await?,
                mark => mark,
            };
            let sealed = self.said_by_next(number).map(|previous| previous.end);
            let durable = mark.map_or(RECORDS_START, |mark| mark.durable);
            scan(ctx, &segment, sealed, durable).await
        };
        let scan = read.await.map_err(|e| Error::io("read", &file.path, e))?;
        for &(from, to) in &scan.damage {
            let place = Stretch { segment: number, offset: from, bytes: to - from };
            chain.damaged(place, What::Bytes);
        }
        let header = file.header.clone().filter(|h| h.nonce == nonce);
        Ok(Link { number, segment: Some(segment), header, scan })
    }

    /// Files that are not part of the chain.
    pub(crate) fn below(&self, low: u64) -> impl Iterator<Item = &PathBuf> {
        self.live.range(..low).map(|(_, file)| &file.path)
    }
}

impl Chain {
    fn damaged(&mut self, place: Stretch, what: What) {
        let grains = Some(grain::GrainSet::new());
        self.damage.push(Damage { place: Some(place), what, grains });
    }
}
