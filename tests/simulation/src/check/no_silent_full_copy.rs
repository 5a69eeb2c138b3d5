//! (h) No full copy starts by itself, and nobody is overwritten without consent.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use grain::attach::{Means, Overwrite, Rule, Side, Verdict};
use grain::{CutId, GrainSet};
use replication::source::LinkProgress;

use crate::verbs::connect::How;
use crate::world::World;

/// One session as this checker sees it.
pub struct Session {
    how: How,
    progress: Rc<LinkProgress>,
    /// Where the replica stood when the verdict was shown, and what it lacked.
    began: RefCell<Option<(CutId, GrainSet)>>,
    refused: Cell<bool>,
}

impl Session {
    /// A session that begins.
    pub fn new(how: How, progress: Rc<LinkProgress>) -> Session {
        Session { how, progress, began: RefCell::default(), refused: Cell::new(false) }
    }

    /// The verdict, at the replica.
    pub fn verdict(&self, world: &World, verdict: &Verdict) {
        if let Overwrite::ByItself { loser, .. } = verdict.overwrite
            && loser == Side::Theirs
        {
            world.fail("no_silent_full_copy", "the source would be overwritten by itself");
        }
        let by_itself = verdict.starts_by_itself() || verdict.rule == Rule::InStep;
        let full = matches!(verdict.means, Means::Compare | Means::FullCopyOnRequest);
        self.refused.set(!self.how.compare && (!by_itself || full));
        let expected = matches!(verdict.rule, Rule::InStep | Rule::Delta | Rule::Suspect);
        let empty = world.replica_role.borrow().as_ref().is_none_or(|r| r.head().is_none());
        if !expected && !world.licence.rolled_back.get() && !empty {
            let words = format!("verdict `{}`, though no machine was rolled back", verdict.rule);
            world.fail("no_silent_full_copy", words);
        }
        if let Some(replica) = world.replica_role.borrow().as_ref() {
            super::stands_fast::told(world, replica);
        }
        if world.licence.excess.get() || self.how.compare {
            return;
        }
        let replica = world.replica_role.borrow().clone();
        let Some(replica) = replica else { return };
        let copy = replica.facts().copy;
        if copy.partial.is_none() && copy.fuzzy_end.is_none() {
            let mut lacks = replica.damaged();
            lacks.union_with(&replica.unloaded());
            *self.began.borrow_mut() = replica.head().map(|cut| (cut, lacks));
        }
    }

    /// The session is over.
    pub fn ended(&self, world: &World) {
        let moved = self.progress.sent_bytes.get();
        if self.refused.get() && moved > 0 {
            world.fail("no_silent_full_copy", format!("{moved} bytes moved though refused"));
        }
        let Some((cut, mut may_differ)) = self.began.take() else { return };
        let Some(written) = world.oracle.written_since(cut) else { return };
        may_differ.union_with(&written);
        let (pulled, most) = (self.progress.total_grains.get(), may_differ.len());
        if pulled > most && !world.licence.excess.get() {
            let words = format!("{pulled} grains were pulled, at most {most} may differ");
            world.fail("no_silent_full_copy", words);
        }
        world.trace.count("checked: no silent full copy");
    }
}
