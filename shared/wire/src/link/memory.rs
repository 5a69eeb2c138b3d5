//! Two links that are connected in memory, for the simulator and for tests: the real sessions, the
//! real frames, no socket, no thread, no TLS.
//!
//! Between them lies a cable whose [`Weather`] says of each piece of bytes when it arrives, or that it
//! does not. Corruption ends the link at the receiver, as it does under TLS, whose records are
//! authenticated: bytes that were changed on the way are never delivered. Everything runs on the
//! caller's thread and on tokio's clock, so that a paused clock makes it deterministic.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use bytes::BytesMut;

use super::{About, Link, LinkConfig, new_link, session};
use crate::Identity;
use crate::frame::Decoder;

mod cable;

pub use cable::Cable;

/// Which way bytes go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Direction {
    /// From [`MemoryPair::near`] to [`MemoryPair::far`].
    NearToFar,
    /// From [`MemoryPair::far`] to [`MemoryPair::near`].
    FarToNear,
}

/// What becomes of a piece of bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// Arrives after so long, but not before what was sent earlier in the same direction.
    Deliver {
        /// How long it is under way.
        after: Duration,
    },
    /// Is changed on the way: the receiver notices when it arrives, and its link ends.
    Corrupt {
        /// How long it is under way.
        after: Duration,
    },
    /// The cable breaks, in both directions, after the first bytes of this piece.
    Cut {
        /// How many bytes of the piece still arrive.
        delivered_bytes: usize,
    },
}

/// Decides about each piece of bytes, in the order in which they are sent.
pub trait Weather {
    /// What becomes of a piece of `bytes` bytes.
    fn fate(&mut self, direction: Direction, bytes: usize) -> Fate;
}

impl<F: FnMut(Direction, usize) -> Fate> Weather for F {
    fn fate(&mut self, direction: Direction, bytes: usize) -> Fate {
        self(direction, bytes)
    }
}

/// Everything arrives at once.
#[derive(Clone, Copy, Debug, Default)]
pub struct Calm;

impl Weather for Calm {
    fn fate(&mut self, _: Direction, _: usize) -> Fate {
        Fate::Deliver { after: Duration::ZERO }
    }
}

/// The work of one side. Nothing moves unless it is polled; dropping it is what a crash of that side
/// looks like to the other.
pub type SessionTask = std::pin::Pin<Box<dyn Future<Output = ()>>>;

/// Two connected links and what drives them.
pub struct MemoryPair {
    /// One side.
    pub near: Link,
    /// The other side.
    pub far: Link,
    /// Drives `near`.
    pub near_session: SessionTask,
    /// Drives `far`.
    pub far_session: SessionTask,
    /// What lies between.
    pub cable: Cable,
}

/// Connects two sites in memory, as if TLS and greeting had gone well.
///
/// `near_site` and `far_site` are who they are (each sees the other as its peer), `protocol` the version
/// on which they agreed.
pub fn memory_pair(
    near_site: Identity,
    far_site: Identity,
    protocol: u16,
    config: &LinkConfig,
    weather: impl Weather + 'static,
) -> MemoryPair {
    let cable = Cable::new(Rc::new(RefCell::new(weather)));
    let side = |peer: Identity, direction| {
        let (remote, software) = ("memory".to_owned(), "memory".to_owned());
        let (link, ends) = new_link(About { peer, remote, protocol, software }, config);
        let stream = cable.end(direction);
        let run = session::run(stream, BytesMut::new(), Decoder::new(), ends, config.clone());
        (link, Box::pin(run) as SessionTask)
    };
    let (near, near_session) = side(far_site, Direction::NearToFar);
    let (far, far_session) = side(near_site, Direction::FarToNear);
    MemoryPair { near, far, near_session, far_session, cable }
}

#[cfg(test)]
mod tests;
