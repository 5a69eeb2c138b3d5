//! The real machine: files and block devices through the page cache, the system's clock, the
//! kernel's random numbers, and pools of threads.
//!
//! [`context`] puts them together. Nothing here holds `unsafe` code; all system calls go through
//! `rustix`. Only this module of the product may open files, read the clock or start threads for
//! role code; everything else reaches them through the traits.

mod blocking;
mod file;
mod inline;
mod machine;
mod pool;
mod storage;

use std::io;
use std::rc::Rc;
use std::sync::Arc;

use crate::Context;

pub use file::RealFile;
pub use machine::{KernelEntropy, SystemClock};
pub use pool::ThreadPool;
pub use storage::RealStorage;

/// The most threads that wait in system calls at the same time: enough to fill the queue of a disk,
/// few enough that a stuck disk does not cost much memory.
pub const IO_THREADS: usize = 16;

/// The context of this machine: the real disk with a pool of [`IO_THREADS`] for what may block, and
/// a pool with one thread a core for what burns CPU. Threads start when they are first needed.
pub fn context() -> Context {
    let cores = std::thread::available_parallelism().map_or(1, |n| n.get());
    Context {
        storage: Rc::new(RealStorage::new(Arc::new(ThreadPool::new("disk", IO_THREADS)))),
        offload: Rc::new(ThreadPool::new("work", cores)),
        clock: Rc::new(SystemClock::new()),
        entropy: Rc::new(KernelEntropy),
    }
}

/// Runs `job` in `pool` and waits for what it answers. The job runs to its end even if this future
/// is dropped.
async fn run<T, F>(pool: &ThreadPool, job: F) -> io::Result<T>
where
    T: Send + 'static,
    F: FnOnce() -> io::Result<T> + Send + 'static,
{
    let (send, receive) = tokio::sync::oneshot::channel();
    pool.spawn(Box::new(move || {
        // The one who asked may have gone away; the work is done all the same.
        drop(send.send(job()));
    }));
    receive.await.unwrap_or_else(|_| Err(io::Error::other("a disk operation panicked (bug)")))
}

#[cfg(test)]
mod tests;
