//! A lane: the writing of one medium. Pieces come in by a queue, are sealed by the pool several at a
//! time, and appended in order.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::rc::Rc;

use grain::GrainData;
use tokio::sync::{Mutex, OwnedSemaphorePermit, mpsc};
use tokio::task::JoinHandle;

use super::core::Core;
use super::open_segment::OpenSegment;
use crate::error::MediaError;
use crate::frame::FRAME_HEADER_BYTES;
use crate::part::PartWriter;
use crate::record::{BuiltRecord, DIGEST_BYTES, HEAD_BYTES, build_record};
use crate::seal::TAG_BYTES;

/// A run small enough for one record, with the memory that it occupies.
pub(super) struct Piece {
    pub(super) data: GrainData,
    pub(super) memory: OwnedSemaphorePermit,
}

impl Piece {
    /// Bytes of content.
    pub(super) fn bytes(&self) -> u64 {
        self.data.content.bytes()
    }

    /// The most bytes that its frame can take.
    fn frame_limit(&self, grain_bytes: u64) -> u64 {
        let content = self.bytes();
        let digests = content.div_ceil(grain_bytes) * DIGEST_BYTES as u64;
        content + digests + (FRAME_HEADER_BYTES + HEAD_BYTES + TAG_BYTES) as u64
    }
}

/// A record in the pool.
struct Sealing {
    built: JoinHandle<BuiltRecord>,
    number: u32,
    limit: u64,
    bytes: u64,
    memory: OwnedSemaphorePermit,
}

/// The writing of one medium.
pub(super) struct Lane {
    pub(super) core: Rc<Core>,
    pub(super) dir: PathBuf,
    /// From 1.
    pub(super) medium: u16,
    pub(super) part: Rc<Mutex<PartWriter>>,
    open: Option<OpenSegment>,
    sealing: VecDeque<Sealing>,
    finishing: Option<JoinHandle<Result<(), MediaError>>>,
}

impl Lane {
    pub(super) fn new(
        core: Rc<Core>,
        dir: PathBuf,
        medium: u16,
        part: Rc<Mutex<PartWriter>>,
    ) -> Lane {
        Lane { core, dir, medium, part, open: None, sealing: VecDeque::new(), finishing: None }
    }

    /// Writes what comes by the queue until it closes; then everything is durable. An error stops
    /// the whole writer.
    pub(super) async fn run(mut self, mut queue: mpsc::UnboundedReceiver<Piece>) {
        if let Err(error) = self.write_all(&mut queue).await {
            self.core.stop(error);
        }
    }

    async fn write_all(
        &mut self,
        queue: &mut mpsc::UnboundedReceiver<Piece>,
    ) -> Result<(), MediaError> {
        let depth = self.core.ctx.offload.width() * 2 + 2;
        loop {
            let room = self.sealing.len() < depth;
            tokio::select! {
                biased;
                built = front(&mut self.sealing), if !self.sealing.is_empty() => {
                    self.append(built).await?;
                }
                piece = queue.recv(), if room => match piece {
                    Some(piece) => self.start(piece).await?,
                    None => break,
                },
            }
            self.core.check()?;
        }
        self.drain().await?;
        self.close_segment().await?;
        self.wait_finished().await
    }

    /// Gives a piece its place in a segment and hands it to the pool.
    async fn start(&mut self, piece: Piece) -> Result<(), MediaError> {
        let limit = piece.frame_limit(self.core.geometry.grain.bytes());
        // What is in the pool may turn out smaller than its limit: only when nothing is left there
        // is it known that the segment is full.
        while self.open.as_ref().is_some_and(|open| !open.fits(limit)) {
            if self.sealing.is_empty() {
                self.close_segment().await?;
            } else {
                let built = front(&mut self.sealing).await;
                self.append(built).await?;
            }
        }
        if self.open.is_none() {
            let open = OpenSegment::create(self.core.clone(), &self.dir, self.medium).await?;
            self.open = Some(open);
        }
        let Some(open) = &mut self.open else { return Ok(()) };
        let number = open.assigned;
        open.assigned += 1;
        open.assigned_bytes += limit;
        let (sealer, marker) = (open.sealer.clone(), open.marker);
        let plan = self.core.records.clone();
        let bytes = piece.bytes();
        let Piece { data, memory } = piece;
        let ctx = self.core.ctx.clone();
        let build = async move {
            ctx.offload(move || build_record(&data, &plan, &sealer, marker, number)).await
        };
        let built = tokio::task::spawn_local(build);
        self.sealing.push_back(Sealing { built, number, limit, bytes, memory });
        Ok(())
    }

    /// Appends the oldest record of the pool; it is out of the queue only now.
    async fn append(
        &mut self,
        built: Result<BuiltRecord, tokio::task::JoinError>,
    ) -> Result<(), MediaError> {
        let Some(sealed) = self.sealing.pop_front() else { return Ok(()) };
        let built = match built {
            Ok(built) => built,
            Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
            Err(_) => return Err(MediaError::Stopped("a record was not made".into())),
        };
        let Some(open) = &mut self.open else { return Ok(()) };
        open.assigned_bytes -= sealed.limit;
        open.append(sealed.number, built, sealed.memory).await?;
        let medium = usize::from(self.medium) - 1;
        if let Some(queued) = self.core.counters.borrow_mut().queued_bytes.get_mut(medium) {
            *queued -= sealed.bytes;
        }
        Ok(())
    }

    async fn drain(&mut self) -> Result<(), MediaError> {
        while !self.sealing.is_empty() {
            let built = front(&mut self.sealing).await;
            self.append(built).await?;
        }
        Ok(())
    }

    /// Lets the segment finish beside the writing of the next; at most one does so at a time.
    async fn close_segment(&mut self) -> Result<(), MediaError> {
        self.wait_finished().await?;
        let Some(open) = self.open.take() else { return Ok(()) };
        let (core, part) = (self.core.clone(), self.part.clone());
        let finish = async move {
            let done = open.finish().await?;
            let mut part = part.lock().await;
            part.append(&done.facts, &done.index, &core.keys).await?;
            core.settle(done.facts, &done.grains, &done.sum);
            Ok(())
        };
        self.finishing = Some(tokio::task::spawn_local(finish));
        Ok(())
    }

    async fn wait_finished(&mut self) -> Result<(), MediaError> {
        match self.finishing.take() {
            None => Ok(()),
            Some(task) => task
                .await
                .unwrap_or_else(|_| Err(MediaError::Stopped("a segment was not finished".into()))),
        }
    }
}

impl Drop for Lane {
    fn drop(&mut self) {
        // An aborted lane leaves nothing behind that still writes.
        self.sealing.iter().for_each(|sealing| sealing.built.abort());
        if let Some(finishing) = &self.finishing {
            finishing.abort();
        }
    }
}

/// Waits for the oldest record of the pool; it stays in the queue, so that nothing is lost when the
/// waiting is given up.
async fn front(sealing: &mut VecDeque<Sealing>) -> Result<BuiltRecord, tokio::task::JoinError> {
    match sealing.front_mut() {
        Some(sealing) => (&mut sealing.built).await,
        None => std::future::pending().await,
    }
}
