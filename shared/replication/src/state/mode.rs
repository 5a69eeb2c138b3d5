//! How a peer is kept: the modes of DESIGN.md section 10.

use serde::{Deserialize, Serialize};

/// How changes reach a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Mode {
    /// A write is answered when the peer has it in its journal, a flush when it is durable on both sides;
    /// in force from the commit of the cut that the stream follows.
    Sync {
        /// What happens to writes when the peer cannot be reached any more.
        on_link_loss: OnLinkLoss,
    },
    /// Writes are answered here and sent in order, through a bounded queue.
    Async,
    /// A catch-up every so often.
    Cycle {
        /// Milliseconds from one to the next; the replica's own interval where nothing is said.
        every_ms: Option<u64>,
    },
}

/// In sync mode: what happens to writes while the peer cannot be reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OnLinkLoss {
    /// They are answered here alone, after a durable mark that says since when.
    Continue,
    /// They wait for the peer, and fail when it has not come back in time.
    Block {
        /// How long, in milliseconds, since the peer was lost.
        limit_ms: u64,
    },
}

impl Default for Mode {
    fn default() -> Self {
        Mode::Cycle { every_ms: None }
    }
}

impl Mode {
    /// Whether writes stream.
    pub fn streams(self) -> bool {
        !matches!(self, Mode::Cycle { .. })
    }

    /// Whether writes wait for the peer.
    pub fn is_sync(self) -> bool {
        matches!(self, Mode::Sync { .. })
    }

    /// The word for people.
    pub fn name(self) -> &'static str {
        match self {
            Mode::Sync { .. } => "sync",
            Mode::Async => "async",
            Mode::Cycle { .. } => "cycle",
        }
    }
}
