//! The walk over all sequences.

use std::fmt;
use std::rc::Rc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use super::actions::{Action, Root};
use super::images::{self, Depth, Image};
use super::look::{self, Seen};
use super::record::{Point, Recorder};
use crate::script::{self, Stage};
use crate::world::{Violation, World};

/// Virtual time after which a sequence hangs.
const LIMIT: Duration = Duration::from_secs(86_400);

/// A crash after which a promise did not hold.
#[derive(Clone, Debug)]
pub struct Failed {
    /// Where it began.
    pub root: Root,
    /// What was done.
    pub actions: Vec<Action>,
    /// After so many instants of the last action.
    pub point: usize,
    /// What is wrong.
    pub violation: Violation,
}

/// What came of a walk.
#[derive(Default, Debug)]
pub struct Report {
    /// Sequences.
    pub sequences: u64,
    /// Prefixes: instants between operations of either machine.
    pub prefixes: u64,
    /// Crashes that were looked at.
    pub images: u64,
    /// Of them pairs of images that were started and attached; the others equal one of these.
    pub attached: u64,
    /// The first of each subtree.
    pub failed: Vec<Failed>,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for Failed { root, actions, point, violation } in &self.failed {
            let Violation { checker, words } = violation;
            writeln!(f, "FAILS: {root:?} {actions:?}, instant {point}\n  {checker}: {words}")?;
        }
        let Report { sequences, prefixes, images, attached, .. } = self;
        write!(
            f,
            "{sequences} sequences, {prefixes} prefixes, {images} crashes, {attached} different pairs of \
             images"
        )
    }
}

/// Walks all sequences of up to `depth.longest` actions from both roots; the subtrees of first actions side
/// by side.
pub fn walk(depth: Depth, jobs: usize) -> Report {
    let roots = [Root::New, Root::Seeded];
    let items: Vec<_> =
        roots.iter().flat_map(|root| Action::ALL.map(|action| (*root, action))).collect();
    let (next, report) = (AtomicUsize::new(0), Mutex::new(Report::default()));
    std::thread::scope(|scope| {
        for _ in 0..jobs {
            scope.spawn(|| {
                let stages = roots.map(|root| on_clock(root.stage()));
                while let Some((root, first)) = items.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let mut subtree = Subtree {
                        stage: &stages[*root as usize],
                        root: *root,
                        depth,
                        seen: Seen::default(),
                        report: Report::default(),
                    };
                    subtree.visit(&mut vec![*first]);
                    if let Ok(mut report) = report.lock() {
                        report.sequences += subtree.report.sequences;
                        report.prefixes += subtree.report.prefixes;
                        report.images += subtree.seen.images;
                        report.attached += subtree.seen.attached;
                        report.failed.extend(subtree.report.failed);
                    }
                }
            });
        }
    });
    report.into_inner().unwrap_or_default()
}

fn on_clock<T>(work: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .expect("a runtime");
    tokio::task::LocalSet::new().block_on(&runtime, work)
}

struct Subtree<'a> {
    stage: &'a Stage,
    root: Root,
    depth: Depth,
    seen: Seen,
    report: Report,
}

impl Subtree<'_> {
    fn visit(&mut self, actions: &mut Vec<Action>) {
        if !self.report.failed.is_empty() {
            return;
        }
        self.report.sequences += 1;
        self.seen.next_sequence();
        let (point, violation) = on_clock(self.sequence(actions));
        if let Some(violation) = violation {
            let actions = actions.clone();
            self.report.failed.push(Failed { root: self.root, actions, point, violation });
            return;
        }
        if actions.len() < self.depth.longest {
            for action in Action::ALL {
                actions.push(action);
                self.visit(actions);
                actions.pop();
            }
        }
    }

    /// Plays a sequence and looks at every instant of its last action.
    async fn sequence(&mut self, actions: &[Action]) -> (usize, Option<Violation>) {
        let world = self.stage.world(500, false);
        let played = tokio::time::timeout(LIMIT, play(&world, actions)).await;
        let points = match played {
            Ok(points) => points,
            Err(_) => {
                world.fail("alive", "a sequence hangs");
                Vec::new()
            }
        };
        let violation = world.violation();
        world.end();
        if violation.is_some() {
            return (0, violation);
        }
        self.report.prefixes += points.len() as u64;
        for (number, point) in points.iter().enumerate() {
            if let Err(violation) = self.point(point).await {
                return (number, Some(violation));
            }
        }
        (0, None)
    }

    async fn point(&mut self, point: &Point) -> Result<(), Violation> {
        let depth = self.depth;
        let world = look::view(&self.stage.shape, point);
        let [source, replica] = &point.machines;
        let [source_changed, replica_changed] = point.changed;
        let alive = Image::killed(replica);
        // Also where nothing changed: the oracle may ask for more.
        if source_changed || !replica_changed {
            for image in images::all(source, depth) {
                self.seen.look(&world, &image, &alive).await?;
            }
        }
        if replica_changed {
            let alive = Image::killed(source);
            for image in images::all(replica, depth) {
                self.seen.look(&world, &alive, &image).await?;
            }
        }
        for (left, right) in images::broad(source, depth).iter().zip(images::broad(replica, depth))
        {
            self.seen.look(&world, left, &right).await?;
        }
        Ok(())
    }
}

async fn play(world: &Rc<World>, actions: &[Action]) -> Vec<Point> {
    script::begin(world);
    script::verbs::up(world).await;
    // What the sequences look at are their crashes, not those of the script.
    let Some((last, before)) = actions.split_last() else { return Vec::new() };
    for (place, action) in before.iter().enumerate() {
        action.act(world, place as u64).await;
    }
    let recorder = Recorder::begin(world);
    last.act(world, before.len() as u64).await;
    script::verbs::dump_ends(world).await;
    tokio::time::sleep(Duration::from_secs(7)).await;
    recorder.end(world)
}
