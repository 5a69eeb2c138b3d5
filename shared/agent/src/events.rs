//! The log of decisions, bounded, for status and `events`.

use std::cell::RefCell;
use std::collections::VecDeque;

use disk::Context;

use crate::status::Event;

const KEPT: usize = 200;

/// See the module's text.
pub struct Events {
    ctx: Context,
    kept: RefCell<(u64, VecDeque<Event>)>,
}

impl Events {
    /// An empty log.
    pub fn new(ctx: &Context) -> Events {
        Events { ctx: ctx.clone(), kept: RefCell::default() }
    }

    /// Notes something, and logs it.
    pub fn note(&self, text: impl Into<String>) {
        let text = text.into();
        tracing::info!("{text}");
        let mut kept = self.kept.borrow_mut();
        kept.0 += 1;
        let event = Event { number: kept.0, unix_ms: self.ctx.unix_ms(), text };
        kept.1.push_back(event);
        if kept.1.len() > KEPT {
            kept.1.pop_front();
        }
    }

    /// All that is kept, oldest first.
    pub fn all(&self) -> Vec<Event> {
        self.kept.borrow().1.iter().cloned().collect()
    }
}
