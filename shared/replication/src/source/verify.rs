//! The source's side of a verification: what the replica says that it holds is compared with the base.
//!
//! The comparison is a copy session that skips what is written. It needs no cut of its own: a write sets
//! its grains' bits before it looks for sessions, so a set made of everything that was not written since
//! the cut that the replica has acknowledged, put in force without waiting in between, leaves out every grain that can be newer
//! here. Nothing is kept back and no write waits. It runs beside the catch-ups of its session and ends with
//! it.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use grain::{Content, CutId, GrainData, GrainSet, Run};
use tokio::sync::{Notify, mpsc, oneshot};

use super::Source;
use super::deliver::{AbortOnDrop, grain_digests};
use super::serve_link::{Installed, LinkProgress};
use crate::protocol::{
    Compared, Connection, Diverted, Inbox, Message, Report, VerifyMessage, body, may_ask,
};
use crate::session::{CopySession, OnWrite, Options, Overflow, PIECE_BYTES};
use crate::state::{MOST_PLACES, Verified};
use crate::{Error, Result};

/// Grains of a hole looked at in one part: a write spoils all that is claimed at the moment.
const HOLE_GRAINS: u64 = 1024;

/// What the operator of the source asked of a replica, and what it has heard.
#[derive(Debug, Default)]
pub struct LinkVerify {
    asked: Cell<Option<(u32, u64, bool)>>,
    stopped: Cell<bool>,
    wanted: Notify,
    report: RefCell<Option<(u32, Report)>>,
    /// Grains that the present comparison is about.
    pub total_grains: Cell<u64>,
    /// Grains looked at in it.
    pub done_grains: Cell<u64>,
    /// Bytes read here for it.
    pub read_bytes: Cell<u64>,
}

impl LinkVerify {
    /// Asks the replica for a verification. Its report will name `number`.
    pub fn ask(&self, number: u32, rate_bytes: u64, repair: bool) {
        self.asked.set(Some((number, rate_bytes, repair)));
        self.report.take();
        self.wanted.notify_one();
    }

    /// Tells the replica to end its verification.
    pub fn stop(&self) {
        self.stopped.set(true);
        self.wanted.notify_one();
    }

    /// What came of what was asked under `number`.
    pub fn report(&self, number: u32) -> Option<Report> {
        let report = self.report.borrow();
        report.as_ref().filter(|(of, _)| *of == number).map(|(_, report)| report.clone())
    }

    /// The next word of this site's operator.
    async fn next_word(&self) -> VerifyMessage {
        loop {
            if let Some((number, rate_bytes, repair)) = self.asked.take() {
                return VerifyMessage::Asked { number, rate_bytes, repair };
            }
            if self.stopped.take() {
                return VerifyMessage::Stop;
            }
            self.wanted.notified().await;
        }
    }
}

/// Answers the verification of a session; ends when it is dropped.
pub(super) struct Examining {
    _task: AbortOnDrop,
    failed: oneshot::Receiver<Error>,
}

impl Examining {
    pub(super) fn begin(
        source: &Rc<Source>,
        connection: &Connection,
        inbox: &mut Inbox,
        progress: &Rc<LinkProgress>,
    ) -> Examining {
        let mut diverted = inbox.divert();
        let (source, connection) = (source.clone(), connection.clone());
        let identity = connection.peer().to_string();
        let progress = progress.clone();
        let mut examiner = Examiner { source, connection, identity, progress, pass: None };
        let (tell, failed) = oneshot::channel();
        let task = tokio::task::spawn_local(async move {
            match examiner.run(&mut diverted).await {
                // Whoever serves the session is gone already if it does not hear it.
                Err(e @ Error::Peer(_)) => drop(tell.send(e)),
                // The link: whoever serves the session says so.
                ended => tracing::debug!(?ended, "no more verifications in this session"),
            }
        });
        Examining { _task: AbortOnDrop(task), failed }
    }

    /// Waits until the replica has broken the protocol.
    pub(super) async fn failure(&mut self) -> Error {
        match (&mut self.failed).await {
            Ok(error) => error,
            Err(_) => std::future::pending().await,
        }
    }
}

struct Examiner {
    source: Rc<Source>,
    connection: Connection,
    identity: String,
    progress: Rc<LinkProgress>,
    pass: Option<Pass>,
}

struct Pass {
    number: u32,
    installed: Installed,
}

impl Examiner {
    async fn run(&mut self, diverted: &mut mpsc::Receiver<Diverted>) -> Result<()> {
        let progress = self.progress.clone();
        loop {
            tokio::select! {
                biased;
                next = diverted.recv() => match next {
                    Some(message) => self.take(message).await?,
                    None => return Ok(()),
                },
                word = progress.verify.next_word() => self.send(word).await?,
            }
        }
    }

    async fn send(&self, message: VerifyMessage) -> Result<()> {
        self.connection.send(&Message::Verify(message)).await
    }

    /// What is of a comparison that ended is passed over.
    async fn take(&mut self, (message, payload): Diverted) -> Result<()> {
        match message {
            VerifyMessage::Begin { pass, grains } => self.begin(pass, grains).await,
            VerifyMessage::Mine { pass, run } => {
                if !may_ask(self.source.volumes(), run, payload.len()) {
                    return Err(Error::Peer(format!("digests that do not fit {run:?}")));
                }
                let under_way = self.pass.as_ref().filter(|p| p.number == pass);
                let session = under_way.map(|p| p.installed.session.clone());
                match session {
                    Some(session) => self.mine(pass, &session, run, &payload).await,
                    None => Ok(()),
                }
            }
            VerifyMessage::Done { .. } => {
                self.pass = None;
                Ok(())
            }
            VerifyMessage::Report { asked } => self.note(asked, body(&payload)?).await,
            other => Err(Error::Peer(format!("{other:?} is not its to say"))),
        }
    }

    async fn begin(&mut self, pass: u32, grains: u64) -> Result<()> {
        self.pass = None;
        match self.install().await {
            Ok((cut, installed)) => {
                let verify = &self.progress.verify;
                verify.total_grains.set(grains);
                verify.done_grains.set(0);
                self.pass = Some(Pass { number: pass, installed });
                self.send(VerifyMessage::Ready { pass, cut }).await
            }
            Err(e) => self.fail(pass, &e).await,
        }
    }

    async fn fail(&mut self, pass: u32, why: &Error) -> Result<()> {
        self.pass = None;
        let text = why.to_string();
        self.send(VerifyMessage::Failed { pass, text }).await
    }

    /// Puts a session in force over everything that was not written since the cut that the replica has.
    async fn install(&self) -> Result<(CutId, Installed)> {
        let source = &self.source;
        // No cut is made, and no layer since the replica's cut goes, while those layers are read.
        let _one = source.lock_cuts().await;
        let acked = source.store().with(|s| {
            let peer = s.peers.iter().find(|p| p.identity == self.identity);
            peer.and_then(|p| p.acked).filter(|cut| s.lineage.contains(*cut))
        });
        let cut = acked
            .ok_or_else(|| Error::State("this replica has not acknowledged any cut".to_owned()))?;
        let written = source.written_since(cut).await?;
        let mut set = GrainSet::full(source.volumes().geometry());
        set.subtract(&written);
        drop(written);
        // From here on nothing is waited for: see the module's text.
        source.tracker.with_open(|open| set.subtract(open));
        let options = Options {
            on_write: OnWrite::Skip,
            buffer_bytes: 0,
            side: None,
            wait: Duration::ZERO,
            overflow: Overflow::Abort,
            fuzzy: false,
        };
        let session = CopySession::new(cut, set, source.volumes().clone(), options);
        source.sessions.borrow_mut().push(session.clone());
        Ok((cut, Installed { source: source.clone(), session }))
    }

    async fn mine(
        &mut self,
        pass: u32,
        session: &Rc<CopySession>,
        run: Run,
        theirs: &Bytes,
    ) -> Result<()> {
        match self.compare(session, run, theirs).await {
            Ok(compared) => {
                let done = &self.progress.verify.done_grains;
                done.set(done.get() + run.count);
                let message = Message::Verify(VerifyMessage::Compared { pass, run });
                self.connection.send_body(&message, &compared).await
            }
            Err(e) => {
                tracing::error!(error = %e, "a verification cannot go on");
                self.fail(pass, &e).await
            }
        }
    }

    async fn compare(
        &self,
        session: &Rc<CopySession>,
        run: Run,
        theirs: &Bytes,
    ) -> Result<Compared> {
        let mut found = Compared::default();
        let mut different = GrainSet::new();
        let mut first = run.first;
        while first < run.end() {
            let step = self.step(Run { first, count: run.end() - first, ..run }).await?;
            first = step.end();
            for data in session.take(step).await? {
                found.compared += data.run.count;
                let read = data.content.bytes();
                found.read_bytes += read;
                self.source.pace().pass(read).await;
                self.differing(run, data, theirs, &mut different).await;
            }
        }
        while let Some(run) = session.next_unreadable() {
            found.unreadable.push(run);
        }
        found.different = different.runs().collect();
        let read = &self.progress.verify.read_bytes;
        read.set(read.get() + found.read_bytes);
        Ok(found)
    }

    /// The next part of a run: a hole as far as it goes, or one read. What is written while a part is
    /// looked at leaves the session, so parts are small.
    async fn step(&self, rest: Run) -> Result<Run> {
        let volumes = self.source.volumes();
        let count = match volumes.hole_at(rest).await? {
            0 => rest.count.min((PIECE_BYTES >> volumes.geometry().grain.shift()).max(1)),
            hole => hole.min(HOLE_GRAINS),
        };
        Ok(Run { count, ..rest })
    }

    async fn differing(
        &self,
        asked: Run,
        data: GrainData,
        theirs: &Bytes,
        different: &mut GrainSet,
    ) {
        let run = data.run;
        if theirs.is_empty() {
            if data.content != Content::Zero {
                different.insert_run(run);
            }
            return;
        }
        let geometry = self.source.volumes().geometry().clone();
        let theirs = theirs.slice((run.first - asked.first) as usize * 32..);
        let compare = move || {
            let mine = grain_digests(&geometry, &data);
            let differs = |(a, b): (&[u8; 32], &[u8])| a != b;
            mine.iter().zip(theirs.chunks_exact(32)).map(differs).collect::<Vec<_>>()
        };
        let differs = self.source.context().offload(compare).await;
        for (at, _) in differs.iter().enumerate().filter(|(_, differs)| **differs) {
            different.insert(run.volume, run.first + at as u64);
        }
    }

    /// The replica says what it found: this site keeps it, too.
    async fn note(&self, asked: Option<u32>, report: Report) -> Result<()> {
        if let Ok(verified) = &report {
            self.believable(verified)?;
            let verified = verified.clone();
            tracing::info!(different = verified.different_grains, "the replica was verified");
            let peer = |p: &&mut crate::state::Peer| p.identity == self.identity;
            let kept = self.source.store().update(|s| {
                if let Some(peer) = s.peers.iter_mut().find(peer) {
                    peer.verified = Some(verified);
                }
            });
            if let Err(error) = kept.await {
                tracing::error!(%error, "what was found is not kept");
            }
        }
        if let Some(number) = asked {
            *self.progress.verify.report.borrow_mut() = Some((number, report));
        }
        Ok(())
    }

    fn believable(&self, verified: &Verified) -> Result<()> {
        let volumes = self.source.volumes();
        let total = volumes.geometry().total_grains();
        let sums = verified.total_grains == total
            && verified.compared_grains <= total
            && verified.different_grains <= total
            && verified.places.len() <= MOST_PLACES
            && verified.places.iter().all(|run| volumes.holds(*run));
        match sums {
            true => Ok(()),
            false => Err(Error::Peer("a report that cannot be".to_owned())),
        }
    }
}
