//! What the relationship's halves and the session behind them share: queues, credits, the wish to
//! close, and how it ended.

use std::sync::{Arc, OnceLock};

use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, watch};

use super::counters::Counters;
use super::{About, Closing};
use crate::Error;
use crate::frame::{Frame, MAX_WEIGHT};

/// A frame with the memory that it was granted; dropping it gives the memory back.
#[derive(Debug)]
pub(super) struct Queued {
    pub frame: Frame,
    pub credit: OwnedSemaphorePermit,
}

/// The session's ends of the queues.
pub(super) struct Ends {
    pub to_send: mpsc::UnboundedReceiver<Queued>,
    pub send_credits: Arc<Semaphore>,
    pub received: mpsc::UnboundedSender<Queued>,
    pub receive_credits: Arc<Semaphore>,
    pub shared: Arc<Shared>,
    /// Dropped last: tells [`Shared::wait_until_gone`].
    pub _gone: watch::Sender<()>,
}

impl Ends {
    /// Says how the link ended and wakes everybody who waits on it.
    pub fn end(&self, error: Error) {
        self.shared.set_ending(error);
        self.send_credits.close();
    }
}

#[derive(Debug)]
pub(super) struct Shared {
    about: About,
    queue_bytes: usize,
    ending: OnceLock<Error>,
    closing: watch::Sender<Option<Closing>>,
    gone: watch::Receiver<()>,
    pub counters: Counters,
}

impl Shared {
    pub fn new(about: About, queue_bytes: usize, gone: watch::Receiver<()>) -> Self {
        Shared {
            about,
            // Permits are counted in u32 at a time; 1 GiB is more than anyone needs.
            queue_bytes: queue_bytes.clamp(MAX_WEIGHT, 1 << 30),
            ending: OnceLock::new(),
            closing: watch::Sender::new(None),
            gone,
            counters: Counters::default(),
        }
    }

    pub fn about(&self) -> &About {
        &self.about
    }

    pub fn queue_bytes(&self) -> usize {
        self.queue_bytes
    }

    /// A weight as a number of permits that can be granted at all.
    pub fn capped(&self, weight: usize) -> u32 {
        weight.min(self.queue_bytes) as u32
    }

    /// The first request counts.
    pub fn request_close(&self, closing: Closing) {
        self.closing.send_if_modified(|slot| {
            let first = slot.is_none();
            slot.get_or_insert(closing);
            first
        });
    }

    /// Waits until somebody here wants to close.
    pub async fn close_requested(&self) -> Closing {
        let mut receiver = self.closing.subscribe();
        match receiver.wait_for(Option::is_some).await.map(|slot| slot.clone()) {
            Ok(Some(closing)) => closing,
            // The sender lives in `self`: this cannot end without a value.
            Ok(None) | Err(_) => std::future::pending().await,
        }
    }

    fn set_ending(&self, error: Error) {
        // The first cause counts; what follows from it is noise.
        self.ending.get_or_init(|| error);
    }

    /// How it ended; before that, as if it had been closed.
    pub fn ending(&self) -> Error {
        self.ending.get().cloned().unwrap_or(Error::Closed)
    }

    pub async fn wait_until_gone(&self) {
        let mut gone = self.gone.clone();
        // Nothing is ever sent: this returns when the session's end is dropped.
        while gone.changed().await.is_ok() {}
    }
}
