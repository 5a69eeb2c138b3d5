//! The [`Context`]: the only way by which role code touches the world outside its own state.

use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;

use tokio::sync::oneshot;

use crate::Storage;

/// A future on the relationship's own thread.
pub type Local<'a, T> = Pin<Box<dyn Future<Output = T> + 'a>>;

/// The wall clock. Monotonic time is tokio's (`tokio::time`), which the simulator pauses.
pub trait Clock: 'static {
    /// Milliseconds since 1970, UTC. May jump.
    fn unix_ms(&self) -> u64;

    /// Changes with every boot of the machine: tells a killed process (page cache kept) from a
    /// power cut (page cache lost).
    fn boot_id(&self) -> [u8; 16];
}

/// Random bytes, fresh from the kernel at each call.
pub trait Entropy: 'static {
    /// Fills `buf`.
    fn fill(&self, buf: &mut [u8]);
}

/// A pool for work that burns CPU: digests, compression, sealing.
pub trait Offload: 'static {
    /// Queues a job. Jobs run in any order, several at a time.
    fn submit(&self, job: Box<dyn FnOnce() + Send>);

    /// How many jobs make progress at the same time; at least 1.
    fn width(&self) -> usize;
}

/// Clock, randomness, pool and disk of one machine. Cheap to clone.
#[derive(Clone)]
pub struct Context {
    /// The machine's file systems.
    pub storage: Rc<dyn Storage>,
    /// The pool.
    pub offload: Rc<dyn Offload>,
    /// The wall clock.
    pub clock: Rc<dyn Clock>,
    /// Randomness.
    pub entropy: Rc<dyn Entropy>,
}

impl Context {
    /// `N` random bytes fresh from the kernel.
    pub fn random<const N: usize>(&self) -> [u8; N] {
        let mut bytes = [0; N];
        self.entropy.fill(&mut bytes);
        bytes
    }

    /// The same machine, where others may read the files made from here on.
    pub fn readable_by_others(&self) -> Context {
        Context { storage: self.storage.readable_by_others(), ..self.clone() }
    }

    /// The time and the random bytes from which a new id is made, e.g.
    /// `CutId::new(ctx.unix_ms(), ctx.random())`.
    pub fn unix_ms(&self) -> u64 {
        self.clock.unix_ms()
    }

    /// The id of this boot of the machine, in hex: what was only in the page cache is gone when it is another.
    pub fn boot(&self) -> String {
        data_encoding::HEXLOWER.encode(&self.clock.boot_id())
    }

    /// Runs `job` in the pool and waits for its result. A job that panics is a bug, and the panic
    /// goes on here.
    pub async fn offload<T, F>(&self, job: F) -> T
    where
        T: Send + 'static,
        F: FnOnce() -> T + Send + 'static,
    {
        let (send, receive) = oneshot::channel();
        self.offload.submit(Box::new(move || {
            let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(job));
            // The one who asked may have gone away; then nobody wants the result.
            drop(send.send(result));
        }));
        match receive.await {
            Ok(Ok(value)) => value,
            Ok(Err(panic)) => std::panic::resume_unwind(panic),
            // invariant: a pool runs every job that it takes (`Offload::submit`).
            Err(_) => panic!("the pool dropped a job"),
        }
    }
}
