//! Reading what is committed: for those who read through the journal, and for the walk that brings it
//! into the base.

use std::cell::Cell;
use std::rc::Rc;

use disk::Context;
use grain::{Content, Geometry, GrainData, Run, VolumeId};

use crate::index::{Place, Stretch};
use crate::segment::{ReadError, Segment};
use crate::{Error, Journal};

/// The most pieces of a batch.
const BATCH_PIECES: usize = 4096;

/// Committed grains whose newest version stands in the journal.
#[derive(Clone)]
pub struct Piece {
    run: Run,
    stretch: Stretch,
    /// Keeps the segment's file from being recycled.
    segment: Option<Rc<Segment>>,
    journal: Rc<Journal>,
}

/// Pieces to be written to the base. Dropping it without [`Journal::applied`] gives them back.
pub struct ApplyBatch {
    pieces: Vec<Piece>,
    _out: Out,
}

/// Clears the flag when the batch goes away.
struct Out(Rc<Cell<bool>>);

impl Drop for Out {
    fn drop(&mut self) {
        self.0.set(false);
    }
}

impl Piece {
    /// Which grains.
    pub fn run(&self) -> Run {
        self.run
    }

    /// True when the grains are all zeros.
    pub fn is_zero(&self) -> bool {
        self.stretch.zero
    }

    /// The number of the commit that made this version count.
    pub fn commit(&self) -> u64 {
        self.stretch.commit
    }

    /// Reads the grains and checks them against the digest with which they came.
    ///
    /// # Errors
    /// [`Error::Damaged`] when they are not what was written: these grains are to be counted as
    /// missing. [`Error::Io`] when the disk cannot read them.
    pub async fn read(&self) -> Result<GrainData, Error> {
        let Some(segment) = self.segment.as_ref().filter(|_| !self.stretch.zero) else {
            return Ok(GrainData { run: self.run, content: Content::Zero });
        };
        let content = read_stretch(
            &self.journal.ctx,
            &self.journal.geometry,
            segment,
            self.run,
            &self.stretch,
        );
        match content.await {
            Ok(content) => Ok(GrainData { run: self.run, content }),
            Err(ReadError::Io(error)) => Err(Error::io("read", &self.journal.config.dir, error)),
            Err(ReadError::Damaged(what)) => {
                let Place { segment, offset } = self.stretch.place;
                self.journal.state.borrow_mut().counters.damaged_grains += self.run.count;
                tracing::error!(segment, offset, run = ?self.run, "journal: {what}");
                Err(Error::Damaged { segment, offset, what, run: self.run })
            }
        }
    }
}

async fn read_stretch(
    ctx: &Context,
    geometry: &Geometry,
    segment: &Segment,
    run: Run,
    stretch: &Stretch,
) -> Result<Content, ReadError> {
    let (header, payload) = segment.read_record(ctx, stretch.place.offset).await?;
    let whole = Run {
        volume: run.volume,
        first: run.first.saturating_sub(stretch.skip),
        count: header.run.count,
    };
    if header.run != whole || !header.is_copy() {
        return Err(ReadError::Damaged("another record stands there"));
    }
    let base = geometry.byte_range(run.volume, whole.first, whole.count).start;
    let range = geometry.byte_range(run.volume, run.first, run.count);
    let (from, to) = ((range.start - base) as usize, (range.end - base) as usize);
    if payload.get(from..to).is_none() {
        return Err(ReadError::Damaged("the payload is shorter than its grains"));
    }
    Ok(Content::Data(payload.slice(from..to)))
}

impl ApplyBatch {
    /// How many pieces; at least 1.
    pub fn len(&self) -> usize {
        self.pieces.len()
    }

    /// Never true.
    pub fn is_empty(&self) -> bool {
        self.pieces.is_empty()
    }

    /// The pieces in address order; no two share a grain.
    pub fn pieces(&self) -> &[Piece] {
        &self.pieces
    }

    /// Reads piece `i`; see [`Piece::read`].
    ///
    /// # Errors
    /// Those of [`Piece::read`].
    ///
    /// # Panics
    /// When there is no such piece.
    pub async fn read(&self, i: usize) -> Result<GrainData, Error> {
        self.pieces[i].read().await
    }
}

impl Journal {
    /// The parts of `run` that are committed and not known to be in the base, in address order. To
    /// read through the journal, read the base first where nothing is returned, and these elsewhere.
    pub fn lookup(self: &Rc<Self>, run: Run) -> Vec<Piece> {
        let found = self.state.borrow().index.lookup(run);
        found.into_iter().map(|(run, stretch)| self.piece(run, stretch)).collect()
    }

    fn piece(self: &Rc<Self>, run: Run, stretch: Stretch) -> Piece {
        let segment = self.state.borrow().segments.get(&stretch.place.segment).cloned();
        Piece { run, stretch, segment, journal: self.clone() }
    }

    /// Whether everything committed is in the base.
    pub fn is_applied(&self) -> bool {
        self.state.borrow().index.is_empty()
    }

    /// The next pieces to bring into the base: of each grain the newest version only, in address
    /// order, going round the volumes. About `max_bytes` of data, at least one piece. `None` when all
    /// is applied, or while another batch is out.
    pub fn next_apply(self: &Rc<Self>, max_bytes: u64) -> Option<ApplyBatch> {
        if self.applying.get() {
            return None;
        }
        let mut chosen: Vec<(Run, Stretch)> = Vec::new();
        {
            let mut state = self.state.borrow_mut();
            let start = (VolumeId(0), 0);
            if state.index.from(state.cursor).next().is_none() {
                state.cursor = start;
            }
            let mut bytes = 0;
            for (run, stretch) in state.index.from(state.cursor).take(BATCH_PIECES) {
                let range = self.geometry.byte_range(run.volume, run.first, run.count);
                let own = if stretch.zero { 0 } else { range.end - range.start };
                if !chosen.is_empty() && bytes + own > max_bytes {
                    break;
                }
                bytes += own;
                chosen.push((run, stretch));
            }
            if let Some((run, _)) = chosen.last() {
                state.cursor = (run.volume, run.end());
            }
        }
        if chosen.is_empty() {
            return None;
        }
        self.applying.set(true);
        let pieces = chosen.into_iter().map(|(run, stretch)| self.piece(run, stretch)).collect();
        Some(ApplyBatch { pieces, _out: Out(self.applying.clone()) })
    }

    /// The caller has written the batch to the base **and synced the base** (damaged pieces: durably
    /// counted as missing). Segments that nothing needs any more are given up. When this fails or a
    /// crash comes, the same grains are applied again later, which does no harm.
    ///
    /// # Errors
    /// [`Error::Failed`].
    pub async fn applied(self: &Rc<Self>, batch: ApplyBatch) -> Result<(), Error> {
        {
            let mut state = self.state.borrow_mut();
            for piece in &batch.pieces {
                let done = piece.stretch;
                // A newer version that came meanwhile stays. Joined zeros have lost their place.
                state.index.remove(piece.run, |now| match done.zero {
                    true => now.zero && now.commit == done.commit,
                    false => now.place == done.place,
                });
            }
        }
        drop(batch);
        let journal = self.clone();
        self.detached(async move { journal.collect().await }).await
    }

    /// Makes durable what has been applied so far: on return no opening gives out again what was
    /// applied before the call. For owners who write the base by another way from here on.
    ///
    /// # Errors
    /// [`Error::Failed`].
    pub async fn settle(self: &Rc<Self>) -> Result<(), Error> {
        let target = {
            let mut state = self.state.borrow_mut();
            state.check()?;
            state.advance();
            if state.progress != state.progress_durable {
                state.queue_mark();
            }
            state.progress.applied
        };
        self.pump();
        self.sync_until(|state| state.progress_durable.applied >= target).await
    }
}
