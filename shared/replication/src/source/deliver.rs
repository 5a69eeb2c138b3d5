//! Delivering a copy session over a link: pulls are answered side by side, preserved grains are pushed
//! as they come.

use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;
use disk::Context;
use grain::{Content, Geometry, GrainData, Run};
use tokio::sync::{Notify, Semaphore};

use super::serve_link::{LinkProgress, digest};
use crate::pace::Pace;
use crate::protocol::{Connection, Inbox, MAX_DIGESTS, MAX_RUNS_A_PULL, Message, unexpected};
use crate::session::CopySession;
use crate::volumes::Volumes;
use crate::{Error, Result};

/// Pulls answered at the same time.
const WIDTH: usize = 8;
/// Bytes of a pull that are in memory at a time.
const STEP_BYTES: u64 = 4 << 20;

/// One delivery. Cheap to clone.
#[derive(Clone)]
pub(super) struct Delivery {
    inner: Rc<Inner>,
}

struct Inner {
    ctx: Context,
    volumes: Rc<Volumes>,
    session: Rc<CopySession>,
    connection: Connection,
    progress: Rc<LinkProgress>,
    pace: Rc<Pace>,
    width: Arc<Semaphore>,
    open: Cell<usize>,
    ended: Notify,
    failed: Cell<Option<Error>>,
}

impl Delivery {
    pub(super) fn new(
        ctx: Context,
        volumes: Rc<Volumes>,
        session: Rc<CopySession>,
        connection: Connection,
        progress: Rc<LinkProgress>,
        pace: Rc<Pace>,
    ) -> Delivery {
        let inner = Inner {
            ctx,
            volumes,
            session,
            connection,
            progress,
            pace,
            width: Arc::new(Semaphore::new(WIDTH)),
            open: Cell::new(0),
            ended: Notify::new(),
            failed: Cell::new(None),
        };
        Delivery { inner: Rc::new(inner) }
    }

    /// Answers pulls until the replica has everything.
    pub(super) async fn run(&self, inbox: &mut Inbox) -> Result<()> {
        let _pushing = AbortOnDrop(tokio::task::spawn_local(self.clone().push_preserved()));
        let outcome = self.answer(inbox).await;
        match outcome {
            // In words to the replica: what arrived stays useful.
            Err(e) if !matches!(e, Error::Link(_)) => {
                let text = e.to_string();
                let told = self.inner.connection.send(&Message::Broken { text }).await;
                told.and(Err(e))
            }
            other => other,
        }
    }

    async fn answer(&self, inbox: &mut Inbox) -> Result<()> {
        loop {
            let (message, payload) = tokio::select! {
                biased;
                failed = self.failure() => return Err(failed),
                next = inbox.next() => next?,
            };
            match message {
                Message::Pull { number, runs } if runs.len() <= MAX_RUNS_A_PULL => {
                    runs.iter().try_for_each(|run| self.check_run(*run))?;
                    self.spawn(Work::Pull { number, runs }).await?;
                }
                Message::PullDifferent { number, run } => {
                    self.check_run(run)?;
                    if run.count > MAX_DIGESTS || payload.len() as u64 != run.count * 32 {
                        return Err(Error::Peer("digests that do not fit their run".to_owned()));
                    }
                    self.spawn(Work::Different { number, run, digests: payload }).await?;
                }
                Message::Finish => {
                    self.drain().await?;
                    return self.inner.connection.send(&Message::Delivered).await;
                }
                other => return Err(unexpected(&other)),
            }
        }
    }

    fn check_run(&self, run: Run) -> Result<()> {
        if !self.inner.volumes.holds(run) {
            return Err(Error::Peer(format!("{run:?} lies outside the volumes")));
        }
        Ok(())
    }

    async fn spawn(&self, work: Work) -> Result<()> {
        let permit = self.inner.width.clone().acquire_owned().await;
        let permit = permit.map_err(|_| Error::Cancelled)?;
        self.inner.open.set(self.inner.open.get() + 1);
        let delivery = self.clone();
        tokio::task::spawn_local(async move {
            if let Err(e) = delivery.carry_out(work).await {
                delivery.fail(e);
            }
            delivery.inner.open.set(delivery.inner.open.get() - 1);
            drop(permit);
            delivery.inner.ended.notify_waiters();
        });
        Ok(())
    }

    async fn carry_out(&self, work: Work) -> Result<()> {
        let number = match work {
            Work::Pull { number, runs } => {
                for run in runs {
                    let mut first = run.first;
                    while let Some(step) = self.step(run, first).await? {
                        first = step.end();
                        for data in self.inner.session.take(step).await? {
                            self.inner.pace.pass(data.content.bytes()).await;
                            self.send(data).await?;
                        }
                    }
                }
                number
            }
            Work::Different { number, run, digests } => {
                let mut first = run.first;
                while let Some(step) = self.step(run, first).await? {
                    first = step.end();
                    for data in self.inner.session.take(step).await? {
                        self.inner.pace.pass(data.content.bytes()).await;
                        self.send_different(data, run, &digests).await?;
                    }
                }
                number
            }
        };
        self.inner.connection.send(&Message::Pulled { number }).await
    }

    /// The next part of a run: a hole as far as it goes, or as much data as may be in memory.
    async fn step(&self, run: Run, first: u64) -> Result<Option<Run>> {
        if first >= run.end() {
            return Ok(None);
        }
        let rest = Run { first, count: run.end() - first, ..run };
        let shift = self.inner.volumes.geometry().grain.shift();
        let count = match self.inner.volumes.hole_at(rest).await? {
            0 => rest.count.min((STEP_BYTES >> shift).max(1)),
            hole => hole,
        };
        Ok(Some(Run { count, ..rest }))
    }

    async fn send(&self, data: GrainData) -> Result<()> {
        let progress = &self.inner.progress;
        progress.sent_grains.set(progress.sent_grains.get() + data.run.count);
        match data.content {
            Content::Zero => self.inner.connection.send(&Message::Zero { run: data.run }).await,
            Content::Data(bytes) => {
                let digest = digest(&self.inner.ctx, &bytes).await;
                progress.sent_bytes.set(progress.sent_bytes.get() + bytes.len() as u64);
                let message = Message::Data { run: data.run, digest };
                self.inner.connection.send_with(&message, bytes).await
            }
        }
    }

    /// Sends the grains of `data` whose digest is not the one that the replica has.
    async fn send_different(&self, data: GrainData, asked: Run, theirs: &Bytes) -> Result<()> {
        let same = self.compare(&data, asked, theirs).await?;
        let grain = self.inner.volumes.geometry().grain.bytes() as usize;
        let mut at = 0;
        while at < same.len() {
            let equal = same[at];
            let end = same[at..].iter().position(|s| *s != equal).map_or(same.len(), |n| at + n);
            let run = Run {
                volume: data.run.volume,
                first: data.run.first + at as u64,
                count: (end - at) as u64,
            };
            if equal {
                let progress = &self.inner.progress;
                progress.sent_grains.set(progress.sent_grains.get() + run.count);
                self.inner.connection.send(&Message::Same { run }).await?;
            } else {
                let content = match &data.content {
                    Content::Zero => Content::Zero,
                    Content::Data(bytes) => {
                        Content::Data(bytes.slice(at * grain..bytes.len().min(end * grain)))
                    }
                };
                self.send(GrainData { run, content }).await?;
            }
            at = end;
        }
        Ok(())
    }

    async fn compare(&self, data: &GrainData, asked: Run, theirs: &Bytes) -> Result<Vec<bool>> {
        let from = (data.run.first - asked.first) as usize * 32;
        let to = from + data.run.count as usize * 32;
        let outside = || Error::State("a run outside of what was asked".to_owned());
        let theirs = theirs.get(from..to).ok_or_else(outside)?.to_vec();
        let geometry = self.inner.volumes.geometry().clone();
        let data = data.clone();
        let digests = move || grain_digests(&geometry, &data);
        let mine = self.inner.ctx.offload(digests).await;
        Ok(mine.iter().zip(theirs.chunks_exact(32)).map(|(a, b)| a == b).collect())
    }

    /// Says which grains cannot be had.
    async fn tell_unreadable(&self) -> Result<()> {
        while let Some(run) = self.inner.session.next_unreadable() {
            self.inner.progress.unreadable.borrow_mut().insert_run(run);
            self.inner.connection.send(&Message::Unreadable { run }).await?;
        }
        Ok(())
    }

    async fn push_preserved(self) {
        loop {
            if self.inner.session.has_unreadable() {
                self.inner.open.set(self.inner.open.get() + 1);
                let told = self.tell_unreadable().await;
                self.inner.open.set(self.inner.open.get() - 1);
                self.inner.ended.notify_waiters();
                if let Err(e) = told {
                    return self.fail(e);
                }
            }
            match self.inner.session.next_preserved().await {
                Ok(Some(data)) => {
                    self.inner.open.set(self.inner.open.get() + 1);
                    let sent = self.send(data).await;
                    self.inner.open.set(self.inner.open.get() - 1);
                    self.inner.ended.notify_waiters();
                    if let Err(e) = sent {
                        return self.fail(e);
                    }
                }
                Ok(None) => {
                    let changed = self.inner.session.changed();
                    // Something may have been preserved since the look.
                    let session = &self.inner.session;
                    if !session.has_preserved() && !session.has_unreadable() {
                        changed.await;
                    }
                }
                Err(e) => return self.fail(e),
            }
        }
    }

    /// Waits until everything was sent.
    async fn drain(&self) -> Result<()> {
        loop {
            let (ended, changed) = (self.inner.ended.notified(), self.inner.session.changed());
            if self.inner.open.get() == 0 {
                let session = &self.inner.session;
                if session.is_delivered() && !session.has_unreadable() {
                    return Ok(());
                }
                // Nobody else would ever take these.
                let left = self.inner.session.counters().pending_grains;
                if left > 0 && self.inner.session.ended().is_none() {
                    return Err(Error::Peer(format!(
                        "it finished, and {left} grains were not asked for"
                    )));
                }
            }
            tokio::select! {
                biased;
                failed = self.failure() => return Err(failed),
                () = ended => {}
                () = changed => {}
            }
        }
    }

    fn fail(&self, e: Error) {
        self.inner.failed.set(Some(e));
        self.inner.ended.notify_waiters();
    }

    async fn failure(&self) -> Error {
        loop {
            let ended = self.inner.ended.notified();
            if let Some(e) = self.inner.failed.take() {
                return e;
            }
            ended.await;
        }
    }
}

/// Ends a task with whoever started it.
pub(super) struct AbortOnDrop(pub(super) tokio::task::JoinHandle<()>);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

enum Work {
    Pull { number: u32, runs: Vec<Run> },
    Different { number: u32, run: Run, digests: Bytes },
}

/// BLAKE3 of each grain of a run, zeros included (the digest of as many zero bytes).
pub(crate) fn grain_digests(geometry: &Geometry, data: &GrainData) -> Vec<[u8; 32]> {
    let grain = geometry.grain.bytes() as usize;
    match &data.content {
        Content::Data(bytes) => bytes.chunks(grain).map(|g| *blake3::hash(g).as_bytes()).collect(),
        Content::Zero => {
            let whole = *blake3::hash(&vec![0; grain]).as_bytes();
            let last = geometry.grains(data.run.volume);
            (data.run.first..data.run.end())
                .map(|g| {
                    if g + 1 < last {
                        return whole;
                    }
                    let range = geometry.byte_range(data.run.volume, g, 1);
                    *blake3::hash(&vec![0; (range.end - range.start) as usize]).as_bytes()
                })
                .collect()
        }
    }
}
