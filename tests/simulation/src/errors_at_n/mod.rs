//! Errors at N: in each of the main scenarios the Nth operation of a disk or the Nth piece on the link
//! fails, once or from then on, for every N until a run ends without having reached it.
//!
//! | what | fails | how |
//! |---|---|---|
//! | source, replica | the Nth operation of its disk, media included | EIO; ENOSPC where it may be |
//! | link | the Nth piece that is sent, in either direction | lost with all after it in its direction (half open), the cable cut before it or in the middle of it, corrupted |
//!
//! | mode | what fails |
//! |---|---|
//! | once | the Nth operation |
//! | class | it, and then every one of the same machine on files of the same class |
//! | all | it, and then every one of the same machine; of the link, every piece |
//!
//! Whatever was done by then, a verb answers or says why not; the checkers hold; then the operator puts the
//! disk right, starts both sites, and they come into step. Looking up names and free space does not fail,
//! as in [`crate::faults`].

mod ordeal;
mod runs;
mod scenarios;

pub use ordeal::{Blow, Mode, Target};
pub use runs::{Counts, Failed, Report, all, one, stages};
pub use scenarios::{SCENARIOS, Scenario, Stages};

use std::rc::Rc;
use std::time::Duration;

use disk::simulated::Crash;

use crate::check;
use crate::plan::Site;
use crate::run::Outcome;
use crate::script;
use crate::trace::Coverage;
use crate::world::{Violation, World};

use ordeal::Ordeal;

/// Virtual time after which a run hangs.
const LIMIT: Duration = Duration::from_secs(86_400);

/// One run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Case {
    /// Of whom.
    pub target: Target,
    /// Which operation, from 0.
    pub n: u64,
    /// How it fails.
    pub blow: Blow,
    /// And what after it.
    pub mode: Mode,
}

/// What came of a run.
pub struct Ran {
    /// What was wrong, if anything, and what happened.
    pub outcome: Outcome,
    /// Whether the run came to its N.
    pub reached: bool,
    /// Whether that operation may fail for want of space.
    pub takes_space: bool,
}

impl Ran {
    fn panicked(violation: Option<Violation>) -> Ran {
        let outcome = Outcome { hash: 0, coverage: Coverage::new(), violation };
        Ran { outcome, reached: true, takes_space: false }
    }
}

/// Plays one case of a scenario.
pub async fn play(stages: &Stages, scenario: &Scenario, case: Case, printed: bool) -> Ran {
    let world = stages.of(scenario).world(case.n + 100, printed);
    let ordeal = Rc::new(Ordeal::new(case));
    if tokio::time::timeout(LIMIT, drive(&world, scenario, &ordeal)).await.is_err() {
        world.fail("alive", "the run hangs");
    }
    let outcome = Outcome {
        hash: world.trace.hash(),
        coverage: world.trace.coverage(),
        violation: world.violation(),
    };
    world.end();
    Ran { outcome, reached: ordeal.reached(), takes_space: ordeal.takes_space() }
}

async fn drive(world: &Rc<World>, scenario: &Scenario, ordeal: &Rc<Ordeal>) {
    if scenario.from_start {
        ordeal.arm(world);
        if scenario.makes_state {
            scenarios::make_states(world).await;
        }
        script::begin(world);
        script::verbs::up(world).await;
    } else {
        script::begin(world);
        script::verbs::up(world).await;
        ordeal.arm(world);
    }
    (scenario.script)(world).await;
    ordeal.disarm(world);
    if world.has_failed() {
        return;
    }
    if scenario.makes_state {
        // The operator asks again, with the disk put right.
        scenarios::make_states(world).await;
    }
    for kind in [Crash::Kill, Crash::PowerCut] {
        check::look_at(world, [kind; 2], ordeal.case().n).await;
    }
    // From here on both are killed, started and brought into step; that is the look at a kill.
    world.unwatched.set(true);
    check::alive::heal(world).await;
}

/// The machines of both sites.
pub(crate) const SITES: [Site; 2] = [Site::Source, Site::Replica];
