//! A pool of threads that grows on demand up to a limit.
//!
//! Jobs are taken in the order in which they came and run to their end; a job that panics does not
//! take its thread along. Threads stay until the pool is dropped; dropping does not wait for them (a
//! thread may be stuck in the kernel with a dead disk), but what is queued is still carried out as
//! long as the process lives.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;

use crate::Offload;

type Job = Box<dyn FnOnce() + Send>;

/// A pool of threads, see the module. Shared by `Arc` or used as the [`Offload`] of a context.
pub struct ThreadPool {
    shared: Arc<Shared>,
    name: &'static str,
    limit: usize,
}

struct Shared {
    state: Mutex<State>,
    work: Condvar,
}

#[derive(Default)]
struct State {
    queue: VecDeque<Job>,
    /// Threads that wait for work.
    idle: usize,
    /// Threads there are.
    threads: usize,
    closed: bool,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        // Jobs run outside the lock, so a poisoned lock still guards a whole state.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The life of one thread.
    fn serve(&self) {
        let mut state = self.lock();
        loop {
            if let Some(job) = state.queue.pop_front() {
                drop(state);
                if catch_unwind(AssertUnwindSafe(job)).is_err() {
                    tracing::error!("a job in the pool panicked");
                }
                state = self.lock();
            } else if state.closed {
                state.threads -= 1;
                return;
            } else {
                state.idle += 1;
                state = self.work.wait(state).unwrap_or_else(PoisonError::into_inner);
                state.idle -= 1;
            }
        }
    }
}

impl ThreadPool {
    /// A pool of at most `limit` threads (at least 1), named after `name` for `ps` and debuggers.
    pub fn new(name: &'static str, limit: usize) -> Self {
        let shared = Shared { state: Mutex::default(), work: Condvar::new() };
        ThreadPool { shared: Arc::new(shared), name, limit: limit.max(1) }
    }

    /// Queues a job.
    pub fn spawn(&self, job: Job) {
        let mut state = self.shared.lock();
        state.queue.push_back(job);
        if state.queue.len() > state.idle && state.threads < self.limit {
            state.threads += 1;
            drop(state);
            self.grow();
        } else {
            drop(state);
            self.shared.work.notify_one();
        }
    }

    /// How many threads there are now.
    pub fn threads(&self) -> usize {
        self.shared.lock().threads
    }

    fn grow(&self) {
        let shared = self.shared.clone();
        let name = format!("grainhaul-{}", self.name);
        if let Err(error) = thread::Builder::new().name(name).spawn(move || shared.serve()) {
            let mut state = self.shared.lock();
            state.threads -= 1;
            if state.threads == 0 {
                // Slow is better than never: no thread is there to carry it out.
                tracing::warn!(%error, "cannot start a thread; working on the caller's");
                while let Some(job) = state.queue.pop_front() {
                    drop(state);
                    job();
                    state = self.shared.lock();
                }
            }
        }
    }
}

impl Drop for ThreadPool {
    fn drop(&mut self) {
        self.shared.lock().closed = true;
        self.shared.work.notify_all();
    }
}

impl Offload for ThreadPool {
    fn submit(&self, job: Job) {
        self.spawn(job);
    }

    fn width(&self) -> usize {
        self.limit
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    #[test]
    fn jobs_run_side_by_side_up_to_the_limit() {
        let pool = ThreadPool::new("test", 3);
        let (send, receive) = mpsc::channel();
        // Each job waits for the two others: only three threads at once let them end.
        let barrier = Arc::new(std::sync::Barrier::new(3));
        for i in 0..9 {
            let (send, barrier) = (send.clone(), barrier.clone());
            pool.spawn(Box::new(move || {
                barrier.wait();
                send.send(i).unwrap();
            }));
        }
        let mut done: Vec<_> = (0..9).map(|_| receive.recv().unwrap()).collect();
        done.sort_unstable();
        assert_eq!(done, (0..9).collect::<Vec<_>>());
        assert_eq!(pool.threads(), 3);
    }

    #[test]
    fn a_panic_does_not_cost_the_thread_and_the_queue_outlives_the_pool() {
        let pool = ThreadPool::new("test", 1);
        let (send, receive) = mpsc::channel();
        pool.spawn(Box::new(|| std::panic::resume_unwind(Box::new("on purpose"))));
        pool.spawn(Box::new(move || send.send(7).unwrap()));
        drop(pool);
        assert_eq!(receive.recv(), Ok(7));
    }
}
