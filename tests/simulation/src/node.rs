//! One site: its machine, the process that runs on it, and what befalls its disk.

use std::cell::{Cell, RefCell};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

use disk::simulated::{Crash, Fault, FileContent, Op, OpKind, SimMachine, SplitMix64};
use tokio::task::JoinHandle;

use crate::event;
use crate::faults::{DiskTrouble, FileClass};
use crate::plan::Site;
use crate::process::Process;
use crate::world::World;

/// The state directory of either site.
pub const DIR: &str = "/site";

/// Where volume `number` is, on either machine.
pub fn volume_path(number: usize) -> PathBuf {
    PathBuf::from(format!("/volumes/{number}"))
}

/// A crash that is to come.
#[derive(Clone, Copy, Debug)]
pub struct Doom {
    /// At which operation of the machine.
    pub at: u64,
    /// How.
    pub kind: Crash,
    /// What it chooses.
    pub seed: u64,
    /// How long the process stays down.
    pub down: Duration,
}

/// Sees every operation of a machine before anything else does, and may order what befalls it.
pub type Observer = Rc<dyn Fn(&World, &Op) -> Fault>;

/// See the module's text.
pub struct Node {
    /// Which end it is.
    pub site: Site,
    /// Its machine.
    pub machine: SimMachine,
    /// What runs on it now.
    pub process: RefCell<Option<Process>>,
    /// Ends when the process is gone.
    pub ended: RefCell<Option<JoinHandle<()>>>,
    /// A crash that is to come.
    pub doom: Cell<Option<Doom>>,
    /// A power cut that is to come as the n-th sync from now of files of a class begins: n, what it
    /// chooses, how long the process stays down.
    pub sync_doom: Cell<Option<(FileClass, u64, u64, Duration)>>,
    /// How the process ended, until that was dealt with.
    pub crashed: Cell<Option<Crash>>,
    /// How long it stays down.
    pub down: Cell<Duration>,
    trouble: RefCell<Vec<(DiskTrouble, SplitMix64)>>,
    /// The process is not to start by itself.
    pub held: Cell<bool>,
    /// Who sees every operation, in a world that is driven by a script.
    pub observer: RefCell<Option<Observer>>,
}

impl Node {
    /// A machine without anything on it.
    pub fn new(site: Site, seed: u64) -> Node {
        Node {
            site,
            machine: SimMachine::new(seed),
            process: RefCell::default(),
            ended: RefCell::default(),
            doom: Cell::new(None),
            sync_doom: Cell::new(None),
            crashed: Cell::new(None),
            down: Cell::new(Duration::ZERO),
            trouble: RefCell::default(),
            held: Cell::new(false),
            observer: RefCell::default(),
        }
    }

    /// The process, if one runs.
    pub fn process(&self) -> Option<Process> {
        self.process.borrow().clone().filter(|process| !process.is_dead())
    }

    /// Whether a process runs.
    pub fn is_up(&self) -> bool {
        self.process().is_some()
    }

    /// Its volumes as a process would read them.
    pub fn volumes(&self, count: usize) -> Vec<FileContent> {
        volumes_of(&self.machine, count)
    }

    /// The disk begins to fail.
    pub fn trouble(&self, trouble: DiskTrouble, seed: u64) {
        self.trouble.borrow_mut().push((trouble, SplitMix64::new(seed)));
    }

    /// Nothing fails any more.
    pub fn calm(&self) {
        self.trouble.borrow_mut().clear();
        self.doom.set(None);
        self.sync_doom.set(None);
        self.observer.borrow_mut().take();
        self.machine.set_capacity(u64::MAX);
    }

    /// The machine goes down now, and the process with it.
    pub fn crash(&self, world: &World, kind: Crash, seed: u64, down: Duration) {
        world.before_crash(self.site);
        self.machine.crash_seeded(kind, seed);
        self.doom.set(None);
        self.sync_doom.set(None);
        self.down.set(down);
        let was_power_cut = self.crashed.get() == Some(Crash::PowerCut);
        self.crashed.set(Some(if was_power_cut { Crash::PowerCut } else { kind }));
        match kind {
            Crash::Kill => event!(world, "crash: killed", "{}", self.site.name()),
            Crash::PowerCut => {
                world.licence.excess.set(true);
                event!(world, "crash: power cut", "{}", self.site.name());
            }
        }
        if let Some(process) = self.process.borrow().as_ref() {
            process.kill();
        }
    }

    /// Called at the start of every operation of the machine.
    pub fn operation(&self, world: &World, op: &Op) -> Fault {
        let class = FileClass::of(&op.path);
        world.trace.op(self.site, op, class != FileClass::Media);
        let observer = self.observer.borrow().clone();
        if let Some(observer) = observer {
            let fault = observer(world, op);
            if fault != Fault::None {
                world.trace.note(format_args!("{} {fault:?} {op:?}", self.site.name()));
                world.befell(self.site, class, op, fault);
                return fault;
            }
        }
        if let Some(doom) = self.doom.get().filter(|doom| op.number >= doom.at) {
            self.crash(world, doom.kind, doom.seed, doom.down);
            return Fault::None;
        }
        if op.kind == OpKind::Sync
            && let Some((of, n, seed, down)) = self.sync_doom.get()
            && of == class
        {
            if n == 0 {
                world.trace.count("crash: power cut at a sync");
                self.crash(world, Crash::PowerCut, seed, down);
                return Fault::None;
            }
            self.sync_doom.set(Some((of, n - 1, seed, down)));
        }
        let mut trouble = self.trouble.borrow_mut();
        for (plan, random) in trouble.iter_mut() {
            if plan.times > 0 && plan.befalls(op) && random.below(1000) < plan.odds {
                plan.times -= 1;
                let (fault, name) = plan.fault();
                world.trace.count(name);
                world.trace.note(format_args!("{} {name} {:?}", self.site.name(), op.path));
                world.befell(self.site, class, op, fault);
                return fault;
            }
        }
        Fault::None
    }
}

/// The volumes of a machine.
pub fn volumes_of(machine: &SimMachine, count: usize) -> Vec<FileContent> {
    let content = |number| machine.content(volume_path(number)).expect("a volume");
    (0..count).map(content).collect()
}

/// The directory of a site as a path.
pub fn dir() -> &'static Path {
    Path::new(DIR)
}

/// Lets a machine tell of its operations.
pub fn watch(world: &Rc<World>, site: Site) {
    let weak = Rc::downgrade(world);
    world.node(site).machine.set_fault_hook(move |op| match weak.upgrade() {
        Some(world) => {
            world.look();
            world.node(site).operation(&world, op)
        }
        None => Fault::None,
    });
}
