//! The oracle: every write of the application, and what may therefore stand in each cell of the
//! source's volumes.
//!
//! A write is *issued*, then maybe *acknowledged*, then maybe *durable*: a flush that was asked for after
//! its acknowledgement came back well, or the write itself was durable. Of a cell, a write is *superseded*
//! when another one was issued after it had ended and is known to count. What is known to count depends
//! on what happened: after a power cut what is durable, else what was acknowledged.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};

use disk::simulated::FileContent;
use grain::{CutId, Geometry, GrainSet, VolumeId};

use crate::cells::{self, CELL};

/// What is known to count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Counts {
    /// What was acknowledged: the process or at least the page cache lives.
    Acknowledged,
    /// What is durable: the power was cut.
    Durable,
}

/// One write.
#[derive(Clone, Debug)]
struct Write {
    zero: bool,
    volume: VolumeId,
    grains: std::ops::Range<u64>,
    issued: u64,
    ended: Option<u64>,
    acknowledged: bool,
    durable: bool,
}

/// What a crash or a rollback takes back.
#[derive(Clone)]
pub struct Memory {
    writes: Vec<Write>,
    /// By volume and place; a cell that is not there was never written.
    cells: Vec<BTreeMap<u64, Vec<u32>>>,
    first_loose: usize,
    /// What was issued before a sync that failed may be lost for good, whenever it is answered.
    doubtful_before: u64,
}

/// The volumes at a cut.
#[derive(Clone)]
pub struct AtCut {
    /// One a volume.
    pub volumes: Vec<FileContent>,
    /// The time of the oracle.
    time: u64,
}

/// See the module's text.
#[derive(Clone)]
pub struct Oracle {
    geometry: Geometry,
    memory: RefCell<Memory>,
    time: Cell<u64>,
    cuts: RefCell<BTreeMap<CutId, AtCut>>,
}

impl Oracle {
    /// Volumes of zeros.
    pub fn new(geometry: &Geometry) -> Oracle {
        let zero = Write {
            zero: true,
            volume: VolumeId(0),
            grains: 0..0,
            issued: 0,
            ended: Some(0),
            acknowledged: true,
            durable: true,
        };
        let cells = geometry.volumes.iter().map(|_| BTreeMap::new()).collect();
        let memory = Memory { writes: vec![zero], cells, first_loose: 1, doubtful_before: 0 };
        Oracle {
            geometry: geometry.clone(),
            memory: RefCell::new(memory),
            time: Cell::new(1),
            cuts: RefCell::default(),
        }
    }

    /// The present instant; nothing was told since, where it is the same.
    pub fn now(&self) -> u64 {
        self.time.get()
    }

    fn tick(&self) -> u64 {
        self.time.replace(self.time.get() + 1)
    }

    /// A write is asked for; gives its number.
    pub fn issue(&self, volume: VolumeId, offset: u64, len: u64, zero: bool) -> u32 {
        let memory = &mut *self.memory.borrow_mut();
        let number = memory.writes.len() as u32;
        let grains = self.geometry.grain.touched(offset, len);
        let issued = self.tick();
        let write = Write {
            zero,
            volume,
            grains,
            issued,
            ended: None,
            acknowledged: false,
            durable: false,
        };
        memory.writes.push(write);
        let Memory { writes, cells, .. } = memory;
        for index in offset / CELL..(offset + len).div_ceil(CELL) {
            let cell = cells[volume.index()].entry(index).or_insert_with(|| vec![0]);
            if cell.len() >= 6 {
                prune(writes, cell);
            }
            cell.push(number);
        }
        number
    }

    /// A write was answered; `durable` says that the answer promises that.
    pub fn acknowledge(&self, write: u32, durable: bool) {
        let time = self.tick();
        let memory = &mut *self.memory.borrow_mut();
        if let Some(write) = memory.writes.get_mut(write as usize) {
            write.ended = Some(time);
            write.acknowledged = durable || write.issued >= memory.doubtful_before;
            write.durable |= durable;
        }
    }

    /// A write failed: it may be there or not, or in part; it changes nothing any more.
    pub fn failed(&self, write: u32) {
        let time = self.tick();
        if let Some(write) = self.memory.borrow_mut().writes.get_mut(write as usize) {
            write.ended = Some(time);
        }
    }

    /// A flush is asked for; give its answer to [`Oracle::flushed`].
    pub fn flush_begins(&self) -> u64 {
        self.tick()
    }

    /// The flush that began then came back well.
    pub fn flushed(&self, begun: u64) {
        let memory = &mut *self.memory.borrow_mut();
        for write in &mut memory.writes[memory.first_loose..] {
            write.durable |= write.acknowledged && write.ended.is_some_and(|ended| ended < begun);
        }
        while memory.writes.get(memory.first_loose).is_some_and(|write| write.durable) {
            memory.first_loose += 1;
        }
    }

    /// A sync of the volumes fails: what is not durable by now may never be, whatever later flushes say,
    /// and the application was told.
    pub fn sync_failed(&self) {
        let time = self.tick();
        let memory = &mut *self.memory.borrow_mut();
        for write in memory.writes.iter_mut().filter(|write| !write.durable) {
            write.acknowledged = false;
        }
        memory.doubtful_before = time;
    }

    /// The process of the source is gone: nothing is under way any more.
    pub fn process_gone(&self) {
        let time = self.tick();
        for write in self.memory.borrow_mut().writes.iter_mut().filter(|w| w.ended.is_none()) {
            write.ended = Some(time);
        }
    }

    /// The power was cut: what is on the disk now is all there is.
    pub fn settle(&self, volumes: &[FileContent]) {
        let time = self.tick();
        let memory = &mut *self.memory.borrow_mut();
        let Memory { writes, cells, .. } = memory;
        for (volume, content) in volumes.iter().enumerate() {
            for (index, cell) in cells[volume].iter_mut().filter(|(_, cell)| cell.len() > 1) {
                let mut bytes = [0; CELL as usize];
                let bytes = cell_of(content, *index, &mut bytes);
                let Ok(found) = cells::read(volume as u16, *index, bytes) else { continue };
                let found = match found {
                    0 => cell.iter().copied().rev().find(|w| writes[*w as usize].zero),
                    found => Some(found),
                };
                *cell = vec![found.unwrap_or(0)];
            }
        }
        for write in writes.iter_mut() {
            (write.durable, write.acknowledged) = (true, true);
            write.ended = write.ended.or(Some(time));
        }
        memory.first_loose = writes.len();
    }

    /// Whether every cell holds what it may.
    pub fn check(&self, volumes: &[FileContent], counts: Counts) -> Result<(), String> {
        let memory = &*self.memory.borrow();
        memory.check(volumes, counts, u64::MAX)?;
        for (volume, content) in volumes.iter().enumerate() {
            // Where nobody wrote nothing stands.
            for (number, page) in content.pages() {
                let cells = page.chunks(CELL as usize).zip(number * 4096 / CELL..);
                for (_, index) in cells.filter(|(bytes, _)| bytes.iter().any(|b| *b != 0)) {
                    let inside = index * CELL < content.len();
                    if inside && !memory.cells[volume].contains_key(&index) {
                        return Err(format!("cell {index} of volume {volume} was never written"));
                    }
                }
            }
        }
        Ok(())
    }

    /// Whether these volumes are what the source held at an instant after the cut, as far as an application
    /// can tell: whatever ended before the newest write in them was asked for is in them.
    pub fn check_after(&self, cut: CutId, volumes: &[FileContent]) -> Result<(), String> {
        let memory = &*self.memory.borrow();
        let at_cut = self.cuts.borrow().get(&cut).map(|at| at.time);
        let mut instant = at_cut.ok_or_else(|| format!("no cut {cut} was ever made"))?;
        for (volume, content) in volumes.iter().enumerate() {
            for index in memory.cells[volume].keys() {
                let mut bytes = [0; CELL as usize];
                let found =
                    cells::read(volume as u16, *index, cell_of(content, *index, &mut bytes))?;
                let write = memory.writes.get(found as usize);
                instant = instant.max(write.map_or(0, |write| write.issued));
            }
        }
        memory.check(volumes, Counts::Acknowledged, instant)
    }

    /// Whether what a read brought may be: nothing older than what was acknowledged before it began.
    pub fn check_read(
        &self,
        volume: VolumeId,
        at: u64,
        bytes: &[u8],
        begun: u64,
    ) -> Result<(), String> {
        let memory = &*self.memory.borrow();
        for (number, cell) in bytes.chunks(CELL as usize).enumerate() {
            let index = at / CELL + number as u64;
            let writes = memory.cells[volume.index()].get(&index).map_or(&[0][..], Vec::as_slice);
            let counts = Counts::Acknowledged;
            memory.check_cell(volume.index(), index, writes, cell, counts, begun)?;
        }
        Ok(())
    }

    /// A cut was made just now: the volumes as they are.
    pub fn cut(&self, cut: CutId, volumes: Vec<FileContent>) {
        let time = self.tick();
        self.cuts.borrow_mut().entry(cut).or_insert(AtCut { volumes, time });
    }

    /// How many grains differ between two cuts.
    pub fn changed_between(&self, from: CutId, to: CutId) -> Option<u64> {
        let cuts = self.cuts.borrow();
        let (from, to) = (cuts.get(&from)?, cuts.get(&to)?);
        let mut changed = 0;
        for (a, b) in from.volumes.iter().zip(&to.volumes) {
            let pages: BTreeSet<u64> = a.pages().chain(b.pages()).map(|(page, _)| page).collect();
            // A page of zeros may be there or not.
            let is = |one: Option<&[u8]>, byte: usize| one.map_or(0, |page| page[byte]);
            let differs =
                |page: &u64| (0..4096).any(|at| is(a.page(*page), at) != is(b.page(*page), at));
            let unequal = pages.into_iter().filter(|page| a.page(*page) != b.page(*page));
            changed += unequal.filter(differs).count();
        }
        Some(changed as u64)
    }

    /// When a cut was made; cuts that came later have a later time.
    pub fn time_of(&self, cut: CutId) -> Option<u64> {
        Some(self.cuts.borrow().get(&cut)?.time)
    }

    /// Whether a cut is known.
    pub fn knows(&self, cut: CutId) -> bool {
        self.cuts.borrow().contains_key(&cut)
    }

    /// Names the first grain in which `volumes` differ from the source at `cut`.
    pub fn differs_from_cut(&self, cut: CutId, volumes: &[FileContent]) -> Option<String> {
        let cuts = self.cuts.borrow();
        let Some(at) = cuts.get(&cut) else { return Some(format!("no cut {cut} was ever made")) };
        difference(&at.volumes, volumes, self.geometry.grain.bytes())
    }

    /// A grain range of the volumes at a cut.
    pub fn at_cut(&self, cut: CutId, volume: VolumeId, offset: u64, buf: &mut [u8]) -> bool {
        let cuts = self.cuts.borrow();
        let Some(content) = cuts.get(&cut).and_then(|at| at.volumes.get(volume.index())) else {
            return false;
        };
        content.read(offset, buf);
        true
    }

    /// Every grain that a write touches which had not ended at the cut, or came after it.
    pub fn written_since(&self, cut: CutId) -> Option<GrainSet> {
        let time = self.cuts.borrow().get(&cut)?.time;
        let mut grains = GrainSet::new();
        for write in &self.memory.borrow().writes {
            if write.ended.is_none_or(|ended| ended > time) {
                let (volume, Some(count)) =
                    (write.volume, write.grains.end.checked_sub(write.grains.start))
                else {
                    continue;
                };
                grains.insert_run(grain::Run { volume, first: write.grains.start, count });
            }
        }
        Some(grains)
    }

    /// What would have to be forgotten if the source's machine went back to this instant.
    pub fn remember(&self) -> Memory {
        self.memory.borrow().clone()
    }

    /// The source's machine went back.
    pub fn roll_back(&self, memory: &Memory) {
        let newer = self.memory.borrow().writes.len();
        let mut memory = memory.clone();
        // Numbers of writes that were rolled back are not used again.
        let lost = memory.writes[0].clone();
        memory.writes.resize(newer, lost);
        *self.memory.borrow_mut() = memory;
    }
}

impl Memory {
    /// Whether every cell holds what it may; only what ended `before` then supersedes.
    pub fn check(
        &self,
        volumes: &[FileContent],
        counts: Counts,
        before: u64,
    ) -> Result<(), String> {
        for (volume, content) in volumes.iter().enumerate() {
            for (index, cell) in &self.cells[volume] {
                let mut bytes = [0; CELL as usize];
                let bytes = cell_of(content, *index, &mut bytes);
                self.check_cell(volume, *index, cell, bytes, counts, before)?;
            }
        }
        Ok(())
    }

    /// `before`: only what ended before then supersedes.
    fn check_cell(
        &self,
        volume: usize,
        index: u64,
        cell: &[u32],
        bytes: &[u8],
        counts: Counts,
        before: u64,
    ) -> Result<(), String> {
        let found = cells::read(volume as u16, index, bytes)?;
        let is_found = |write: &&u32| match found {
            0 => self.writes[**write as usize].zero,
            found => **write == found,
        };
        if cell.len() == 1 && is_found(&&cell[0]) {
            return Ok(());
        }
        let counts = |write: &Write| match counts {
            Counts::Acknowledged => {
                (write.acknowledged || write.durable) && write.ended.is_some_and(|e| e < before)
            }
            Counts::Durable => write.durable,
        };
        let superseded = |write: &Write| {
            let newer = |other: &&u32| {
                let other = &self.writes[**other as usize];
                counts(other) && write.ended.is_some_and(|ended| other.issued > ended)
            };
            cell.iter().find(newer).copied()
        };
        let may_stand = |write: &&u32| superseded(&self.writes[**write as usize]).is_none();
        if cell.iter().filter(is_found).any(|write| may_stand(&write)) {
            return Ok(());
        }
        // The list keeps only what may stand there now; a read that takes long may bring what stood
        // there when it began.
        let grain = index * CELL / crate::shape::GRAIN;
        let was_there = |(number, write): &(usize, &Write)| match found {
            0 => {
                let touches = write.volume.index() == volume && write.grains.contains(&grain);
                write.zero && (*number == 0 || touches)
            }
            found => *number == found as usize,
        };
        let mut newest = None;
        for (_, write) in self.writes.iter().enumerate().filter(was_there) {
            match superseded(write) {
                None => return Ok(()),
                by => newest = by,
            }
        }
        Err(format!(
            "cell {index} (grain {}) of volume {volume} holds write {found}, {}; writes there: {cell:?}",
            index * CELL / crate::shape::GRAIN,
            match newest {
                Some(by) => format!("although write {by} counts"),
                None => "which was never issued there".to_owned(),
            }
        ))
    }
}

/// Takes out of a cell's list what a durable write supersedes.
fn prune(writes: &[Write], cell: &mut Vec<u32>) {
    let kept: Vec<u32> = cell
        .iter()
        .filter(|write| {
            let ended = writes[**write as usize].ended;
            !cell.iter().any(|other| {
                let other = &writes[*other as usize];
                other.durable && ended.is_some_and(|ended| other.issued > ended)
            })
        })
        .copied()
        .collect();
    *cell = kept;
}

/// The bytes of a cell.
fn cell_of<'a>(content: &FileContent, index: u64, into: &'a mut [u8; CELL as usize]) -> &'a [u8] {
    let len = (content.len() - index * CELL).min(CELL) as usize;
    content.read(index * CELL, &mut into[..len]);
    &into[..len]
}

/// Names the grains (of a page each) in which two sets of volumes differ.
pub fn difference(left: &[FileContent], right: &[FileContent], grain: u64) -> Option<String> {
    let mut grains = Vec::new();
    for (volume, (a, b)) in left.iter().zip(right).enumerate() {
        if a.len() != b.len() {
            return Some(format!("volume {volume} has {} and {} bytes", a.len(), b.len()));
        }
        let (mut x, mut y) = (vec![0; grain as usize], vec![0; grain as usize]);
        let pages: BTreeSet<u64> = a.pages().chain(b.pages()).map(|(page, _)| page).collect();
        for index in pages.into_iter().filter(|page| page * grain < a.len()) {
            if a.page(index) == b.page(index) {
                continue;
            }
            let len = (a.len() - index * grain).min(grain) as usize;
            a.read(index * grain, &mut x[..len]);
            b.read(index * grain, &mut y[..len]);
            if x[..len] != y[..len] {
                let of = |bytes: &[u8]| {
                    let cells = bytes.chunks(CELL as usize).zip(index * grain / CELL..);
                    let mut found: Vec<String> = cells
                        .map(|(cell, at)| match cells::read(volume as u16, at, cell) {
                            Ok(write) => write.to_string(),
                            Err(_) => "?".to_owned(),
                        })
                        .collect();
                    found.dedup();
                    found.join(",")
                };
                grains.push(format!(
                    "{volume}/{index} ({} against {})",
                    of(&x[..len]),
                    of(&y[..len])
                ));
            }
        }
    }
    (!grains.is_empty()).then(|| format!("grains differ: {}", grains.join("; ")))
}
