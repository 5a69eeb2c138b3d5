//! The source role: the site whose volumes applications write to.
//!
//! The data path of one write (DESIGN.md section 6): credits, gate, bits and region, preserve for
//! copy sessions, base write, leave the gate, reply. What can be done without waiting is done inline
//! ([`Source::write_now`]); the rest runs in a task of its own that owns ticket, lock, credits and
//! buffer until the write is done, whatever the client does meanwhile.

mod agree;
mod alone;
mod backlog;
mod bookmark;
mod cut;
mod deliver;
mod export;
mod facts;
mod give_way;
mod keep;
mod links;
mod peers;
mod samples;
mod serve_link;
mod start;
mod stream;
mod switchover;
#[cfg(test)]
mod tests;
mod verify;
mod write;

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

use disk::Context;
use grain::attach::{Overwrite, Rule, Side, Verdict};
use grain::{CutId, GrainSet};
use tokio::sync::{Mutex, Notify, Semaphore};

use crate::group_commit::GroupCommit;
use crate::pace::{Pace, PaceSettings};
use crate::session::CopySession;
use crate::state::StateStore;
use crate::track::{Gate, RangeLocks, Tracker};
use crate::volumes::Volumes;

pub use bookmark::{Bookmarked, check_label};
pub use cut::CutPause;
pub use export::VolumeExport;
pub use serve_link::{LinkProgress, ServeSettings, serve_link};
pub use stream::{StreamSettings, StreamShown, Tickets};
pub use verify::LinkVerify;
pub use write::{Change, Tried, Written};

pub(crate) use agree::plain;
pub(crate) use deliver::grain_digests;
pub(crate) use keep::Owed;
pub(crate) use serve_link::digest;

/// Bounds and choices of a source.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Bytes that a power cut may make suspected at most.
    pub crash_excess_bytes: u64,
    /// Every bit is made durable before its write.
    pub crash_excess_exact: bool,
    /// Bytes of writes that wait outside the inline path at most.
    pub credit_bytes: u64,
    /// How long a cut waits for writes under way.
    pub cut_limit: Duration,
    /// Bytes of layer files kept at most for what is no longer needed.
    pub layer_history_bytes: u64,
    /// Start although the volumes were changed while nobody tracked; everything then counts as
    /// written.
    pub accept_touched: bool,
    /// Clear the state `suspect`: the operator says that this side's content is right.
    pub accept_suspect: bool,
    /// How fast the background goes.
    pub pace: PaceSettings,
}

impl Default for Settings {
    fn default() -> Self {
        Settings {
            crash_excess_bytes: 64 << 30,
            crash_excess_exact: false,
            credit_bytes: 64 << 20,
            cut_limit: Duration::from_secs(10),
            layer_history_bytes: 256 << 20,
            accept_touched: false,
            accept_suspect: false,
            pace: PaceSettings::default(),
        }
    }
}

/// See the module's text.
pub struct Source {
    ctx: Context,
    store: StateStore,
    volumes: Rc<Volumes>,
    tracker: Rc<Tracker>,
    pace: Rc<Pace>,
    settings: Settings,
    gate: Gate,
    locks: Vec<RangeLocks>,
    sessions: RefCell<Vec<Rc<CopySession>>>,
    credits: Rc<Semaphore>,
    flusher: GroupCommit,
    /// A sync of the base failed: no later one is believed.
    sync_failed: Rc<Cell<bool>>,
    cutting: Mutex<()>,
    /// Union of the closed layers that some peer still needs.
    owed: RefCell<Owed>,
    /// Grains that only a power cut made count as written.
    suspected: RefCell<GrainSet>,
    marked_alone: Cell<bool>,
    longest_pause_us: Cell<u64>,
    stopping: Cell<bool>,
    /// A clean stop has begun: nothing takes writes again.
    stop_begun: Cell<bool>,
    /// Another site was promoted while this one had acknowledged nothing alone.
    fenced: Cell<bool>,
    /// A dump is being begun, resumed or run.
    pub(crate) dumping: Cell<bool>,
    /// The working session of each replica.
    links: Rc<links::Links>,
    streams: stream::Streams,
    mode_changed: Notify,
    /// The run before did not end in good order.
    unclean: bool,
    switchover: RefCell<Option<Rc<switchover::Switchover>>>,
    switchover_asked: Notify,
    switchover_over: Notify,
    bookmarks: bookmark::Bookmarks,
    /// What the promotion of this site left in the journal.
    backlog: Option<Rc<backlog::Backlog>>,
}

impl Source {
    /// The durable state.
    pub fn store(&self) -> &StateStore {
        &self.store
    }

    /// The base volumes.
    pub fn volumes(&self) -> &Rc<Volumes> {
        &self.volumes
    }

    /// Clock, randomness, disk.
    pub fn context(&self) -> &Context {
        &self.ctx
    }

    /// The newest cut.
    pub fn head(&self) -> Option<CutId> {
        self.store.with(|s| s.lineage.head().map(|c| c.id))
    }

    /// What at least one peer may not have: written since the cut that it last acknowledged.
    pub fn dirty(&self) -> GrainSet {
        self.with_open(self.owed.borrow().all().clone())
    }

    /// What this peer may not have: written since the cut that it last acknowledged.
    pub fn dirty_of(&self, identity: &str) -> GrainSet {
        self.with_open(self.owed.borrow().of(identity).clone())
    }

    fn with_open(&self, mut closed: GrainSet) -> GrainSet {
        self.tracker.with_open(|open| closed.union_with(open));
        closed
    }

    /// Whether at least one peer may not have this grain as it is.
    pub fn dirty_contains(&self, volume: grain::VolumeId, index: u64) -> bool {
        self.owed.borrow().all().contains(volume, index)
            || self.tracker.with_open(|open| open.contains(volume, index))
    }

    /// The oldest cut that a peer stands at: layers up to it are needed by nobody.
    pub fn peer_floor(&self) -> Option<CutId> {
        self.store.with(|s| grain::lineage::drop_floor(&s.lineage, s.peers.iter().map(|p| p.acked)))
    }

    /// What was written since the newest cut.
    pub fn open_layer(&self) -> GrainSet {
        self.tracker.with_open(GrainSet::clone)
    }

    /// Grains that count as written only because of a power cut.
    pub fn suspected(&self) -> GrainSet {
        self.suspected.borrow().clone()
    }

    /// Bytes that a power cut now would make suspected.
    pub fn crash_excess_bytes(&self) -> u64 {
        self.tracker.excess_bytes()
    }

    /// The longest time, in microseconds, that a cut kept writers waiting since the start.
    pub fn longest_pause_us(&self) -> u64 {
        self.longest_pause_us.get()
    }

    /// How fast dumps, catch-ups and verifications read here.
    pub fn pace(&self) -> &Rc<Pace> {
        &self.pace
    }

    /// Whether writes are refused because another site was promoted.
    pub fn is_fenced(&self) -> bool {
        self.fenced.get()
    }

    /// What an attach with another source said. A source that learns of a promotion before it has
    /// acknowledged anything alone takes no write any more: nothing is lost by that, and a split brain is
    /// avoided. One that has acknowledged writes alone is never stopped by a mistaken promotion.
    pub(crate) fn learn(&self, verdict: &Verdict) {
        let mine = match verdict.overwrite {
            Overwrite::Named { offered, .. } => offered == Some(Side::Mine),
            _ => false,
        };
        if verdict.rule == Rule::Promoted && mine && !self.marked_alone.get() {
            tracing::error!("another site was promoted: no more writes are taken here");
            self.fenced.set(true);
        }
    }

    /// Whether this source was started after a run that did not end in good order: what happened at its peers
    /// since is not known here.
    pub fn was_unclean(&self) -> bool {
        self.unclean
    }

    /// Ends a copy session's protection: writers do not see it any more.
    pub fn remove_session(&self, session: &Rc<CopySession>) {
        self.sessions.borrow_mut().retain(|s| !Rc::ptr_eq(s, session));
    }
}
