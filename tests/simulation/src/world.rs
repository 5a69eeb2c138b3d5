//! The world of one history: two sites, their applications and media, the oracle, and what was found
//! wrong.

use std::cell::{Cell, RefCell};
use std::path::PathBuf;
use std::rc::Rc;

use disk::OpenMode;
use disk::simulated::{Fault, Op, OpKind, Snapshot, SplitMix64};
use grain::{CutReason, Geometry, GrainSize, Lineage, RelationshipId, SetId, VolumeShape};
use replication::dump::DumpJob;
use replication::replica::{self, Replica};
use replication::source::{self, Source};
use replication::state::{
    LayerTable, Peer, ReplicaState, Role, RunRecord, STATE_VERSION, State, StateStore,
};
use tokio::task::AbortHandle;
use tokio::time::Instant;
use wire::SiteKeys;
use wire::link::{Cable, Direction, Fate};

use crate::check::stands_fast::Standing;
use crate::event;
use crate::faults::FileClass;
use crate::node::{Node, dir, volume_path, volumes_of};
use crate::oracle::{Memory, Oracle};
use crate::plan::Site;
use crate::shape::{GRAIN, Shape};
use crate::trace::Trace;
use crate::workload;

thread_local! {
    /// The keys of both sites. Made once a thread by the kernel's randomness, as the product does; no
    /// event of a history depends on them.
    static KEYS: [Rc<SiteKeys>; 2] = {
        let make = || Rc::new(SiteKeys::generate().expect("keys"));
        [make(), make()]
    };
}

/// A promise that did not hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// Which checker found it.
    pub checker: &'static str,
    /// What is wrong.
    pub words: String,
}

/// A media set as the carrier knows it.
#[derive(Clone, Debug)]
pub struct MadeSet {
    /// Which.
    pub set: SetId,
    /// One directory a medium, at the source.
    pub media: Vec<PathBuf>,
}

/// What happened in this history that changes what can be asked of the product.
#[derive(Default)]
pub struct Licence {
    /// A machine was rolled back: the sites may disagree about who is ahead.
    pub rolled_back: Cell<bool>,
    /// A power cut, damage or failure made more count as written than was.
    pub excess: Cell<bool>,
    /// The source may be suspect.
    pub sync_failed: Cell<bool>,
    /// A sync of the volumes failed in this run of the source, and the application was told.
    pub sync_told: Cell<bool>,
    /// When a sync of the volumes last failed in this run of the source.
    pub sync_befell: Cell<Option<Instant>>,
    /// Bits of the replica's journal or maps turned over.
    pub replica_damaged: Cell<bool>,
    /// A clock was set back.
    pub clock: Cell<bool>,
    /// `state.json` of a site is damaged at present: its place, offset, bit.
    pub state_damaged: RefCell<Option<(Site, u64, u8)>>,
}

/// An image of a machine.
pub struct Kept {
    /// The machine.
    pub image: Snapshot,
    /// What the oracle knew.
    pub memory: Memory,
}

/// Decides about a piece that is sent.
pub type Meddler = Rc<dyn Fn(Direction, usize) -> Option<Fate>>;

/// See the module's text.
pub struct World {
    /// Sizes and limits.
    pub shape: Shape,
    /// The volumes.
    pub geometry: Geometry,
    /// What is told.
    pub trace: Rc<Trace>,
    /// What was written.
    pub oracle: Oracle,
    source: Node,
    replica: Node,
    /// The role that runs, by site.
    pub source_role: RefCell<Option<Rc<Source>>>,
    /// The role that runs.
    pub replica_role: RefCell<Option<Rc<Replica>>>,
    /// The source's state while its process runs, from before the role starts.
    pub source_store: RefCell<Option<StateStore>>,
    /// The dump under way.
    pub dump: RefCell<Option<Rc<DumpJob>>>,
    /// Sets whose directory is signed, oldest first.
    pub made: RefCell<Vec<MadeSet>>,
    /// Directories that have arrived at the replica.
    pub arrived: RefCell<Vec<PathBuf>>,
    /// The newest link.
    pub cable: RefCell<Option<Cable>>,
    /// The newest session at the source, and at the replica.
    pub sessions: RefCell<[Option<AbortHandle>; 2]>,
    /// Images of machines.
    pub kept: RefCell<[Option<Kept>; 2]>,
    /// What can be asked of the product now.
    pub licence: Licence,
    /// Requests that clients may still make.
    pub requests: workload::Allowance,
    /// A dump runs.
    pub dumping: Cell<bool>,
    /// A load runs.
    pub loading: Cell<bool>,
    /// Faults have stopped.
    pub healing: Cell<bool>,
    /// Ends of processes are not looked at: who drives this world does that.
    pub unwatched: Cell<bool>,
    /// What becomes of each piece on every link, where it answers.
    pub meddler: RefCell<Option<Meddler>>,
    /// Dumps begun so far.
    pub dumps: Cell<u64>,
    /// What the replica is bound by.
    pub standing: Cell<Standing>,
    random: RefCell<SplitMix64>,
    violation: RefCell<Option<Violation>>,
    fast_look: Cell<Option<grain::CutId>>,
}

impl World {
    /// The world before anything was made.
    pub fn new(seed: u64, shape: &Shape, trace: Trace) -> Rc<World> {
        let mut random = SplitMix64::new(seed);
        let volume =
            |(i, bytes): (usize, &u64)| VolumeShape { alias: format!("v{i}"), bytes: *bytes };
        let volumes = shape.volumes.iter().enumerate().map(volume).collect();
        let grain = GrainSize::from_bytes(GRAIN).expect("a grain");
        let geometry = Geometry { grain, volumes };
        Rc::new(World {
            shape: shape.clone(),
            trace: Rc::new(trace),
            oracle: Oracle::new(&geometry),
            geometry,
            source: Node::new(Site::Source, random.next_u64()),
            replica: Node::new(Site::Replica, random.next_u64()),
            source_role: RefCell::default(),
            replica_role: RefCell::default(),
            source_store: RefCell::default(),
            dump: RefCell::default(),
            made: RefCell::default(),
            arrived: RefCell::default(),
            cable: RefCell::default(),
            sessions: RefCell::default(),
            kept: RefCell::default(),
            licence: Licence::default(),
            requests: workload::Allowance::of(shape.requests),
            dumping: Cell::new(false),
            loading: Cell::new(false),
            healing: Cell::new(false),
            unwatched: Cell::new(false),
            meddler: RefCell::default(),
            dumps: Cell::new(0),
            standing: Cell::default(),
            random: RefCell::new(random.split()),
            violation: RefCell::default(),
            fast_look: Cell::new(None),
        })
    }

    /// One end.
    pub fn node(&self, site: Site) -> &Node {
        match site {
            Site::Source => &self.source,
            Site::Replica => &self.replica,
        }
    }

    /// The keys of a site.
    pub fn keys(&self, site: Site) -> Rc<SiteKeys> {
        KEYS.with(|keys| keys[site as usize].clone())
    }

    /// A generator for a part of the world.
    pub fn split(&self) -> SplitMix64 {
        self.random.borrow_mut().split()
    }

    /// A promise did not hold. The first one counts.
    pub fn fail(&self, checker: &'static str, words: impl Into<String>) {
        let violation = Violation { checker, words: words.into() };
        self.trace.note(format_args!("VIOLATION {checker}: {}", violation.words));
        self.violation.borrow_mut().get_or_insert(violation);
    }

    /// The promise that did not hold.
    pub fn violation(&self) -> Option<Violation> {
        self.violation.borrow().clone()
    }

    /// Whether one did not.
    pub fn has_failed(&self) -> bool {
        self.violation.borrow().is_some()
    }

    /// Takes note of a cut that the source made since the last look. A cut is decided while the gate is
    /// closed, so that the first operation of a machine after it still finds the volumes as they were.
    pub fn look(&self) {
        crate::check::stands_fast::look(self);
        let store = self.source_store.borrow();
        let Some(store) = store.as_ref() else { return };
        let head = store.with(|s| s.lineage.head().map(|cut| (cut.id, cut.reason)));
        let Some((cut, reason)) = head else { return };
        if self.fast_look.get() == Some(cut) {
            return;
        }
        self.fast_look.set(Some(cut));
        if !self.oracle.knows(cut) {
            let volumes = self.source.volumes(self.geometry.volumes.len());
            crate::check::cuts_are_points_in_time::at_cut(self, &volumes);
            self.oracle.cut(cut, volumes);
            match reason {
                CutReason::Start => event!(self, "cut: start", "{cut}"),
                CutReason::Dump => event!(self, "cut: dump", "{cut}"),
                CutReason::Stream => event!(self, "cut: stream", "{cut}"),
                _ => event!(self, "cut: cycle", "{cut}"),
            }
        }
    }

    /// What was made so far is taken note of before a machine goes down.
    pub fn before_crash(&self, site: Site) {
        self.look();
        if site == Site::Source {
            self.source_is_gone();
            self.fast_look.set(None);
        }
    }

    /// The source's process is gone, and with it the state that it held.
    pub fn source_is_gone(&self) {
        let cut = |cut: &grain::Cut| cut.reason == CutReason::Stream;
        if let Some(store) = self.source_store.borrow_mut().take()
            && store.with(|s| s.lineage.cuts().iter().any(cut))
        {
            // What was written since the last sync that its state records counts as written again (rule 6).
            self.licence.excess.set(true);
        }
    }

    /// The oracle is told of faults that the application is told of.
    pub fn befell(&self, site: Site, class: FileClass, op: &Op, fault: Fault) {
        if matches!(fault, Fault::Io | Fault::NoSpace) {
            self.licence.excess.set(true);
        }
        let of_sync = matches!(op.kind, OpKind::Sync | OpKind::WriteDurable);
        if site == Site::Source && class == FileClass::Volume && of_sync && fault == Fault::Io {
            self.licence.sync_failed.set(true);
            if op.kind == OpKind::Sync {
                self.licence.sync_befell.set(Some(Instant::now()));
            }
            self.oracle.sync_failed();
        }
    }

    /// The bounds of the source.
    pub fn source_settings(&self, accept_suspect: bool) -> source::Settings {
        source::Settings {
            crash_excess_bytes: self.shape.excess_bytes,
            crash_excess_exact: self.shape.exact,
            credit_bytes: self.shape.credit_bytes,
            layer_history_bytes: self.shape.layer_history[0],
            accept_suspect,
            ..source::Settings::default()
        }
    }

    /// The bounds of the replica; `roomy` is what an operator would give it in the end.
    pub fn replica_settings(&self, roomy: bool) -> replica::Settings {
        let (segment_bytes, max_bytes, max_records) = self.shape.journal;
        let journal = journal::Config {
            dir: dir().join("journal"),
            segment_bytes,
            max_bytes: if roomy { max_bytes.max(64 << 20) } else { max_bytes },
            max_records: if roomy { 1 << 20 } else { max_records },
            keep_points: false,
        };
        replica::Settings {
            journal,
            history: replica::HistorySettings {
                dir: dir().join("history"),
                retain: self.shape.retain,
            },
            apply_at_start: true,
            promote_past: u64::MAX,
            allow_direct: roomy || self.shape.allow_direct,
            layer_history_bytes: self.shape.layer_history[1],
            accept_touched: false,
        }
    }

    /// The history is over: what holds the world goes, so that the world does.
    pub fn end(&self) {
        for site in [Site::Source, Site::Replica] {
            self.node(site).machine.clear_fault_hook();
            self.node(site).machine.retire();
            self.node(site).observer.borrow_mut().take();
        }
        self.source_role.borrow_mut().take();
        self.replica_role.borrow_mut().take();
        self.source_store.borrow_mut().take();
        self.dump.borrow_mut().take();
        self.cable.borrow_mut().take();
        self.meddler.borrow_mut().take();
    }

    /// Makes the volumes and the states of both sites, as `init` does.
    pub async fn init(&self) {
        for site in [Site::Source, Site::Replica] {
            let machine = &self.node(site).machine;
            let ctx = machine.context();
            for (number, volume) in self.geometry.volumes.iter().enumerate() {
                let path = volume_path(number);
                machine.plug_in(&path, b"");
                let file = ctx.storage.open(&path, OpenMode::ReadWrite).await.expect("a volume");
                file.set_len(volume.bytes).await.expect("a length");
                file.sync_data().await.expect("a sync");
            }
            ctx.storage.create_dir(dir()).await.expect("a directory");
            StateStore::create(&ctx, dir(), self.first_state(site)).await.expect("a state");
            self.set_pace(site);
        }
    }

    /// Gives a machine the speed that the shape says.
    pub fn set_pace(&self, site: Site) {
        let machine = &self.node(site).machine;
        machine.set_now_chance(self.shape.now_chance);
        let most = std::time::Duration::from_micros(self.shape.latency_us[site as usize]);
        machine.set_latency(std::time::Duration::ZERO..most);
    }

    pub(crate) fn first_state(&self, site: Site) -> State {
        let peer = self.keys(site.other()).identity().to_string();
        let source = self.keys(Site::Source).identity().to_string();
        let peer = Peer { mode: self.shape.keeping.mode, ..Peer::new(peer) };
        State {
            version: STATE_VERSION,
            relationship: RelationshipId::from_bytes([7; 16]),
            name: "simulated".into(),
            geometry: self.geometry.clone(),
            volumes: (0..self.geometry.volumes.len()).map(volume_path).collect(),
            role: if site == Site::Source { Role::Source } else { Role::Replica },
            lineage: Lineage::new(),
            synced: None,
            layers: LayerTable::default(),
            peers: vec![peer],
            sets: Vec::new(),
            suspect: None,
            run: RunRecord::default(),
            replica: (site == Site::Replica)
                .then(|| ReplicaState { source, ..ReplicaState::default() }),
            promoted: None,
            bookmarks: Vec::new(),
            backlog: None,
        }
    }

    /// The volumes of a machine of this world.
    pub fn volumes_of(
        &self,
        machine: &disk::simulated::SimMachine,
    ) -> Vec<disk::simulated::FileContent> {
        volumes_of(machine, self.geometry.volumes.len())
    }
}
