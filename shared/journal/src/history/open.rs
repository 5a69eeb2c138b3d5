//! Opening: from the segments to a history, and what a crash or damage left put right.

use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::path::Path;
use std::rc::Rc;

use bytes::Bytes;
use disk::{Context, File};
use grain::Geometry;
use tokio::sync::Mutex;

use crate::layout::{Previous, RECORDS_START};
use crate::recovery::digest_of;

use super::cache::Cache;
use super::chain::{Content, Directory, Link, read_directory};
use super::files::{Files, Fresh, MakeError};
use super::index::{Entry, Summary};
use super::record::RecordHeader;
use super::replay::Replay;
use super::scan::{Item, Scan};
use super::segment::Segment;
use super::state::{Captured, Current, Index, Noted, Sealed, State};
use super::{Config, Error, History, Moment, Opened, Point, UNKNOWN};

/// Bytes that are written again at a time.
const CHUNK: u64 = 1 << 20;
/// Sealed segments that are asked what was captured of the newest epochs.
const REMEMBERED: usize = 4;

impl History {
    /// Opens what is in the directory, which is made when it is not there. `id` names this history; the
    /// owner keeps it durably. Segments that carry another id are removed. A torn end is cut, damage is
    /// named, and the points that it may have spoilt are withdrawn.
    ///
    /// # Errors
    /// [`Error::Config`], [`Error::OtherGeometry`], [`Error::Newer`]; [`Error::NoSpace`],
    /// [`Error::Failed`] and [`Error::Io`] when it could not be done now.
    pub async fn open(
        ctx: &Context,
        config: Config,
        geometry: &Geometry,
        id: [u8; 16],
    ) -> Result<(Rc<History>, Opened), Error> {
        config.validate()?;
        let created = ctx.storage.create_dir(&config.dir).await;
        created.map_err(|e| Error::io("create", &config.dir, e))?;
        let geometry_digest = digest_of(geometry);
        let files = Files { ctx: ctx.clone(), dir: config.dir.clone(), id, geometry_digest };
        let directory = read_directory(&files).await?;
        for path in directory.foreign.iter().chain(&directory.litter) {
            remove(ctx, path).await?;
        }
        let links = directory.read_chain(ctx, geometry).await?;
        let mut replay = Replay::of(&links)?;
        let listed: Vec<Noted> = replay.points.iter().chain(&replay.suspects).cloned().collect();
        let mut opened = Opened {
            began: directory.is_empty(),
            foreign: directory.foreign.clone(),
            damage: replay.damage.clone(),
            ..Opened::default()
        };
        opened.damage.iter().for_each(|damage| tracing::error!("history: {damage}"));
        let state = begin(&files, &directory, links, &mut replay, geometry).await?;
        opened.unbounded = state.oldest == UNKNOWN;
        let history = Rc::new(History {
            ctx: ctx.clone(),
            geometry: geometry.clone(),
            files,
            state: RefCell::new(state),
            cache: RefCell::new(Cache::default()),
            open_files: RefCell::new(VecDeque::new()),
            log: Mutex::new(()),
            config,
        });
        if let Some(least) = replay.suspects.iter().map(|noted| noted.point.commit).min() {
            history.withdraw_from(least).await?;
        }
        if replay.spoilt > history.oldest() {
            history.withdraw_below(replay.spoilt).await?;
        }
        let kept = history.points();
        let gone = listed.into_iter().map(|noted| noted.point).filter(|p| !kept.contains(p));
        opened.withdrawn = gone.collect::<Vec<Point>>();
        let low = history.state.borrow().low;
        for path in directory.below(low) {
            // Below a durable low-water mark it means nothing; the next opening tries again.
            if let Err(error) = remove(ctx, path).await {
                tracing::warn!(%error, "cannot remove a segment");
            }
        }
        history.remember().await;
        Ok((history, opened))
    }

    /// What was captured of the newest epochs, as far as a few segments tell: so that what is applied again
    /// after a crash is not captured again.
    async fn remember(&self) {
        let (sealed, moment) = {
            let state = self.state.borrow();
            let newest = state.sealed.values().rev().take(REMEMBERED).cloned();
            (newest.collect::<Vec<_>>(), Moment::after(state.tally.reach.saturating_sub(1)))
        };
        for sealed in sealed {
            if sealed.summary.entries == 0 || sealed.summary.most < moment.commit {
                continue;
            }
            // What cannot be read is captured again.
            let Ok(entries) = self.all_entries(&sealed, moment).await else { continue };
            let mut state = self.state.borrow_mut();
            for entry in entries.iter().filter(|entry| entry.commit >= moment.commit) {
                state.captured.insert(Moment::after(entry.commit), entry.span());
            }
            state.captured.trim();
        }
    }
}

async fn remove(ctx: &Context, path: &Path) -> Result<(), Error> {
    match ctx.storage.remove(path).await {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(Error::io("remove", path, e)),
        _ => Ok(()),
    }
}

/// The state after the opening: goes on in the last segment where that can be.
async fn begin(
    files: &Files,
    directory: &Directory,
    links: Vec<Link>,
    replay: &mut Replay,
    geometry: &Geometry,
) -> Result<State, Error> {
    let last = links.last().map_or(0, |link| match link.content {
        Content::Lost { to, .. } => to,
        _ => link.number,
    });
    let next = last.max(directory.last()) + 1;
    let mut fresh = Fresh {
        number: next.max(replay.low),
        previous: Previous::default(),
        low: next.max(replay.low),
        oldest: replay.oldest,
        tally: replay.tally,
        life: replay.life + 1,
    };
    let needed = links.into_iter().filter(|link| link.number >= replay.low);
    let mut needed: Vec<Link> = needed.collect();
    let tail = match needed.pop() {
        Some(link) if !replay.unbounded => link,
        _ => {
            if replay.unbounded {
                fresh.oldest = UNKNOWN;
                replay.points.clear();
                replay.suspects.clear();
            }
            let current = make(files, &fresh).await?;
            return Ok(state(BTreeMap::new(), current, fresh, replay));
        }
    };
    let mut sealed = BTreeMap::new();
    for link in needed {
        if let Some(one) = seal(link, geometry)? {
            sealed.insert(one.segment.number, Rc::new(one));
        }
    }
    fresh.low = replay.low.max(sealed.first_key_value().map_or(tail.number, |(n, _)| *n));
    let header = tail.header.clone();
    let Content::Scanned { segment, file, scan, .. } = tail.content else {
        // The last place is a walked segment, unless something is lost after it.
        return Err(Error::Config("the newest segment cannot be read".into()));
    };
    let settled = settle(&file, &scan).await;
    settled.map_err(|e| Error::io("settle", &segment.path, e))?;
    let synced = files.ctx.storage.sync_dir(&files.dir).await;
    synced.map_err(|e| Error::io("sync", &files.dir, e))?;
    let current = if header.is_some() {
        go_on(segment, file, *scan, replay, geometry).await?
    } else {
        // Nobody would vouch for it any more.
        fresh.previous = Previous { number: segment.number, nonce: segment.nonce, end: scan.end };
        let link = Content::Scanned { segment, file, scan, open_end: false };
        if let Some(one) = seal(Link { number: tail.number, header, content: link }, geometry)? {
            sealed.insert(one.segment.number, Rc::new(one));
        }
        make(files, &fresh).await?
    };
    Ok(state(sealed, current, fresh, replay))
}

async fn make(files: &Files, fresh: &Fresh) -> Result<Current, Error> {
    let (segment, file) = match files.make(fresh).await {
        Ok(made) => made,
        Err(MakeError::NoSpace) => {
            return Err(Error::NoSpace { path: files.dir.clone(), bytes: RECORDS_START });
        }
        Err(MakeError::Io(action, error)) => return Err(Error::io(action, &files.dir, error)),
    };
    let mut current = Current::new(segment, file, RECORDS_START);
    current.before = fresh.tally;
    Ok(current)
}

fn state(
    sealed: BTreeMap<u64, Rc<Sealed>>,
    current: Current,
    fresh: Fresh,
    replay: &Replay,
) -> State {
    let mut captured = Captured::default();
    for entry in current.entries.values() {
        captured.insert(Moment::after(entry.commit), entry.span());
    }
    captured.trim();
    State {
        sealed,
        current,
        tally: fresh.tally,
        life: fresh.life,
        low: fresh.low,
        oldest: fresh.oldest,
        points: replay.points.clone(),
        captured,
        failed: None,
    }
}

/// A segment that is not written any more, as it was read.
fn seal(link: Link, geometry: &Geometry) -> Result<Option<Sealed>, Error> {
    Ok(match link.content {
        Content::Lost { .. } => None,
        Content::Indexed { segment, head, body, bytes } => Some(Sealed {
            segment,
            bytes,
            end: head.records_end,
            summary: Summary {
                entries: head.entries,
                least: head.least,
                most: head.most,
                longest: head.longest,
                touched: body.touched,
            },
            index: RefCell::new(Index::Disk { at: head.block_at(0), fences: body.fences }),
        }),
        Content::Scanned { segment, file, scan, .. } => {
            let bytes = file.len().map_err(|e| Error::io("measure", &segment.path, e))?;
            let (end, mut entries) = (scan.end, scan.entries);
            entries.sort_unstable_by_key(Entry::key);
            let summary = Summary::of(&entries, geometry);
            let index = RefCell::new(Index::Memory(Rc::new(entries)));
            Some(Sealed { segment, bytes, end, summary, index })
        }
    })
}

/// Makes what was found in the last segment durable, and cuts what was not. Records beyond what is known
/// to be durable are written once more: after a failed sync they may be in the page cache alone, where
/// another sync would not move them.
async fn settle(file: &Rc<dyn File>, scan: &Scan) -> io::Result<()> {
    let mut at = scan.durable.min(scan.end);
    let mut changed = at < scan.end;
    while at < scan.end {
        let len = CHUNK.min(scan.end - at);
        let bytes = file.read_at(at, len as usize).await?;
        file.write_at(at, Bytes::from(bytes)).await?;
        at += len;
    }
    if file.len()? != scan.end {
        file.set_len(scan.end).await?;
        changed = true;
    }
    match changed {
        true => file.sync_data().await,
        false => Ok(()),
    }
}

/// The last segment, to be written on.
async fn go_on(
    segment: Rc<Segment>,
    file: Rc<dyn File>,
    scan: Scan,
    replay: &Replay,
    geometry: &Geometry,
) -> Result<Current, Error> {
    let mark = super::segment::read_mark(&file, &segment.nonce).await;
    let mark = mark.map_err(|e| Error::io("read", &segment.path, e))?;
    let nonce = segment.nonce;
    let mut current = Current::new(segment, file, scan.end);
    (current.tail, current.durable) = (scan.end, scan.end);
    current.generation = mark.map_or(0, |mark| mark.generation);
    current.before = scan.first.unwrap_or(replay.tally);
    for entry in scan.entries {
        current.add(entry, geometry);
    }
    for item in scan.items {
        if let Item::Event { header, payload } = item {
            current.events.push(event(&header, &payload, &nonce));
        }
    }
    Ok(current)
}

fn event(header: &RecordHeader, payload: &[u8], nonce: &crate::layout::Nonce) -> Vec<u8> {
    let mut event = header.encode(nonce);
    event.extend_from_slice(payload);
    event
}
