//! Plays a plan from its beginning to its end, on one thread, on a paused clock.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use crate::check;
use crate::life;
use crate::plan::{Plan, Site};
use crate::process::when_woken;
use crate::trace::{Coverage, Trace};
use crate::verbs;
use crate::world::{Violation, World};

/// Virtual time after which a history hangs.
const LIMIT: Duration = Duration::from_secs(86_400 * 3);

/// What came of a history.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// Of every event in order.
    pub hash: u64,
    /// How often each thing happened.
    pub coverage: Coverage,
    /// The first promise that did not hold.
    pub violation: Option<Violation>,
}

thread_local! {
    static PANIC: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// Panics of any task are noted as violations, and not printed. To be called once a process.
pub fn catch_panics() {
    std::panic::set_hook(Box::new(|panic| {
        let words = panic.to_string();
        PANIC.with(|last| last.borrow_mut().get_or_insert(words).shrink_to_fit());
    }));
}

/// The panic of this thread that was noted last.
pub fn take_panic() -> Option<String> {
    PANIC.with(|last| last.borrow_mut().take())
}

/// Plays a plan.
pub fn play(plan: &Plan, printed: bool) -> Outcome {
    PANIC.with(|last| last.borrow_mut().take());
    let played = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .expect("a runtime");
        let local = tokio::task::LocalSet::new();
        local.block_on(&runtime, when_woken(history(plan, printed)))
    }));
    let panic = PANIC.with(|last| last.borrow_mut().take());
    let failed = |words: String| Violation { checker: "panic", words };
    match played {
        Ok(mut outcome) => {
            outcome.violation = outcome.violation.or(panic.map(failed));
            outcome
        }
        Err(_) => Outcome {
            hash: 0,
            coverage: Coverage::new(),
            violation: Some(failed(panic.unwrap_or_default())),
        },
    }
}

async fn history(plan: &Plan, printed: bool) -> Outcome {
    let world = World::new(plan.seed, &plan.shape, Trace::new(plan.seed, printed));
    if tokio::time::timeout(LIMIT, drive(&world, plan)).await.is_err() {
        world.fail("alive", "the history hangs");
    }
    let outcome = Outcome {
        hash: world.trace.hash(),
        coverage: world.trace.coverage(),
        violation: world.violation(),
    };
    world.end();
    outcome
}

async fn drive(world: &Rc<World>, plan: &Plan) {
    world.init().await;
    for site in [Site::Source, Site::Replica] {
        tokio::task::spawn_local(life::keep(world.clone(), site));
    }
    for step in &plan.steps {
        tokio::time::sleep(step.after).await;
        if world.has_failed() {
            return;
        }
        verbs::perform(world, step).await;
    }
    tokio::time::sleep(Duration::from_millis(20)).await;
    check::alive::heal(world).await;
}
