//! Reading what is committed: for those who read through the journal, and for the walk that brings it
//! into the base.

use std::cell::Cell;
use std::rc::Rc;

use disk::Context;
use grain::{Content, Geometry, GrainSet, Run, Span, SpanData, VolumeId};

use crate::index::{Place, Stretch};
use crate::segment::{ReadError, Segment};
use crate::{Error, Journal, Moment};

/// The most pieces of a batch.
const BATCH_PIECES: usize = 4096;

/// Bytes that count and whose newest version stands in the journal.
#[derive(Clone)]
pub struct Piece {
    span: Span,
    stretch: Stretch,
    /// Keeps the segment's file from being recycled.
    segment: Option<Rc<Segment>>,
    journal: Rc<Journal>,
}

/// Pieces to be written to the base. Dropping it without [`Journal::applied`] gives them back.
pub struct ApplyBatch {
    moment: Moment,
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
    /// Which bytes.
    pub fn span(&self) -> Span {
        self.span
    }

    /// The grains that they lie in.
    pub fn grains(&self) -> Run {
        self.journal.geometry.touched_by(self.span)
    }

    /// True when they are all zeros.
    pub fn is_zero(&self) -> bool {
        self.stretch.zero
    }

    /// The number of the commit that made this version count, or that its stream follows.
    pub fn commit(&self) -> u64 {
        self.stretch.commit
    }

    /// Reads the bytes and checks them against the digest with which they came.
    ///
    /// # Errors
    /// [`Error::Damaged`] when they are not what was written: these grains are to be counted as
    /// missing. [`Error::Io`] when the disk cannot read them.
    pub async fn read(&self) -> Result<SpanData, Error> {
        let span = self.span;
        let Some(segment) = self.segment.as_ref().filter(|_| !self.stretch.zero) else {
            return Ok(SpanData { span, content: Content::Zero });
        };
        let (ctx, geometry) = (&self.journal.ctx, &self.journal.geometry);
        match read_stretch(ctx, geometry, segment, span, &self.stretch).await {
            Ok(content) => Ok(SpanData { span, content }),
            Err(ReadError::Io(error)) => Err(Error::io("read", &self.journal.config.dir, error)),
            Err(ReadError::Damaged(what)) => {
                let Place { segment, offset } = self.stretch.place;
                let run = self.grains();
                self.journal.state.borrow_mut().counters.damaged_grains += run.count;
                tracing::error!(segment, offset, ?run, "journal: {what}");
                Err(Error::Damaged { segment, offset, what, run })
            }
        }
    }
}

async fn read_stretch(
    ctx: &Context,
    geometry: &Geometry,
    segment: &Segment,
    span: Span,
    stretch: &Stretch,
) -> Result<Content, ReadError> {
    let (header, payload) = segment.read_record(ctx, stretch.place.offset).await?;
    let found = header.span(geometry).filter(|_| !header.is_zero());
    let begins = found.filter(|f| f.volume == span.volume).map(|f| f.start);
    if begins.and_then(|start| start.checked_add(stretch.skip)) != Some(span.start) {
        return Err(ReadError::Damaged("another record stands there"));
    }
    let (from, to) = (stretch.skip as usize, (stretch.skip + span.bytes) as usize);
    if payload.get(from..to).is_none() {
        return Err(ReadError::Damaged("the payload is shorter than its bytes"));
    }
    Ok(Content::Data(payload.slice(from..to)))
}

impl ApplyBatch {
    /// The moment that the base leaves with these pieces: everything from before it is in the base.
    pub fn moment(&self) -> Moment {
        self.moment
    }

    /// How many pieces; at least 1.
    pub fn len(&self) -> usize {
        self.pieces.len()
    }

    /// Never true.
    pub fn is_empty(&self) -> bool {
        self.pieces.is_empty()
    }

    /// The pieces in address order; no two share a byte.
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
    pub async fn read(&self, i: usize) -> Result<SpanData, Error> {
        self.pieces[i].read().await
    }
}

impl Journal {
    /// The parts of `span` that count and are not known to be in the base, in address order. To read
    /// through the journal, read the base first where nothing is returned, and these elsewhere.
    pub fn lookup(self: &Rc<Self>, span: Span) -> Vec<Piece> {
        self.pieces_of(span, None)
    }

    /// The same as it was at `moment`: without what came after it.
    pub fn lookup_at(self: &Rc<Self>, moment: Moment, span: Span) -> Vec<Piece> {
        self.pieces_of(span, Some(moment))
    }

    fn pieces_of(self: &Rc<Self>, span: Span, before: Option<Moment>) -> Vec<Piece> {
        let found = self.state.borrow().index.lookup(span, before);
        found.into_iter().map(|(span, stretch)| self.piece(span, stretch)).collect()
    }

    /// Somebody wants to look at what counts now: everything that comes is kept apart from it, and the base
    /// passes through it. Gives the moment.
    pub fn split(&self) -> Moment {
        let mut state = self.state.borrow_mut();
        // Not after the newest commit record: one that is being written is laid down after this look.
        let now = state.index.moment();
        let moment = Moment { split: now.split + 1, ..now };
        state.index.split(moment);
        moment
    }

    /// The moment after which what comes now is laid down.
    pub fn moment(&self) -> Moment {
        self.state.borrow().index.moment()
    }

    fn piece(self: &Rc<Self>, span: Span, stretch: Stretch) -> Piece {
        let segment = self.state.borrow().segments.get(&stretch.place.segment).cloned();
        Piece { span, stretch, segment, journal: self.clone() }
    }

    /// The grains of which something counts and is not known to be in the base.
    pub fn waiting_grains(&self) -> GrainSet {
        let state = self.state.borrow();
        let volumes = self.geometry.iter();
        let whole = volumes.map(|(volume, v)| Span { volume, start: 0, bytes: v.bytes });
        let spans = whole.flat_map(|span| state.index.lookup(span, None));
        spans.map(|(span, _)| self.geometry.touched_by(span)).collect()
    }

    /// Whether everything that counts is in the base.
    pub fn is_applied(&self) -> bool {
        self.state.borrow().index.is_empty()
    }

    /// The next pieces to bring into the base: of each byte the newest version only (of each generation, where
    /// there are several: see [`Journal::split`]), in address order, going round the volumes. About `max_bytes` of data, at least one piece. `None` when all
    /// is applied, or while another batch is out.
    pub fn next_apply(self: &Rc<Self>, max_bytes: u64) -> Option<ApplyBatch> {
        if self.applying.get() {
            return None;
        }
        let mut chosen: Vec<(Span, Stretch)> = Vec::new();
        let moment;
        {
            let mut state = self.state.borrow_mut();
            let start = (VolumeId(0), 0);
            let (oldest, index) = state.index.oldest();
            let cursor = match index.from(state.cursor).next() {
                Some(_) => state.cursor,
                None => start,
            };
            moment = oldest;
            let mut bytes = 0;
            for (span, stretch) in index.from(cursor).take(BATCH_PIECES) {
                let own = if stretch.zero { 0 } else { span.bytes };
                if !chosen.is_empty() && bytes + own > max_bytes {
                    break;
                }
                bytes += own;
                chosen.push((span, stretch));
            }
            if let Some((span, _)) = chosen.last() {
                state.cursor = (span.volume, span.end());
            }
        }
        if chosen.is_empty() {
            return None;
        }
        self.applying.set(true);
        let pieces = chosen.into_iter().map(|(span, stretch)| self.piece(span, stretch)).collect();
        Some(ApplyBatch { moment, pieces, _out: Out(self.applying.clone()) })
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
                state.index.remove(batch.moment, piece.span, |now| match done.zero {
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
