//! What goes on behind the appending of frames to a segment: the writing of its file, and the hash over it.
//!
//! Both take what they are given in order and hold its memory until they are done with it, so that the
//! writer's bound covers them.

use std::io;
use std::rc::Rc;

use bytes::Bytes;
use disk::File;
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tokio::task::JoinHandle;

use super::core::Core;

/// Writes a file piece by piece, one at a time: the kernel takes one writer of a file at a time anyway, and
/// others would burn a core while they wait for its lock.
pub(super) struct FileWrites {
    queue: Option<mpsc::UnboundedSender<Write>>,
    task: JoinHandle<io::Result<()>>,
}

/// A piece with its place and the memory that it holds on to.
type Write = (u64, Bytes, Rc<Option<OwnedSemaphorePermit>>);

impl FileWrites {
    pub(super) fn start(core: Rc<Core>, file: Rc<dyn File>, medium: u16) -> FileWrites {
        let (queue, mut pieces) = mpsc::unbounded_channel::<Write>();
        let task = tokio::task::spawn_local(async move {
            while let Some((offset, bytes, memory)) = pieces.recv().await {
                let len = bytes.len() as u64;
                file.write_at(offset, bytes).await?;
                drop(memory);
                let mut counters = core.counters.borrow_mut();
                if let Some(written) = counters.medium_bytes.get_mut(usize::from(medium) - 1) {
                    *written += len;
                }
            }
            Ok(())
        });
        FileWrites { queue: Some(queue), task }
    }

    /// Hands a piece over.
    pub(super) fn push(
        &mut self,
        offset: u64,
        bytes: Bytes,
        memory: Rc<Option<OwnedSemaphorePermit>>,
    ) {
        if let Some(queue) = &self.queue {
            // After a failed write nobody takes it; `failed` and `finish` tell of that.
            drop(queue.send((offset, bytes, memory)));
        }
    }

    /// True when a write has failed: [`FileWrites::finish`] tells which.
    pub(super) fn has_failed(&self) -> bool {
        self.task.is_finished()
    }

    /// Waits until everything is written.
    pub(super) async fn finish(&mut self) -> io::Result<()> {
        self.queue = None;
        match (&mut self.task).await {
            Ok(outcome) => outcome,
            Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
            Err(_) => Err(io::ErrorKind::Interrupted.into()),
        }
    }
}

impl Drop for FileWrites {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// The hash over a file, carried on in the pool behind the writes, in as few jobs as it takes.
pub(super) struct FileHash {
    queue: Option<mpsc::UnboundedSender<Hashed>>,
    task: JoinHandle<blake3::Hasher>,
}

/// Bytes to hash, with the memory that they hold on to.
type Hashed = (Bytes, Rc<Option<OwnedSemaphorePermit>>);

impl FileHash {
    pub(super) fn start(ctx: disk::Context, header: &[u8]) -> FileHash {
        let (queue, mut pieces) = mpsc::unbounded_channel::<Hashed>();
        let mut hasher = blake3::Hasher::new();
        hasher.update(header);
        let task = tokio::task::spawn_local(async move {
            let mut batch = Vec::new();
            while pieces.recv_many(&mut batch, 64).await > 0 {
                let bytes: Vec<Bytes> = batch.iter().map(|(bytes, _)| bytes.clone()).collect();
                let job = move || {
                    bytes.iter().for_each(|bytes| {
                        hasher.update(bytes);
                    });
                    hasher
                };
                hasher = ctx.offload(job).await;
                batch.clear();
            }
            hasher
        });
        FileHash { queue: Some(queue), task }
    }

    pub(super) fn push(&mut self, bytes: Bytes, memory: Rc<Option<OwnedSemaphorePermit>>) {
        if let Some(queue) = &self.queue {
            // The task ends only after the queue: nothing can be lost here.
            drop(queue.send((bytes, memory)));
        }
    }

    /// The hash over all that was pushed.
    pub(super) async fn finish(&mut self) -> [u8; 32] {
        self.queue = None;
        match (&mut self.task).await {
            Ok(hasher) => *hasher.finalize().as_bytes(),
            Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
            // Aborted only by the drop of the segment, which nobody then waits for.
            Err(_) => [0; 32],
        }
    }
}

impl Drop for FileHash {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// The result of a task of ours; one that was aborted counts as interrupted.
pub(super) async fn joined(task: JoinHandle<std::io::Result<()>>) -> std::io::Result<()> {
    task.await.unwrap_or_else(|_| Err(std::io::ErrorKind::Interrupted.into()))
}
