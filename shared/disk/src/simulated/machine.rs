//! [`SimMachine`]: the handle by which a test or the simulator owns a machine.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::ops::Range;
use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

use tokio::time::Instant;

use super::disk_state::{DiskState, Step};
use super::flight::{Flight, Left, pause};
use super::{
    Crash, Fault, InlineOffload, Op, OpKind, Recording, SimClock, SimEntropy, SimStorage,
    SplitMix64,
};
use crate::Context;

/// 2023-11-14 22:13:20 UTC: where the clock of a new machine stands.
const BASE_MS: u64 = 1_700_000_000_000;

/// A whole disk, page cache included, and the boot that it belongs to.
#[derive(Clone)]
pub struct Snapshot {
    pub(super) disk: DiskState,
    pub(super) boot: u64,
}

/// A simulated machine, see [`super`]. Clones are handles to the same machine.
#[derive(Clone)]
pub struct SimMachine(Rc<Inner>);

type Hook = Rc<dyn Fn(&Op) -> Fault>;

struct Inner {
    state: RefCell<State>,
    /// Started operations for which nobody waits any more.
    left: RefCell<Vec<Left>>,
    retired: Cell<bool>,
    hook: RefCell<Option<Hook>>,
    clock: Rc<SimClock>,
    entropy: Rc<SimEntropy>,
    operations: Cell<u64>,
    incarnation: Cell<u64>,
}

/// What changes together, behind one cell that is never borrowed across a wait.
pub(super) struct State {
    pub disk: DiskState,
    pub random: SplitMix64,
    pub locks: BTreeSet<u64>,
    latency: Range<Duration>,
    /// Of 256 calls of a form that does not wait, so many answer at once.
    pub now_chance: u64,
    pub in_flight: BTreeMap<u64, Step>,
    next_flight: u64,
    recording: Option<Recording>,
}

/// What awaits an operation that was let in.
pub(super) struct Plan {
    pub fault: Fault,
    before: Duration,
    after: Duration,
}

/// Names the operation that is about to start.
pub(super) struct Call {
    pub kind: OpKind,
    pub path: Rc<Path>,
    pub offset: u64,
    pub len: u64,
}

impl SimMachine {
    /// An empty machine without limits and without latency.
    pub fn new(seed: u64) -> Self {
        let mut random = SplitMix64::new(seed);
        let entropy = Rc::new(SimEntropy::new(random.next_u64()));
        let state = State {
            disk: DiskState::new(u64::MAX),
            random,
            locks: BTreeSet::new(),
            latency: Duration::ZERO..Duration::ZERO,
            now_chance: 192,
            in_flight: BTreeMap::new(),
            next_flight: 0,
            recording: None,
        };
        SimMachine(Rc::new(Inner {
            state: RefCell::new(state),
            left: RefCell::default(),
            retired: Cell::new(false),
            hook: RefCell::new(None),
            clock: Rc::new(SimClock::new(BASE_MS)),
            entropy,
            operations: Cell::new(0),
            incarnation: Cell::new(0),
        }))
    }

    /// The context of a process that starts now. It and every file opened through it die with the
    /// next crash; a process that starts then takes a new one.
    pub fn context(&self) -> Context {
        Context {
            storage: Rc::new(SimStorage::new(self.clone(), self.0.incarnation.get())),
            offload: Rc::new(InlineOffload::default()),
            clock: self.0.clock.clone(),
            entropy: self.0.entropy.clone(),
        }
    }

    /// The machine's clock.
    pub fn clock(&self) -> Rc<SimClock> {
        self.0.clock.clone()
    }

    /// Every waiting operation takes a time drawn from this range, spent partly before and partly
    /// after it takes effect: needs tokio's clock.
    pub fn set_latency(&self, latency: Range<Duration>) {
        self.0.state.borrow_mut().latency = latency;
    }

    /// Of 256 calls of `read_now` and `write_now`, `chance` answer at once. 192 at first.
    pub fn set_now_chance(&self, chance: u64) {
        self.0.state.borrow_mut().now_chance = chance;
    }

    /// The bytes that regular files can take together, in pages of 4 KiB.
    pub fn set_capacity(&self, bytes: u64) {
        self.settle();
        self.0.state.borrow_mut().disk.capacity = bytes;
    }

    /// Asks `hook` at the start of every operation which fault befalls it. The hook may use the
    /// machine.
    pub fn set_fault_hook(&self, hook: impl Fn(&Op) -> Fault + 'static) {
        *self.0.hook.borrow_mut() = Some(Rc::new(hook));
    }

    /// No faults any more.
    pub fn clear_fault_hook(&self) {
        *self.0.hook.borrow_mut() = None;
    }

    /// How many operations were started since the machine was made.
    pub fn operations(&self) -> u64 {
        self.0.operations.get()
    }

    /// Puts a block device of `len` zero bytes at `path`; its directory need not exist.
    pub fn add_block_device(&self, path: impl AsRef<Path>, len: u64) {
        self.settle();
        self.0.state.borrow_mut().disk.add_block_device(path.as_ref(), len);
    }

    /// Turns over bit `bit` of the byte at `offset`, on the disk and in the page cache.
    pub fn flip(&self, path: impl AsRef<Path>, offset: u64, bit: u8) -> io::Result<()> {
        self.settle();
        let state = &mut *self.0.state.borrow_mut();
        let inode = state.disk.file_at(path.as_ref())?;
        let Some(file) = state.disk.inodes.get_mut(&inode) else { return Ok(()) };
        if offset >= file.live.len {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        file.flip(offset, bit);
        Ok(())
    }

    /// The machine goes down. `choose(n)` answers below `n` and decides everything that may go
    /// either way; the same answers give the same outcome.
    pub fn crash(&self, kind: Crash, choose: &mut dyn FnMut(u64) -> u64) {
        self.settle();
        self.end_process();
        let state = &mut *self.0.state.borrow_mut();
        for (_, step) in std::mem::take(&mut state.in_flight) {
            state.disk.interrupt(&step, choose);
        }
        state.disk.kill(choose);
        if kind == Crash::PowerCut {
            state.disk.power_cut(choose);
            self.0.clock.reboot();
        }
        state.recording = None;
    }

    /// [`SimMachine::crash`] with choices drawn from a seed.
    pub fn crash_seeded(&self, kind: Crash, seed: u64) {
        let mut random = SplitMix64::new(seed);
        self.crash(kind, &mut |n| random.below(n));
    }

    /// The world ends: what is under way is dropped. Without it the machine would hold files that hold the machine.
    pub fn retire(&self) {
        self.0.retired.set(true);
        drop(self.0.left.take());
    }

    fn end_process(&self) {
        self.0.incarnation.set(self.0.incarnation.get() + 1);
        drop(self.0.left.take());
        self.0.state.borrow_mut().locks.clear();
    }

    /// Steps made on the disk, and crashes: where both are the same, nothing was changed.
    pub fn steps(&self) -> (u64, u64) {
        self.settle();
        (self.0.state.borrow().disk.next_seq, self.0.incarnation.get())
    }

    /// The whole disk as it is now, page cache included.
    pub fn snapshot(&self) -> Snapshot {
        self.settle();
        let disk = self.0.state.borrow().disk.clone();
        Snapshot { disk, boot: self.0.clock.boot() }
    }

    /// Another machine with the disk that this one has now, page cache included, and nothing else of it.
    pub fn copy(&self, seed: u64) -> SimMachine {
        self.settle();
        let copy = SimMachine::new(seed);
        copy.0.clock.set_boot(self.0.clock.boot());
        let state = &mut *copy.0.state.borrow_mut();
        state.disk = self.0.state.borrow().disk.clone();
        state.disk.open.clear();
        copy.clone()
    }

    /// Puts a snapshot (of this machine or another) in the place of the disk; the running process
    /// ends as if killed, what it had under way is not done. To roll a machine back as a power-up
    /// from an old image does, cut the power after it.
    pub fn restore(&self, snapshot: &Snapshot) {
        self.end_process();
        self.0.clock.set_boot(snapshot.boot);
        let state = &mut *self.0.state.borrow_mut();
        state.disk = snapshot.disk.clone();
        state.disk.open.clear();
        state.in_flight.clear();
        state.recording = None;
    }

    /// Records every step from now on, until [`SimMachine::recording`], a crash or a restore.
    pub fn record(&self) {
        self.settle();
        let recording = Recording { start: self.snapshot(), steps: Vec::new() };
        self.0.state.borrow_mut().recording = Some(recording);
    }

    /// Ends the recording and hands it out.
    pub fn recording(&self) -> Option<Recording> {
        self.settle();
        self.0.state.borrow_mut().recording.take()
    }
}

impl SimMachine {
    /// Works on the state; `with` must not call the machine.
    pub(super) fn with<T>(&self, with: impl FnOnce(&mut State) -> T) -> T {
        self.settle();
        with(&mut self.0.state.borrow_mut())
    }

    /// Takes an operation over from a future that went away.
    pub(super) fn leave(&self, left: Left) {
        if !self.0.retired.get() {
            self.0.left.borrow_mut().push(left);
        }
    }

    /// Makes the steps of operations for which nobody waits, those whose time has come.
    fn settle(&self) {
        while let Some(left) = self.next_due() {
            // For nobody: whether it failed is not known to the process.
            drop(self.0.state.borrow_mut().land(left.number, left.fault));
        }
    }

    fn next_due(&self) -> Option<Left> {
        let mut left = self.0.left.borrow_mut();
        if left.is_empty() {
            return None;
        }
        let now = Instant::now();
        let due = left.iter().enumerate().filter(|(_, l)| l.lands <= now);
        let (at, _) = due.min_by_key(|(_, l)| (l.lands, l.number))?;
        Some(left.remove(at))
    }

    /// Fails when the process of `incarnation` has ended.
    pub(super) fn alive(&self, incarnation: u64) -> io::Result<()> {
        if self.0.incarnation.get() == incarnation {
            return Ok(());
        }
        Err(io::Error::other("the simulated process has ended"))
    }

    /// Counts an operation and asks what befalls it.
    pub(super) fn begin(&self, incarnation: u64, call: Call) -> io::Result<Plan> {
        self.alive(incarnation)?;
        let number = self.0.operations.get();
        self.0.operations.set(number + 1);
        let hook = self.0.hook.borrow().clone();
        let fault = hook.map_or(Fault::None, |hook| {
            let Call { kind, path, offset, len } = call;
            hook(&Op { number, kind, path, offset, len })
        });
        // The hook may have crashed the machine.
        self.alive(incarnation)?;
        let (before, after) = match fault {
            Fault::Slow(time) => (time, Duration::ZERO),
            _ => self.with(State::draw_latency),
        };
        Ok(Plan { fault, before, after })
    }

    /// Looks at the disk without changing it, with the operation's faults and latency.
    pub(super) async fn look<T>(
        &self,
        incarnation: u64,
        call: Call,
        look: impl FnOnce(&DiskState) -> io::Result<T>,
    ) -> io::Result<T> {
        let plan = self.begin(incarnation, call)?;
        pause(plan.before).await;
        self.alive(incarnation)?;
        plan.fault.error()?;
        let found = self.with(|state| look(&state.disk));
        pause(plan.after).await;
        found
    }

    /// Makes a step, with the operation's faults and latency. `held` lives until the step is made,
    /// whatever happens to this future.
    pub(super) async fn step<T: 'static>(
        &self,
        incarnation: u64,
        call: Call,
        step: Step,
        held: T,
    ) -> io::Result<()> {
        let plan = self.begin(incarnation, call)?;
        if plan.before.is_zero() && plan.after.is_zero() {
            return self.with(|state| state.make(&step, plan.fault));
        }
        let number = self.with(|state| state.take_off(step));
        Flight::new(self.clone(), number, plan.fault, plan.before, held).end(plan.after).await
    }
}

impl State {
    fn draw_latency(&mut self) -> (Duration, Duration) {
        let span = self.latency.end.saturating_sub(self.latency.start).as_nanos() as u64;
        let total = self.latency.start + Duration::from_nanos(self.random.below(span));
        // An end at once, or an effect at once, is half the timers and allows nearly all the same orders.
        let before = match self.random.below(4) {
            0 | 1 => total,
            2 => Duration::ZERO,
            _ => Duration::from_nanos(self.random.below(total.as_nanos() as u64 + 1)),
        };
        (before, total - before)
    }

    fn take_off(&mut self, step: Step) -> u64 {
        self.next_flight += 1;
        self.in_flight.insert(self.next_flight, step);
        self.next_flight
    }

    pub fn land(&mut self, flight: u64, fault: Fault) -> io::Result<()> {
        match self.in_flight.remove(&flight) {
            Some(step) => self.make(&step, fault),
            None => Err(io::Error::other("the simulated process has ended")),
        }
    }

    /// Makes a step now, or fails as ordered.
    pub fn make(&mut self, step: &Step, fault: Fault) -> io::Result<()> {
        let made = match (fault.error(), step) {
            (Ok(()), _) => {
                self.disk.apply(step)?;
                vec![step.clone()]
            }
            (Err(error), _) if fault == Fault::NoSpace => return Err(error),
            (Err(_), Step::Sync { inode, upto }) => {
                let failed = Step::SyncFailed { inode: *inode, upto: *upto };
                self.disk.apply(&failed)?;
                vec![failed]
            }
            (Err(_), Step::Write { .. } | Step::Zero { .. }) => {
                let random = &mut self.random;
                self.disk.interrupt(step, &mut |n| random.below(n))
            }
            (Err(error), _) => return Err(error),
        };
        if matches!(step, Step::SyncDir { .. }) {
            self.disk.forget_lost();
        }
        if let Some(recording) = &mut self.recording {
            recording.steps.extend(made);
        }
        fault.error()
    }
}
