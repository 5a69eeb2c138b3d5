//! What the source held at each of its cuts, taken at the instant of the cut.
//!
//! A cut is decided while the gate is closed, with no operation under way. The hook of the source's
//! machine runs before every operation takes effect, so the first one after a cut still finds the
//! volumes as they were at it.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

use disk::simulated::{Fault, Op, SimMachine, Snapshot};
use disk::{Context, OpenMode};
use grain::CutId;
use replication::state::StateStore;

use crate::rig::volume_path;

type Extra = Box<dyn Fn(&Op) -> Fault>;

/// See the module's text. Clones are the same oracle.
#[derive(Clone, Default)]
pub struct Oracle {
    inner: Rc<RefCell<Inner>>,
    extra: Rc<RefCell<Option<Extra>>>,
}

#[derive(Default)]
struct Inner {
    at_cut: BTreeMap<CutId, Snapshot>,
    store: Option<StateStore>,
}

impl Oracle {
    /// Watches the cuts of the source whose state is in `store`.
    pub fn watch(&self, machine: &SimMachine, store: &StateStore) {
        self.inner.borrow_mut().store = Some(store.clone());
        let (oracle, hooked) = (self.clone(), machine.clone());
        machine.set_fault_hook(move |op| {
            oracle.look(&hooked);
            oracle.extra.borrow().as_ref().map_or(Fault::None, |extra| extra(op))
        });
    }

    /// Faults beside the watching.
    pub fn fault(&self, extra: impl Fn(&Op) -> Fault + 'static) {
        *self.extra.borrow_mut() = Some(Box::new(extra));
    }

    /// No faults any more.
    pub fn calm(&self) {
        *self.extra.borrow_mut() = None;
    }

    /// Takes note of a cut that was made since the last look.
    pub fn look(&self, machine: &SimMachine) {
        let head = {
            let inner = self.inner.borrow();
            let Some(store) = &inner.store else { return };
            store.with(|s| s.lineage.head().map(|c| c.id))
        };
        let Some(head) = head else { return };
        self.inner.borrow_mut().at_cut.entry(head).or_insert_with(|| machine.snapshot());
    }

    /// The volumes as they were at `cut`.
    pub async fn at(&self, cut: CutId, volumes: usize) -> Vec<Vec<u8>> {
        let snapshot = self.inner.borrow().at_cut.get(&cut).cloned();
        let snapshot = snapshot.expect("a cut that the source made");
        volumes_of(&snapshot, volumes).await
    }
}

/// The content of the volumes in a snapshot.
pub async fn volumes_of(snapshot: &Snapshot, volumes: usize) -> Vec<Vec<u8>> {
    let scratch = SimMachine::new(0);
    scratch.restore(snapshot);
    read_volumes(&scratch.context(), volumes).await
}

/// The content of the volumes of a machine.
pub async fn read_volumes(ctx: &Context, volumes: usize) -> Vec<Vec<u8>> {
    let mut out = Vec::new();
    for number in 0..volumes {
        let file = ctx.storage.open(&volume_path(number), OpenMode::Read).await.unwrap();
        out.push(file.read_at(0, file.len().unwrap() as usize).await.unwrap());
    }
    out
}

/// Compares two sets of volumes; names the first difference in grains of `grain` bytes.
pub fn assert_same(left: &[Vec<u8>], right: &[Vec<u8>], grain: usize, what: &str) {
    for (volume, (a, b)) in left.iter().zip(right).enumerate() {
        assert_eq!(a.len(), b.len(), "{what}: length of volume {volume}");
        let differ: Vec<usize> = (0..a.len().div_ceil(grain))
            .filter(|g| {
                let range = g * grain..a.len().min((g + 1) * grain);
                a[range.clone()] != b[range]
            })
            .collect();
        assert!(differ.is_empty(), "{what}: volume {volume} differs in grains {differ:?}");
    }
}
