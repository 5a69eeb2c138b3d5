//! Range locks: overlapping writes to a volume reach its base one after the other, in the order in
//! which they came.
//!
//! Only writes that could not be done inline hold a lock; an inline write only has to see that it
//! overlaps none ([`RangeLocks::is_free`]).

use std::cell::RefCell;
use std::ops::Range;
use std::rc::Rc;

use tokio::sync::oneshot;

#[derive(Default)]
struct Inner {
    next: u64,
    /// Held and waiting ones, in the order of arrival.
    entries: Vec<Entry>,
}

struct Entry {
    number: u64,
    range: Range<u64>,
    /// Present while it waits.
    wake: Option<oneshot::Sender<()>>,
}

/// The locks of one volume. Cheap to clone.
#[derive(Clone, Default)]
pub struct RangeLocks {
    inner: Rc<RefCell<Inner>>,
}

/// A held range; released on drop.
pub struct RangeLock {
    number: u64,
    inner: Rc<RefCell<Inner>>,
}

fn overlap(a: &Range<u64>, b: &Range<u64>) -> bool {
    a.start < b.end && b.start < a.end
}

impl RangeLocks {
    /// True when nothing overlapping is held or waited for.
    pub fn is_free(&self, range: &Range<u64>) -> bool {
        let inner = self.inner.borrow();
        inner.entries.iter().all(|e| !overlap(&e.range, range))
    }

    /// Waits for all overlapping ranges that came before.
    pub async fn lock(&self, range: Range<u64>) -> RangeLock {
        let (lock, wait) = {
            let mut inner = self.inner.borrow_mut();
            let number = inner.next;
            inner.next += 1;
            let blocked = inner.entries.iter().any(|e| overlap(&e.range, &range));
            let (send, receive) = oneshot::channel();
            let wake = blocked.then_some(send);
            inner.entries.push(Entry { number, range, wake });
            (RangeLock { number, inner: self.inner.clone() }, blocked.then_some(receive))
        };
        if let Some(receive) = wait {
            // The sender lives in the entry, which lives as long as the lock: it cannot fail.
            drop(receive.await);
        }
        lock
    }
}

impl Drop for RangeLock {
    fn drop(&mut self) {
        let mut inner = self.inner.borrow_mut();
        inner.entries.retain(|e| e.number != self.number);
        for i in 0..inner.entries.len() {
            let range = inner.entries[i].range.clone();
            let free = inner.entries[..i].iter().all(|e| !overlap(&e.range, &range));
            if free && let Some(wake) = inner.entries[i].wake.take() {
                wake.send(()).ok();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::poll;

    #[tokio::test]
    async fn overlapping_ranges_go_in_order() {
        let locks = RangeLocks::default();
        let first = locks.lock(0..10).await;
        let second = locks.lock(5..15);
        let third = locks.lock(12..20);
        let apart = locks.lock(30..40);
        tokio::pin!(second, third);
        assert!(poll!(&mut second).is_pending());
        assert!(poll!(&mut third).is_pending(), "must not overtake the second");
        let _apart = apart.await;
        assert!(!locks.is_free(&(0..1)));
        assert!(locks.is_free(&(20..30)));
        drop(first);
        let second = second.await;
        assert!(poll!(&mut third).is_pending());
        drop(second);
        drop(third.await);
        assert!(locks.is_free(&(0..20)));
    }
}
