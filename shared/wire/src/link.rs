//! A link: frames to and from one peer, as the relationship sees them.
//!
//! Two queues of frames, each bounded in bytes: who sends waits while the queue is full, and the link
//! stops reading from the socket while what it received is not taken. The session behind it (framing,
//! keep-alive, closing) is the same code over a socket with TLS, on a thread of its own, and over a
//! pipe in memory, on the thread of the simulator.
//!
//! Not promised: that a frame that was sent arrives. A link that ends says how it ended; what was under
//! way is for the protocol above to settle.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Semaphore, mpsc, watch};

use crate::frame::{Compress, FIRST_FREE_KIND, Frame};
use crate::{Error, Identity};

mod connect;
mod counters;
mod dial;
mod hello;
mod listen;
mod memory;
mod queue;
mod session;
mod socket;

pub use counters::LinkCounters;
pub use dial::{Dial, dial};
pub use hello::{Greeting, Terms, greet_as_dialer, greet_as_listener, refusal};
pub use listen::{Incoming, Listen, Listener};
pub use memory::{Cable, Calm, Direction, Fate, MemoryPair, SessionTask, Weather, memory_pair};
use queue::{Queued, Shared};

/// How a link behaves. The defaults suit a WAN.
#[derive(Clone, Debug)]
pub struct LinkConfig {
    /// How many bytes of frames may wait in each direction (at least 18 MiB, the weight of the
    /// largest frame). Beside them a link needs at most 4 MiB for TLS and batches.
    pub queue_bytes: usize,
    /// Signs of life; `None` switches them off.
    pub keep_alive: Option<KeepAlive>,
    /// How long a connection attempt to one address may take.
    pub connect_timeout: Duration,
    /// How long TLS and greeting may take together.
    pub handshake_timeout: Duration,
    /// How long a closing link may go on to deliver what was queued before.
    pub linger: Duration,
    /// After how long without an acknowledgement the kernel gives a connection up. Longer than
    /// `keep_alive.dead_after`, because it also runs while a busy peer reads nothing.
    pub tcp_user_timeout: Duration,
    /// Size of the kernel's buffers; `None` leaves it to the kernel, which adapts them to the path.
    pub socket_buffer_bytes: Option<usize>,
    /// Whether payloads of frames that ask for it are compressed.
    pub compress: Compress,
}

/// Signs of life on an idle link.
#[derive(Clone, Copy, Debug)]
pub struct KeepAlive {
    /// A ping goes out when nothing else did for so long.
    pub interval: Duration,
    /// The peer counts as dead when nothing came from it for so long.
    pub dead_after: Duration,
}

impl Default for LinkConfig {
    fn default() -> Self {
        let seconds = Duration::from_secs;
        LinkConfig {
            queue_bytes: 32 << 20,
            keep_alive: Some(KeepAlive { interval: seconds(5), dead_after: seconds(20) }),
            connect_timeout: seconds(10),
            handshake_timeout: seconds(10),
            linger: seconds(5),
            tcp_user_timeout: seconds(120),
            socket_buffer_bytes: None,
            compress: Compress::Off,
        }
    }
}

/// How a link is to end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Closing {
    /// All was said.
    Done,
    /// No, and why. The peer sees [`Error::Refused`] with the same code and words.
    Refused {
        /// For programs: see [`refusal`]; those of the protocol above start at
        /// [`refusal::FIRST_FREE`].
        code: u16,
        /// For people; cut at 500 characters.
        text: String,
    },
}

/// What is known about the other end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct About {
    /// Who it is, proven by TLS.
    pub peer: Identity,
    /// Its address, or `memory`.
    pub remote: String,
    /// The version of the protocol above on which both agreed.
    pub protocol: u16,
    /// What it says it runs.
    pub software: String,
}

/// A link that is up. Ends when it is closed or when both halves are dropped; what was sent before is
/// delivered first, for at most [`LinkConfig::linger`].
#[derive(Debug)]
pub struct Link {
    sender: LinkSender,
    receiver: LinkReceiver,
}

/// The sending half. Clones send into the same link.
#[derive(Clone, Debug)]
pub struct LinkSender {
    shared: Arc<Shared>,
    outgoing: mpsc::UnboundedSender<Queued>,
    credits: Arc<Semaphore>,
    _close_on_drop: Arc<CloseOnDrop>,
}

/// The receiving half.
#[derive(Debug)]
pub struct LinkReceiver {
    shared: Arc<Shared>,
    incoming: mpsc::UnboundedReceiver<Queued>,
    close_on_drop: Arc<CloseOnDrop>,
}

/// Reads what went over a link, without keeping it open.
#[derive(Clone, Debug)]
pub struct LinkMeter {
    shared: Arc<Shared>,
    credits: Arc<Semaphore>,
}

impl LinkMeter {
    /// What went over the link so far.
    pub fn counters(&self) -> LinkCounters {
        self.shared.counters.snapshot()
    }

    /// Bytes of frames that were sent and have not gone to the socket yet.
    pub fn waiting_bytes(&self) -> u64 {
        self.shared.queue_bytes().saturating_sub(self.credits.available_permits()) as u64
    }
}

/// Held by every half; when the last goes, nobody can use the link any more.
#[derive(Debug)]
struct CloseOnDrop(Arc<Shared>);

impl Drop for CloseOnDrop {
    fn drop(&mut self) {
        self.0.request_close(Closing::Done);
    }
}

impl Link {
    /// Who is at the other end.
    pub fn peer(&self) -> &Identity {
        &self.sender.about().peer
    }

    /// What is known about the other end.
    pub fn about(&self) -> &About {
        self.sender.about()
    }

    /// What goes over it, to be read while the halves are in use.
    pub fn meter(&self) -> LinkMeter {
        let (shared, credits) = (self.sender.shared.clone(), self.sender.credits.clone());
        LinkMeter { shared, credits }
    }

    /// The two halves. They end together.
    pub fn split(self) -> (LinkSender, LinkReceiver) {
        (self.sender, self.receiver)
    }
}

impl LinkSender {
    /// Queues a frame, waiting while the queue is full. When this returns, the frame is queued and
    /// nothing more; when its future is dropped before, the frame is not sent.
    ///
    /// Fails with what ended the link, or when the frame breaks a bound of [`crate::frame`].
    pub async fn send(&self, frame: Frame) -> Result<(), Error> {
        check(&frame)?;
        let weight = self.shared.capped(frame.weight());
        let credit = self.credits.clone().acquire_many_owned(weight).await;
        let credit = credit.map_err(|_| self.shared.ending())?;
        self.outgoing.send(Queued { frame, credit }).map_err(|_| self.shared.ending())
    }

    /// Queues a frame if there is room now; gives it back as `Ok(Some(frame))` if not.
    pub fn try_send(&self, frame: Frame) -> Result<Option<Frame>, Error> {
        check(&frame)?;
        let weight = self.shared.capped(frame.weight());
        match self.credits.clone().try_acquire_many_owned(weight) {
            Ok(credit) => {
                let queued = self.outgoing.send(Queued { frame, credit });
                queued.map(|()| None).map_err(|_| self.shared.ending())
            }
            Err(tokio::sync::TryAcquireError::NoPermits) => Ok(Some(frame)),
            Err(tokio::sync::TryAcquireError::Closed) => Err(self.shared.ending()),
        }
    }

    /// Ends the link: delivers what was queued, then says why. Returns at once; the first reason
    /// counts.
    pub fn close(&self, closing: Closing) {
        self.shared.request_close(closing);
    }

    /// Waits until the link has ended and nothing of it is left, and says how it ended.
    pub async fn ended(&self) -> Error {
        self.shared.wait_until_gone().await;
        self.shared.ending()
    }

    /// What is known about the other end.
    pub fn about(&self) -> &About {
        self.shared.about()
    }

    /// What went over the link so far.
    pub fn counters(&self) -> LinkCounters {
        self.shared.counters.snapshot()
    }

    /// Bytes that can be queued now without waiting.
    pub fn room_bytes(&self) -> usize {
        self.credits.available_permits()
    }
}

impl LinkReceiver {
    /// The next frame. What arrived before the end is still delivered; then comes the error that says
    /// how the link ended ([`Error::Closed`] when it was closed in good order), every time.
    pub async fn recv(&mut self) -> Result<Frame, Error> {
        match self.incoming.recv().await {
            // Giving the credit back lets the session read on.
            Some(Queued { frame, credit }) => {
                drop(credit);
                Ok(frame)
            }
            None => Err(self.shared.ending()),
        }
    }

    /// The next frame if one is there: `Ok(None)` when not.
    pub fn try_recv(&mut self) -> Result<Option<Frame>, Error> {
        match self.incoming.try_recv() {
            Ok(queued) => Ok(Some(queued.frame)),
            Err(mpsc::error::TryRecvError::Empty) => Ok(None),
            Err(mpsc::error::TryRecvError::Disconnected) => Err(self.shared.ending()),
        }
    }

    /// Ends the link, as [`LinkSender::close`] does.
    pub fn close(&self, closing: Closing) {
        self.close_on_drop.0.request_close(closing);
    }
}

fn check(frame: &Frame) -> Result<(), Error> {
    if frame.kind < FIRST_FREE_KIND {
        return Err(Error::Encode(format!("frame kind {} belongs to the link", frame.kind)));
    }
    frame.check()
}

/// Makes the two halves for the relationship and the ends for the session.
fn new_link(about: About, config: &LinkConfig) -> (Link, queue::Ends) {
    let (gone_sender, gone) = watch::channel(());
    let shared = Arc::new(Shared::new(about, config.queue_bytes, gone));
    let (outgoing, to_send) = mpsc::unbounded_channel();
    let (received, incoming) = mpsc::unbounded_channel();
    let credits = Arc::new(Semaphore::new(shared.queue_bytes()));
    let close_on_drop = Arc::new(CloseOnDrop(shared.clone()));
    let ends = queue::Ends {
        to_send,
        send_credits: credits.clone(),
        received,
        receive_credits: Arc::new(Semaphore::new(shared.queue_bytes())),
        shared: shared.clone(),
        _gone: gone_sender,
    };
    let sender = LinkSender {
        shared: shared.clone(),
        outgoing,
        credits,
        _close_on_drop: close_on_drop.clone(),
    };
    let receiver = LinkReceiver { shared, incoming, close_on_drop };
    (Link { sender, receiver }, ends)
}

#[cfg(test)]
mod tests;
