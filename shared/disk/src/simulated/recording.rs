//! A recorded history of a simulated disk, for crash-point tests: the state at its start and every
//! step since.

use super::disk_state::{DiskState, Step};
use super::machine::Snapshot;

/// A recording, see the module. Made by [`super::SimMachine::record`].
#[derive(Clone)]
pub struct Recording {
    pub(super) start: Snapshot,
    pub(super) steps: Vec<Step>,
}

impl Recording {
    /// The steps in the order in which they took effect.
    pub fn steps(&self) -> &[Step] {
        &self.steps
    }

    /// The machine after the first `count` steps, page cache included: restore it into a machine and
    /// crash that.
    pub fn after(&self, count: usize) -> Snapshot {
        let mut snapshot = self.start.clone();
        let disk: &mut DiskState = &mut snapshot.disk;
        for step in self.steps.iter().take(count) {
            if let Err(error) = disk.apply(step) {
                // invariant: only steps that were made are recorded, and they are made again from
                // the same state.
                panic!("a recorded step cannot be made again: {step:?}: {error}");
            }
        }
        snapshot
    }
}
