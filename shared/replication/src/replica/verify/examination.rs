//! One verification: a look at everything, a second look at what differed, the repair if it was asked for.

use std::collections::VecDeque;
use std::rc::Rc;

use bytes::Bytes;
use grain::{CutId, GrainSet, Run, VolumeId};
use tokio::sync::mpsc;

use super::VerifyRequest;
use crate::kept::{Aside, Why};
use crate::pace::Rate;
use crate::protocol::{
    Compared, Connection, Diverted, MAX_ZERO_GRAINS, Message, VERIFY_WINDOW, VerifyMessage, body,
};
use crate::replica::Replica;
use crate::state::{MOST_PLACES, Verified};
use crate::{Error, Result};

/// Bytes read for one message of digests, if that is a grain or more.
const READ_BYTES: u64 = 4 << 20;
/// Grains of one message of digests, whatever their size.
const READ_GRAINS: u64 = 1024;
/// Grains that this disk may fail to give before it is broken rather than bad in places.
const MOST_UNREADABLE: u64 = 4096;
/// Questions that may be unanswered where the rate is what counts.
const PACED_WINDOW: usize = 2;
/// Sent in place of the digest of a grain that cannot be read here: no content has it.
const NO_DIGEST: [u8; 32] = [0; 32];

/// See the module's text.
pub(super) struct Examination<'a> {
    replica: &'a Rc<Replica>,
    connection: &'a Connection,
    answers: mpsc::Receiver<Diverted>,
    request: VerifyRequest,
    rate: Rate,
}

/// What came of one look.
#[derive(Default)]
struct Look {
    compared: u64,
    different: GrainSet,
    unreadable_at_source: GrainSet,
    /// Of those that differ: this disk does not give them.
    unreadable: GrainSet,
    asked: u64,
}

impl Look {
    /// Asked for, and written since the cut.
    fn written(&self) -> u64 {
        self.asked - self.compared - self.unreadable_at_source.len()
    }
}

/// A run and what this side has of it: digests, or nothing for zeros.
struct Ask {
    run: Run,
    digests: Bytes,
    read_bytes: u64,
}

impl<'a> Examination<'a> {
    pub(super) fn new(
        replica: &'a Rc<Replica>,
        connection: &'a Connection,
        answers: mpsc::Receiver<Diverted>,
        request: VerifyRequest,
    ) -> Examination<'a> {
        let rate = Rate::new(request.rate_bytes);
        Examination { replica, connection, answers, request, rate }
    }

    /// Runs it, and keeps what came of it as the replica's proof.
    pub(super) async fn run(mut self) -> Result<Verified> {
        let replica = self.replica;
        let mut missing = replica.damaged();
        missing.union_with(&replica.unloaded());
        missing.union_with(&replica.direct_mask());
        let total_grains = replica.volumes().geometry().total_grains();
        let mut all = GrainSet::full(replica.volumes().geometry());
        all.subtract(&missing);
        let (cut, first) = self.look("compares", all).await?;
        let mut found = Verified {
            cut: Some(cut),
            total_grains,
            missing_grains: missing.len(),
            compared_grains: first.compared,
            written_grains: first.written(),
            unreadable_at_source_grains: first.unreadable_at_source.len(),
            ..Verified::default()
        };
        if !first.different.is_empty() {
            self.look_again(&first, &mut found).await?;
        }
        found.unix_ms = replica.context().unix_ms();
        let kept = found.clone();
        replica
            .store()
            .update(|s| {
                if let Some(replica) = &mut s.replica {
                    replica.proof.verified = Some(kept);
                }
            })
            .await?;
        Ok(found)
    }

    /// What differed may have been on its way: it counts if it differs after another catch-up, too.
    async fn look_again(&mut self, first: &Look, found: &mut Verified) -> Result<()> {
        self.catch_up("waits for a catch-up, to look again").await?;
        let (cut, second) =
            self.look("looks again at what differed", first.different.clone()).await?;
        found.compared_grains -= first.different.len() - second.compared;
        found.written_grains += second.written();
        found.unreadable_at_source_grains += second.unreadable_at_source.len();
        found.different_grains = second.different.len();
        found.unreadable_grains = second.unreadable.len();
        found.places = second.different.runs().take(MOST_PLACES).collect();
        for run in &found.places {
            let place = self.replica.volumes().place(*run);
            tracing::error!(place, "this is not as it is at the source");
        }
        if self.request.repair && !second.different.is_empty() {
            self.repair(cut, second.different, found).await?;
        }
        Ok(())
    }

    async fn repair(&mut self, cut: CutId, wrong: GrainSet, found: &mut Verified) -> Result<()> {
        self.doing("keeps what will be overwritten", wrong.len());
        let Replica { ctx, store, volumes, .. } = &**self.replica;
        let why = Why { verb: "verify --repair", cut };
        found.kept = Some(Aside { ctx, store, volumes }.keep(why, &wrong, None).await?);
        *self.replica.verification.again.borrow_mut() = wrong.clone();
        self.catch_up("waits for the catch-up that brings it").await?;
        self.replica.verification.again.borrow_mut().clear();
        let count = wrong.len();
        let (_, third) = self.look("looks at what came", wrong).await?;
        let left = third.different.len() + third.unreadable_at_source.len();
        found.repaired_grains = count - left.min(count);
        if left > 0 {
            found.places = third.different.runs().take(MOST_PLACES).collect();
        }
        Ok(())
    }

    fn doing(&self, doing: &'static str, total_grains: u64) {
        self.replica.verification.progress(|job| {
            (job.doing, job.total_grains, job.done_grains) = (doing, total_grains, 0);
        });
    }

    /// Waits for the end of a catch-up that began after this call.
    async fn catch_up(&self, doing: &'static str) -> Result<()> {
        self.doing(doing, 0);
        let replica = self.replica.clone();
        let rounds = &replica.verification.rounds;
        let wanted = rounds.begun.get() + 1;
        rounds.wanted.notify_one();
        loop {
            let news = rounds.news.notified();
            if rounds.done.get() >= wanted {
                return Ok(());
            }
            news.await;
        }
    }

    async fn next(&mut self) -> Result<Diverted> {
        let ended = || Error::Link("the session ended".to_owned());
        self.answers.recv().await.ok_or_else(ended)
    }

    /// Compares `wanted` at the newest cut that the source knows this replica to hold, which it gives.
    async fn look(&mut self, doing: &'static str, wanted: GrainSet) -> Result<(CutId, Look)> {
        self.doing(doing, wanted.len());
        let passes = &self.replica.verification.passes;
        passes.set(passes.get().wrapping_add(1));
        let pass = passes.get();
        let cut = self.begin(pass, wanted.len()).await?;
        // It is committed, but the base need not have all of it yet.
        let outcome = match self.replica.apply().await {
            Ok(()) => self.compare(pass, wanted).await,
            Err(e) => Err(e),
        };
        // Whatever came of it: the source need not look after it any longer.
        self.send(VerifyMessage::Done { pass }).await?;
        outcome.map(|look| (cut, look))
    }

    async fn send(&self, message: VerifyMessage) -> Result<()> {
        self.connection.send(&Message::Verify(message)).await
    }

    async fn begin(&mut self, pass: u32, grains: u64) -> Result<CutId> {
        self.send(VerifyMessage::Begin { pass, grains }).await?;
        loop {
            match self.next().await?.0 {
                VerifyMessage::Ready { pass: of, cut } if of == pass => return Ok(cut),
                VerifyMessage::Failed { pass: of, text } if of == pass => {
                    return Err(failed(&text));
                }
                // Of a comparison that ended.
                _ => {}
            }
        }
    }

    async fn compare(&mut self, pass: u32, wanted: GrainSet) -> Result<Look> {
        let mut look = Look::default();
        let mut reader =
            Reader { replica: self.replica.clone(), cursor: start(), ready: VecDeque::new() };
        let mut asked: VecDeque<(Run, u64)> = VecDeque::new();
        let window = if self.request.rate_bytes > 0 { PACED_WINDOW } else { VERIFY_WINDOW };
        loop {
            while asked.len() < window {
                let Some(ask) = reader.next(&wanted, &mut look).await? else { break };
                self.rate.pass(ask.read_bytes).await;
                let message = Message::Verify(VerifyMessage::Mine { pass, run: ask.run });
                self.connection.send_with(&message, ask.digests).await?;
                look.asked += ask.run.count;
                asked.push_back((ask.run, ask.read_bytes));
            }
            let Some((run, read_bytes)) = asked.pop_front() else {
                // What was written meanwhile, or is bad at the source, too, is counted as that.
                look.unreadable.intersect_with(&look.different);
                return Ok(look);
            };
            let compared = self.answer(pass, run).await?;
            // What only the source had to read counts against the rate, too.
            self.rate.pass(compared.read_bytes.saturating_sub(read_bytes)).await;
            let (different, unreadable) = compared.sets(run)?;
            look.compared += compared.compared;
            look.different.union_with(&different);
            look.unreadable_at_source.union_with(&unreadable);
            self.replica.verification.progress(|job| {
                job.done_grains += run.count;
                job.read_bytes += read_bytes;
            });
        }
    }

    /// The answers come in the order of the questions.
    async fn answer(&mut self, pass: u32, asked: Run) -> Result<Compared> {
        loop {
            let (message, payload) = self.next().await?;
            match message {
                VerifyMessage::Compared { pass: of, run } if of == pass && run == asked => {
                    return body(&payload);
                }
                VerifyMessage::Compared { pass: of, run } if of == pass => {
                    return Err(Error::Peer(format!("it compared {run:?}, asked was {asked:?}")));
                }
                VerifyMessage::Failed { pass: of, text } if of == pass => {
                    return Err(failed(&text));
                }
                // Of a comparison that ended.
                _ => {}
            }
        }
    }
}

fn failed(text: &str) -> Error {
    Error::State(format!("the source cannot go on with the comparison: {text}"))
}

fn start() -> (VolumeId, u64) {
    (VolumeId(0), 0)
}

/// Reads this side, in the order of addresses.
struct Reader {
    replica: Rc<Replica>,
    cursor: (VolumeId, u64),
    /// Read, and not sent yet.
    ready: VecDeque<Ask>,
}

impl Reader {
    async fn next(&mut self, wanted: &GrainSet, look: &mut Look) -> Result<Option<Ask>> {
        if let Some(ask) = self.ready.pop_front() {
            return Ok(Some(ask));
        }
        let Some(run) = wanted.next_run(self.cursor, MAX_ZERO_GRAINS) else { return Ok(None) };
        let volumes = self.replica.volumes();
        // Who cannot tell holes from data reads.
        let hole = volumes.hole_at(run).await.unwrap_or(0);
        if hole > 0 {
            let run = Run { count: hole, ..run };
            self.cursor = (run.volume, run.end());
            return Ok(Some(Ask { run, digests: Bytes::new(), read_bytes: 0 }));
        }
        let shift = volumes.geometry().grain.shift();
        let most = (READ_BYTES >> shift).clamp(1, READ_GRAINS);
        let run = Run { count: run.count.min(most), ..run };
        self.cursor = (run.volume, run.end());
        match self.digests(run).await {
            Ok(ask) => Ok(Some(ask)),
            Err(error) => {
                let place = volumes.place(run);
                tracing::warn!(%error, place, "grain by grain");
                self.one_by_one(run, look).await?;
                Ok(self.ready.pop_front())
            }
        }
    }

    async fn digests(&self, run: Run) -> Result<Ask> {
        let volumes = self.replica.volumes();
        let range = volumes.geometry().byte_range(run.volume, run.first, run.count);
        let digests = self.replica.digests(run).await?;
        Ok(Ask { run, digests: digests.into(), read_bytes: range.end - range.start })
    }

    /// What this disk does not give is asked about all the same: the source may have it.
    async fn one_by_one(&mut self, run: Run, look: &mut Look) -> Result<()> {
        for first in run.first..run.end() {
            let one = Run { first, count: 1, ..run };
            let ask = match self.digests(one).await {
                Ok(ask) => ask,
                Err(error) => {
                    let place = self.replica.volumes().place(one);
                    tracing::error!(%error, place, "a grain cannot be read here");
                    look.unreadable.insert_run(one);
                    if look.unreadable.len() > MOST_UNREADABLE {
                        return Err(error);
                    }
                    Ask { run: one, digests: Bytes::from_static(&NO_DIGEST), read_bytes: 0 }
                }
            };
            self.ready.push_back(ask);
        }
        Ok(())
    }
}
