//! Operations between their start and their end.
//!
//! An operation that was started takes effect, whatever becomes of the future that waits for it, as on a real
//! disk: one whose future went away is left with the machine, which makes its step when its time has come,
//! before anything else is done with the machine. That needs no task for each operation.

use std::any::Any;
use std::io;
use std::time::Duration;

use tokio::time::Instant;

use super::{Fault, SimMachine};

/// See the module. `held` lives until the step is made.
pub(super) struct Flight<T: 'static> {
    machine: SimMachine,
    number: u64,
    fault: Fault,
    lands: Instant,
    held: Option<T>,
}

/// An operation for which nobody waits any more.
pub(super) struct Left {
    pub number: u64,
    pub fault: Fault,
    pub lands: Instant,
    /// Kept for when it is dropped.
    #[expect(dead_code, reason = "its drop is its use")]
    held: Box<dyn Any>,
}

impl<T> Flight<T> {
    /// Operation `number` of the machine's flights, which takes effect after `before`.
    pub fn new(machine: SimMachine, number: u64, fault: Fault, before: Duration, held: T) -> Self {
        Flight { machine, number, fault, lands: Instant::now() + before, held: Some(held) }
    }

    /// Waits until it is made, and `after` that.
    pub async fn end(mut self, after: Duration) -> io::Result<()> {
        if self.lands > Instant::now() {
            tokio::time::sleep_until(self.lands).await;
        }
        let held = self.held.take();
        let result = self.machine.with(|state| state.land(self.number, self.fault));
        pause(after).await;
        drop(held);
        result
    }
}

impl<T> Drop for Flight<T> {
    fn drop(&mut self) {
        if let Some(held) = self.held.take() {
            let (number, fault, lands) = (self.number, self.fault, self.lands);
            self.machine.leave(Left { number, fault, lands, held: Box::new(held) });
        }
    }
}

/// Waits, unless there is nothing to wait for.
pub(super) async fn pause(time: Duration) {
    if !time.is_zero() {
        tokio::time::sleep(time).await;
    }
}
