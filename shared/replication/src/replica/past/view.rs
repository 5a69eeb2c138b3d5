//! A view: the replica as it was at one moment, while the mirroring goes on.

use std::cell::RefCell;
use std::rc::Rc;

use bytes::{Bytes, BytesMut};
use grain::{Content, Span, SpanData};
use journal::Moment;
use journal::history::History;

use super::{At, Past, PastPoint, Replica, Retain};
use crate::{Error, Result};

/// Bytes whose allocation is told at a time.
const ALLOCATION: u64 = 1 << 30;

/// What a view holds on to.
pub(super) struct Looking {
    moment: Moment,
    ended: RefCell<Option<String>>,
}

/// What a view shows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Seen {
    /// Everything that counted when it was opened, after this cut.
    Latest {
        /// The newest cut then.
        after: PastPoint,
    },
    /// A point.
    Point(PastPoint),
}

/// The volumes of a replica at one moment; see the module's text. Whoever drops it lets its history go.
pub struct View {
    replica: Rc<Replica>,
    history: Rc<History>,
    looking: Rc<Looking>,
    seen: Seen,
}

impl Looking {
    pub(super) fn at(moment: Moment) -> Looking {
        Looking { moment, ended: RefCell::default() }
    }
}

impl Past {
    pub(super) fn lookers(&self) -> Vec<Rc<Looking>> {
        let mut views = self.views.borrow_mut();
        views.retain(|view| view.strong_count() > 0);
        let open = views.iter().filter_map(std::rc::Weak::upgrade);
        open.filter(|view| view.ended.borrow().is_none()).collect()
    }

    /// The oldest moment that somebody looks at.
    pub(super) fn oldest_view(&self) -> Option<Moment> {
        self.lookers().iter().map(|view| view.moment).min()
    }
}

impl Replica {
    /// Opens a view. It is there at once, whatever the size of the volumes.
    ///
    /// # Errors
    /// [`Error::State`] when there is no such point, or when the replica is no point in time.
    pub async fn view(self: &Rc<Self>, at: &At) -> Result<View> {
        // Nothing is brought into the base between the look at the points and the view.
        let _base = self.base.lock().await;
        if self.stopping.get() {
            return Err(Error::State("the replica is being stopped".to_owned()));
        }
        if *at == At::Latest && (!self.is_consistent() || self.past.barred.get()) {
            return Err(Error::State(
                "this replica is no point in time: it can be looked at once it is consistent"
                    .to_owned(),
            ));
        }
        if self.kept().is_none() {
            if *at != At::Latest {
                return Err(self.no_history());
            }
            self.begin_history(false).await?;
        }
        let history = self.whole_history()?;
        let (moment, seen) = match at {
            At::Latest => (self.journal.split(), Seen::Latest { after: self.newest()? }),
            at => {
                let (point, moment) = self.find_point(&history, at)?;
                (moment, Seen::Point(point))
            }
        };
        let looking = Rc::new(Looking::at(moment));
        self.past.views.borrow_mut().push(Rc::downgrade(&looking));
        Ok(View::new(self.clone(), history, looking, seen))
    }

    /// The history, for who cannot do without.
    pub(super) fn whole_history(&self) -> Result<Rc<History>> {
        self.history().ok_or_else(|| self.no_history())
    }

    fn no_history(&self) -> Error {
        let ended = self.past.ended.borrow().clone();
        Error::State(match (ended, self.settings.history.retain) {
            (Some(why), _) => format!("there is no point: the history ended: {why}"),
            (None, Retain::Up { .. }) => {
                "there is no point: no history has been kept yet".to_owned()
            }
            _ => "no history is kept here (serve --retain); `latest` can be looked at".to_owned(),
        })
    }

    fn newest(&self) -> Result<PastPoint> {
        let head = self.store.with(|s| s.lineage.head().copied());
        let head = head.ok_or_else(|| Error::State("this replica is empty".to_owned()))?;
        let committed = self.store.with(|s| s.replica.as_ref().and_then(|r| r.committed_unix_ms));
        let unix_ms = committed.unwrap_or(head.unix_ms);
        Ok(PastPoint { cut: head.id, unix_ms, label: None })
    }

    pub(super) fn end_views_where(&self, why: &str, which: impl Fn(Moment) -> bool) {
        for view in self.past.lookers().iter().filter(|view| which(view.moment)) {
            tracing::warn!(why, "a view ends");
            *view.ended.borrow_mut() = Some(why.to_owned());
        }
    }

    /// Every view ends.
    pub(in crate::replica) fn end_views(&self, why: &str) {
        self.end_views_where(why, |_| true);
    }
}

impl View {
    pub(super) fn new(
        replica: Rc<Replica>,
        history: Rc<History>,
        looking: Rc<Looking>,
        seen: Seen,
    ) -> View {
        View { replica, history, looking, seen }
    }

    /// What it shows.
    pub fn seen(&self) -> &Seen {
        &self.seen
    }

    /// The replica that it is of.
    pub fn replica(&self) -> &Rc<Replica> {
        &self.replica
    }

    /// Why it can be read no more.
    pub fn ended(&self) -> Option<String> {
        self.looking.ended.borrow().clone()
    }

    fn goes_on(&self) -> Result<()> {
        match self.ended() {
            None => Ok(()),
            Some(why) => Err(Error::State(format!("this view has ended: {why}"))),
        }
    }

    /// Reads bytes as they were. `span` lies inside the volumes.
    ///
    /// # Errors
    /// [`Error::State`] once it has ended; others when the disk fails, or what was kept is damaged.
    pub async fn read(&self, span: Span) -> Result<Bytes> {
        let mut image = Image { span, bytes: BytesMut::zeroed(span.bytes as usize) };
        let moment = self.looking.moment;
        self.goes_on()?;
        let mut covered = Vec::new();
        for saved in self.history.lookup(moment, span).await? {
            covered.push(saved.span().start..saved.span().end());
            image.lay(&saved.read().await?);
        }
        for part in span.without(covered) {
            let pieces = self.replica.journal.lookup_at(moment, part);
            let waiting = pieces.iter().map(|piece| piece.span().start..piece.span().end());
            for rest in part.without(waiting) {
                let volume = self.replica.volumes.get(rest.volume)?;
                let read = volume.file.read_at(rest.start, rest.bytes as usize).await;
                let bytes = Bytes::from(read.map_err(Error::io("read", &volume.path))?);
                image.lay(&SpanData { span: rest, content: Content::Data(bytes) });
                // What was overwritten while it was read had been kept before.
                for saved in self.history.lookup(moment, rest).await? {
                    image.lay(&saved.read().await?);
                }
            }
            for piece in pieces {
                image.lay(&piece.read().await?);
            }
        }
        // Whoever ended it may have begun to write what was read.
        self.goes_on()?;
        Ok(image.bytes.freeze())
    }

    /// The stretches of a span, from its start on, at most `most`: how many bytes, and whether they are
    /// known to be zeros.
    ///
    /// # Errors
    /// As [`View::read`].
    pub async fn allocation(&self, span: Span, most: usize) -> Result<Vec<(u64, bool)>> {
        let span = Span { bytes: span.bytes.min(ALLOCATION), ..span };
        let moment = self.looking.moment;
        self.goes_on()?;
        // Looked up first: what is brought into the base meanwhile is in it.
        let pieces = self.replica.journal.lookup_at(moment, span);
        let volume = self.replica.volumes.get(span.volume)?;
        let found = volume.file.extents(span.start, span.bytes, most).await;
        let extents = found.map_err(Error::io("map", &volume.path))?;
        let end = extents.last().map_or(span.end(), |last| last.offset + last.len);
        let span = Span { bytes: end.min(span.end()) - span.start, ..span };
        // Whatever lies over a hole counts as data, zeros or not.
        let waiting = pieces.iter().map(|piece| piece.span().start..piece.span().end());
        let mut ranges: Vec<_> = waiting.collect();
        // Looked up last: what was overwritten while the extents were asked for is in it.
        let saved = self.history.lookup(moment, span).await?;
        ranges.extend(saved.iter().map(|saved| saved.span().start..saved.span().end()));
        ranges.sort_by_key(|range| range.start);
        let mut holes = Vec::new();
        for hole in extents.iter().filter(|extent| !extent.data) {
            let hole = Span { start: hole.offset, bytes: hole.len, ..span };
            holes.extend(hole.without(ranges.iter().cloned()));
        }
        self.goes_on()?;
        let (mut at, mut out) = (span.start, Vec::new());
        for hole in holes {
            if at < hole.start {
                out.push((hole.start - at, false));
            }
            out.push((hole.bytes, true));
            at = hole.end();
        }
        if at < span.end() {
            out.push((span.end() - at, false));
        }
        out.truncate(most);
        Ok(out)
    }

    /// Ends it, and waits until nothing is kept for it any more.
    pub async fn close(self) {
        let replica = self.replica.clone();
        drop(self);
        replica.release_view().await;
    }

    /// It can be read no more.
    pub(super) fn end(&self, why: &str) {
        self.looking.ended.borrow_mut().get_or_insert_with(|| why.to_owned());
    }
}

impl Drop for View {
    fn drop(&mut self) {
        self.end("it was closed");
    }
}

/// Bytes being put together.
struct Image {
    span: Span,
    bytes: BytesMut,
}

impl Image {
    /// Lays data over, as far as it lies inside.
    fn lay(&mut self, data: &SpanData) {
        let (from, to) =
            (data.span.start.max(self.span.start), data.span.end().min(self.span.end()));
        if from >= to {
            return;
        }
        let place = (from - self.span.start) as usize..(to - self.span.start) as usize;
        let Some(target) = self.bytes.get_mut(place) else { return };
        match &data.content {
            Content::Zero => target.fill(0),
            Content::Data(bytes) => {
                let first = (from - data.span.start) as usize;
                if let Some(source) = bytes.get(first..first + target.len()) {
                    target.copy_from_slice(source);
                }
            }
        }
    }
}
