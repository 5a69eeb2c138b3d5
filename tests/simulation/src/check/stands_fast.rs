//! (i) What a replica holds it goes on holding: no crash takes its position back, or makes one that was
//! consistent inconsistent, unless a fault befell it that may cost that.
//!
//! That may be: a bit that turned over in its journal or its maps, its machine put back to an image, a
//! catch-up that its operator lets go straight into the base. Nothing else: not a power cut at any instant,
//! no failed or torn operation.
//!
//! And a commit leaves the layer of what it changed, whether somebody asks for it in this history or not.

use std::rc::Rc;

use grain::CutId;
use replication::replica::Replica;
use replication::state::{SeedRecord, State};

use crate::world::World;

/// What the replica has said so far in a way that binds it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Standing {
    /// The newest cut at which it was consistent.
    consistent: Option<CutId>,
    /// Its head when it last told of it.
    head: Option<CutId>,
    /// Catch-ups that the process committed by then.
    commits: u64,
}

/// Whether the state alone says that the replica is consistent.
fn is_consistent(s: &State) -> bool {
    let Some(replica) = &s.replica else { return false };
    let direct = replica.pull.as_ref().is_some_and(|pull| pull.direct);
    let differs = replica.seed.as_ref().is_some_and(SeedRecord::differs);
    let lacks = replica.damaged.is_some() || replica.unloaded.is_some();
    s.lineage.head().is_some() && !direct && !differs && !lacks && replica.fuzzy_end.is_none()
}

/// The replica tells of itself, at an attach: what it says is durable.
pub fn told(world: &World, replica: &Replica) {
    let (head, consistent) =
        replica.store().with(|s| (s.lineage.head().map(|c| c.id), is_consistent(s)));
    let mut standing = world.standing.get();
    standing.head = head;
    if consistent {
        standing.consistent = head;
    }
    world.standing.set(standing);
}

/// Before any operation of a machine: has the replica committed since the last look?
pub fn look(world: &World) {
    let role = world.replica_role.borrow();
    let Some(replica) = role.as_ref() else { return };
    let commits = replica.progress().commits.get() + replica.stream_view().cuts.get();
    let before = world.standing.get();
    if commits == before.commits {
        return;
    }
    world.standing.set(Standing { commits, ..before });
    if let Some(from) = before.head.filter(|_| commits == before.commits + 1) {
        layer_is_kept(world, replica, from);
    }
    told(world, replica);
}

/// The commit recorded what it changed.
fn layer_is_kept(world: &World, replica: &Replica, from: CutId) {
    let (head, known, layer) = replica.store().with(|s| {
        let head = s.lineage.head().map(|c| c.id);
        let layer = s.layers.closed.iter().find(|layer| Some(layer.name.to) == head);
        (head, s.lineage.contains(from), layer.map(|layer| layer.grains))
    });
    let Some(head) = head.filter(|head| known && *head != from) else { return };
    let Some(changed) = world.oracle.changed_between(from, head) else { return };
    world.trace.count("checked: the layer of a commit");
    if changed > layer.unwrap_or(0) {
        let words =
            format!("{changed} grains changed from {from} to {head}, its layer has {layer:?}");
        world.fail("no_change_missed", words);
    }
}

/// The process of the replica is gone; after a power cut its disk is all there is.
pub fn process_gone(world: &World) {
    world.standing.set(Standing { commits: 0, ..world.standing.get() });
}

/// Its machine was put back to an older image: what it told since binds it no more. The process that is about
/// to end may still be there; what that one has committed is no news.
pub fn put_back(world: &World) {
    let commits = world.standing.get().commits;
    world.standing.set(Standing { commits, ..Standing::default() });
}

/// What the copy of a replica says of itself after a crash.
#[derive(Clone, Copy, Debug)]
pub struct Found {
    /// Its position.
    pub head: Option<CutId>,
    /// Whether it is consistent there.
    pub consistent: bool,
    /// The word for what it is.
    pub condition: &'static str,
    /// A catch-up went straight into its base.
    pub direct: bool,
}

impl Found {
    /// What this one says.
    pub fn of(replica: &Replica) -> Found {
        Found {
            head: replica.head(),
            consistent: replica.is_consistent(),
            condition: replica.condition().name(),
            direct: replica.facts().copy.partial.is_some_and(|partial| partial.direct),
        }
    }
}

/// Looks at the copy of the replica as it is after a crash; `standing` is what bound it at that instant.
pub fn check(world: &World, replica: &Rc<Replica>, standing: Standing) {
    judge(world, Found::of(replica), standing);
}

/// Whether a replica that says so after a crash holds what it held.
pub fn judge(world: &World, found: Found, standing: Standing) {
    let Some(cut) = standing.consistent else { return };
    let Some(stood) = world.oracle.time_of(cut) else { return };
    let Found { head, consistent, condition, direct } = found;
    world.trace.count("checked: the replica stands fast");
    if head.and_then(|now| world.oracle.time_of(now)) < Some(stood) {
        let words = format!("the replica was at {cut}, and after a crash it is at {head:?}");
        return world.fail("stands_fast", words);
    }
    let allowed = direct && (world.shape.allow_direct || world.healing.get());
    if !consistent && !allowed && !world.licence.replica_damaged.get() {
        let words =
            format!("the replica was consistent at {cut}, and after a crash it is {condition}");
        world.fail("stands_fast", words);
    }
}
