//! The messages of the replication protocol, version 1. `docs/formats/protocol.md` has the exchange
//! in order.
//!
//! Each is the control part of a frame (bincode, bounded by [`wire::codec`]); what is large travels in
//! the frame's payload. The replica speaks first in each step of a catch-up and pulls at its own pace;
//! only preserved grains are pushed.

use grain::{CutId, Position, Run, SessionId, Span};
use serde::{Deserialize, Serialize};

use super::verify::VerifyMessage;
use crate::state::Mode;

/// The frame kind of all messages.
pub const MESSAGE_KIND: u16 = 16;
/// Runs in one pull at most.
pub const MAX_RUNS_A_PULL: usize = 1024;
/// Grains whose digests travel in one message at most (8192 digests of 32 bytes are 256 KiB).
pub const MAX_DIGESTS: u64 = 8192;

/// Which set a chunk belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum SetName {
    /// The replica's closed layer at this place of its facts.
    Layer(u32),
    /// What the replica's base may hold of a direct catch-up that was not committed.
    Direct,
    /// What the replica should hold and does not.
    Missing,
    /// What had not arrived of a broken session.
    Remaining,
    /// The grains to pull.
    Pull,
    /// The grains that the commit records.
    Record,
    /// Of the grains to pull: those that are compared by digest first.
    Suspected,
    /// What a stream brought the replica after its newest cut, in answer to the question of an attach.
    Streamed,
}

/// What the replica wants of a catch-up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Want {
    /// What changed since the newest common cut.
    Delta,
    /// Everything, compared by digest first.
    Compare,
    /// What either side changed since the newest common cut: a former source gives way, by its operator's
    /// word.
    Rejoin,
}

/// A refusal or an end, in words that both sides show.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusal {
    /// A rule's name, or `fingerprint`, `busy`, `state`.
    pub code: String,
    /// For people.
    pub text: String,
}

/// One sampled grain.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sample {
    /// The volume's number.
    pub volume: u16,
    /// The grain.
    pub grain: u64,
    /// SHA-1 of its bytes at the source.
    pub sha1: [u8; 20],
}

/// A message.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Message {
    /// Both: the facts, in the payload.
    Facts,
    /// Both: the hash of the facts heard.
    Echo {
        /// [`grain::attach::Facts::hash`].
        hash: [u8; 32],
    },
    /// Either: no, and why. The session ends.
    Refuse(Refusal),
    /// Replica: please send samples.
    Check {
        /// How many.
        samples: u32,
    },
    /// Source: the samples, in the payload.
    Samples,
    /// Replica: what came of them.
    Checked {
        /// How many could be compared.
        compared: u32,
        /// Which differ: volume and grain.
        different: Vec<(u16, u64)>,
    },
    /// A chunk of a set, in the payload.
    Set {
        /// Of which.
        name: SetName,
    },
    /// Replica, after its sets: begin.
    Begin {
        /// What is wanted.
        want: Want,
    },
    /// Source: nothing was written since the replica's cut.
    NothingNew {
        /// That cut.
        cut: CutId,
    },
    /// Source: a catch-up to this cut; its lineage is in the payload, the sets follow.
    CatchUp {
        /// The session's id.
        session: SessionId,
        /// The cut, published.
        cut: CutId,
        /// The newest common cut; none for a comparison without one.
        since: Option<CutId>,
        /// The broken session whose grains count.
        carries: Option<SessionId>,
        /// When the cut was made.
        unix_ms: u64,
        /// The name of a bookmark.
        label: Option<String>,
    },
    /// Source: all sets of the catch-up were sent.
    Go,
    /// Replica: send these.
    Pull {
        /// Counts up; the answer names it.
        number: u32,
        /// At most [`MAX_RUNS_A_PULL`].
        runs: Vec<Run>,
    },
    /// Replica: send what of this run differs from the digests in the payload (32 bytes a grain).
    PullDifferent {
        /// Counts up; the answer names it.
        number: u32,
        /// At most [`MAX_DIGESTS`] grains.
        run: Run,
    },
    /// Source: grains, in the payload.
    Data {
        /// Which.
        run: Run,
        /// BLAKE3 of the payload, made where it was read.
        digest: [u8; 32],
    },
    /// Source: these grains are zeros.
    Zero {
        /// Which.
        run: Run,
    },
    /// Source: these are as the replica's digests say.
    Same {
        /// Which.
        run: Run,
    },
    /// Source: its disk does not give these; they do not come in this catch-up.
    Unreadable {
        /// Which.
        run: Run,
    },
    /// Source: everything of that pull that was not pushed before has been sent.
    Pulled {
        /// Which pull.
        number: u32,
    },
    /// Replica: all pulls were answered; send what was preserved.
    Finish,
    /// Source: everything of the session was sent.
    Delivered,
    /// Source: the session cannot go on; what arrived stays useful.
    Broken {
        /// Why.
        text: String,
    },
    /// Replica: durable.
    Committed {
        /// The cut.
        cut: CutId,
    },
    /// Source, between two catch-ups: make your last one now, the role is to be yours.
    Handover,
    /// Source, after that commit: it has given up its role, durably. The session ends.
    Relinquished {
        /// The cut that was committed.
        cut: CutId,
    },
    /// Source: noted.
    Settled {
        /// Layers up to here are not needed by anyone.
        floor: Option<CutId>,
        /// Grains written since the committed cut.
        remaining: u64,
        /// The same in bytes.
        remaining_bytes: u64,
        /// How the replica is kept.
        mode: Mode,
    },
    /// Source, when the verdict asks for it and the replica has sent what its stream brought: whether all
    /// of that stands in the source's layers of the epoch.
    Within {
        /// That.
        within: bool,
    },
    /// Source, between two catch-ups: make the next one now.
    Hurry,
    /// Source, after `Settled` in a mode that streams: not this time.
    Streamless,
    /// Source, after `Settled` in a mode that streams: writes do so from here on.
    Stream {
        /// The cut that was committed, which the stream follows.
        cut: CutId,
    },
    /// Replica: ready for the stream.
    StreamReady {
        /// An epoch should end after so many bytes.
        epoch_bytes: u64,
    },
    /// Source: a write, in the payload.
    Write {
        /// Counts all of the stream: writes, zeros, cuts; from 1 on.
        number: u64,
        /// Counts the writes and zeros since the cut, from 1 on.
        sequence: u64,
        /// Where.
        span: Span,
        /// BLAKE3 of the payload.
        digest: [u8; 32],
        /// Bytes that the replica had not confirmed when this was sent.
        behind: u64,
    },
    /// Source: zeros.
    Clear {
        /// As with a write.
        number: u64,
        /// As with a write.
        sequence: u64,
        /// Where.
        span: Span,
        /// As with a write.
        behind: u64,
    },
    /// Source: an epoch ends; the lineage up to this cut is in the payload. Answered by `Committed`.
    StreamCut {
        /// As with a write.
        number: u64,
        /// The cut.
        cut: CutId,
        /// When it was made.
        unix_ms: u64,
        /// Layers up to here are not needed by anyone.
        floor: Option<CutId>,
        /// The name of a bookmark.
        label: Option<String>,
    },
    /// Source: make durable what came up to here.
    StreamFlush {
        /// The number.
        number: u64,
    },
    /// Replica: how far it is.
    Received {
        /// Everything up to this number stands in the journal.
        received: u64,
        /// And up to this one on stable storage.
        durable: u64,
    },
    /// Source: the stream ends; a catch-up follows when the replica wants it.
    StreamEnd {
        /// Why.
        text: String,
    },
    /// Replica, after the end of a stream: where it stands, durably.
    Left {
        /// Its position.
        position: Position,
    },
    /// Either, at any time: of a verification.
    Verify(VerifyMessage),
}
