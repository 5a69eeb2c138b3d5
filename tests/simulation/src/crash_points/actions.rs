//! What the sequences are made of. Each action means something wherever it stands; what cannot be done is
//! refused in words.

use std::rc::Rc;
use std::time::Duration;

use disk::simulated::Crash;

use crate::errors_at_n::SITES;
use crate::script::{Stage, calm_shape, prepare, verbs};
use crate::shape::{GRAIN, Shape};
use crate::world::World;

/// One action.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Action {
    /// A write across two grains and one to the other volume.
    Write,
    /// A flush.
    Flush,
    /// A dump begins, and goes on aside.
    Dump,
    /// The newest set, once it is finished, travels and is loaded.
    Load,
    /// The sites connect until they are in step.
    Attach,
    /// A cut and housekeeping.
    Cut,
    /// Both machines lose power, and start again.
    Crash,
    /// The dump is cancelled, running or not.
    Cancel,
}

impl Action {
    /// All of them.
    pub const ALL: [Action; 8] = [
        Action::Write,
        Action::Flush,
        Action::Dump,
        Action::Load,
        Action::Attach,
        Action::Cut,
        Action::Crash,
        Action::Cancel,
    ];

    /// Does it, as the `place`-th of its sequence.
    pub async fn act(self, world: &Rc<World>, place: u64) {
        match self {
            Action::Write => {
                verbs::write(world, 0, place * GRAIN + 512, GRAIN, false).await;
                verbs::write(world, 1, place * 64, 64, false).await;
            }
            Action::Flush => verbs::flush(world).await,
            Action::Dump => {
                verbs::dump_begins(world).await;
                // Some grains are on the medium, some are not.
                tokio::time::sleep(Duration::from_millis(900)).await;
            }
            Action::Load => {
                verbs::dump_ends(world).await;
                verbs::ship(world).await;
                verbs::load(world, usize::MAX).await;
            }
            Action::Attach => verbs::attach(world).await,
            Action::Cut => verbs::cut(world).await,
            Action::Crash => {
                for site in SITES {
                    verbs::crash(world, site, Crash::PowerCut, place + 1).await;
                }
                verbs::up(world).await;
            }
            Action::Cancel => verbs::cancel(world).await,
        }
    }
}

/// Where sequences begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Root {
    /// A pair that was just made; a grain was written.
    New,
    /// A replica that was seeded and in step.
    Seeded,
}

/// The world of these sequences: as calm as can be, with dumps that take a while.
fn shape() -> Shape {
    Shape { volumes: vec![4 * GRAIN, GRAIN + 100], media: 1, dump_rate: 2 * GRAIN, ..calm_shape() }
}

impl Root {
    /// Sets the stage.
    pub async fn stage(self) -> Stage {
        prepare(&shape(), None, async |world| {
            verbs::write(world, 0, 3 * GRAIN, GRAIN, false).await;
            if self == Root::Seeded {
                for action in [Action::Dump, Action::Load, Action::Attach] {
                    action.act(world, 0).await;
                }
                let replica = world.replica_role.borrow().clone();
                if !replica.is_some_and(|replica| replica.is_consistent()) {
                    world.fail("alive", "the replica was not seeded");
                }
            }
        })
        .await
    }
}
