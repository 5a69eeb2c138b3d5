//! What fails, at which operation, and what after it.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use disk::simulated::{Fault, Op, OpKind};
use wire::link::{Direction, Fate};

use super::{Case, SITES};
use crate::faults::FileClass;
use crate::plan::Site;
use crate::world::World;

/// Whose operations are counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// Of a machine's disk, media included.
    Disk(Site),
    /// Pieces on the link, in both directions together.
    Link,
}

/// How an operation fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Blow {
    /// EIO; of a write it may be done all the same, or in part.
    Io,
    /// ENOSPC.
    NoSpace,
    /// The piece and what comes after it in its direction gets lost; nobody is told.
    Silent,
    /// The cable breaks before the piece.
    Cut,
    /// The cable breaks in the middle of the piece.
    Broken,
    /// The piece is changed on its way.
    Corrupt,
}

/// What fails after the Nth operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Nothing.
    Once,
    /// What is done to files of the same class.
    Class,
    /// All that can.
    All,
}

/// The trial of one run.
pub struct Ordeal {
    case: Case,
    seen: Cell<u64>,
    /// What the Nth operation was, once it came.
    hit: Cell<Option<(OpKind, FileClass)>>,
    hit_link: Cell<Option<Direction>>,
}

/// Whether an operation of this kind may fail like this. Names and free space are looked up in memory.
fn may_fail(kind: OpKind, blow: Blow) -> bool {
    use OpKind::{
        Allocate, CreateDir, Exists, Extents, FreeSpace, Rename, Write, WriteDurable, WriteNow,
    };
    match blow {
        Blow::Io => !matches!(kind, Exists | Extents | FreeSpace | OpKind::Canonical),
        Blow::NoSpace => {
            matches!(kind, Write | WriteNow | WriteDurable | Allocate | CreateDir | Rename)
        }
        _ => false,
    }
}

impl Ordeal {
    pub fn new(case: Case) -> Ordeal {
        Ordeal { case, seen: Cell::new(0), hit: Cell::new(None), hit_link: Cell::new(None) }
    }

    pub fn case(&self) -> Case {
        self.case
    }

    /// From here on operations are counted.
    pub fn arm(self: &Rc<Self>, world: &World) {
        match self.case.target {
            Target::Disk(site) => {
                let ordeal = self.clone();
                let observer = move |_: &World, op: &Op| ordeal.disk(op);
                *world.node(site).observer.borrow_mut() = Some(Rc::new(observer));
            }
            Target::Link => {
                let ordeal = self.clone();
                let meddler = move |direction, bytes| ordeal.link(direction, bytes);
                *world.meddler.borrow_mut() = Some(Rc::new(meddler));
            }
        }
    }

    /// All is well again.
    pub fn disarm(&self, world: &World) {
        world.meddler.borrow_mut().take();
        for site in SITES {
            world.node(site).observer.borrow_mut().take();
        }
    }

    pub fn reached(&self) -> bool {
        self.hit.get().is_some() || self.hit_link.get().is_some()
    }

    pub fn takes_space(&self) -> bool {
        self.hit.get().is_some_and(|(kind, _)| may_fail(kind, Blow::NoSpace))
    }

    fn disk(&self, op: &Op) -> Fault {
        let fault = match self.case.blow {
            Blow::NoSpace => Fault::NoSpace,
            _ => Fault::Io,
        };
        let class = FileClass::of(&op.path);
        if let Some((_, of)) = self.hit.get() {
            let goes_on = match self.case.mode {
                Mode::Once => false,
                Mode::Class => class == of,
                Mode::All => true,
            };
            return if goes_on && may_fail(op.kind, self.case.blow) { fault } else { Fault::None };
        }
        // All that can fail at all are counted, so that N names the same operation for every blow.
        if !may_fail(op.kind, Blow::Io) {
            return Fault::None;
        }
        let number = self.seen.replace(self.seen.get() + 1);
        if number != self.case.n {
            return Fault::None;
        }
        self.hit.set(Some((op.kind, class)));
        if may_fail(op.kind, self.case.blow) { fault } else { Fault::None }
    }

    fn link(&self, direction: Direction, bytes: usize) -> Option<Fate> {
        let silent = Fate::Deliver { after: Duration::from_secs(80_000) };
        let blow = match self.case.blow {
            Blow::Silent => silent,
            Blow::Cut => Fate::Cut { delivered_bytes: 0 },
            Blow::Broken => Fate::Cut { delivered_bytes: bytes / 2 },
            _ => Fate::Corrupt { after: Duration::ZERO },
        };
        if let Some(of) = self.hit_link.get() {
            // What was sent after a lost piece does not arrive either, until the cable is another.
            let goes_on =
                self.case.mode != Mode::Once && (self.case.blow != Blow::Silent || of == direction);
            return goes_on.then_some(blow);
        }
        let number = self.seen.replace(self.seen.get() + 1);
        if number != self.case.n {
            return None;
        }
        self.hit_link.set(Some(direction));
        Some(blow)
    }
}
