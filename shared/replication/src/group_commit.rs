//! Group commit: one expensive operation (a sync) serves all who wait for it.
//!
//! Promise: a caller is woken only by an operation that *started* after the caller joined. Whoever
//! joins while one is running is served by the next, never by the running one, whose start lies
//! before what the caller wants to see covered. The operation runs in a task of its own, so that a
//! caller who goes away does not stop it.

use std::cell::RefCell;
use std::future::Future;
use std::rc::Rc;

use disk::Local;
use tokio::sync::oneshot;

use crate::Error;

type Answer = Result<(), Error>;
type Operation = Box<dyn Fn() -> Local<'static, Answer>>;

struct Shared {
    operation: Operation,
    queue: RefCell<Queue>,
}

#[derive(Default)]
struct Queue {
    running: bool,
    waiting: Vec<oneshot::Sender<Answer>>,
}

/// See the module's text. Cheap to clone.
#[derive(Clone)]
pub(crate) struct GroupCommit {
    shared: Rc<Shared>,
}

impl GroupCommit {
    /// A group commit over `operation`.
    pub(crate) fn new<F>(operation: F) -> Self
    where
        F: Fn() -> Local<'static, Answer> + 'static,
    {
        let operation: Operation = Box::new(operation);
        GroupCommit { shared: Rc::new(Shared { operation, queue: RefCell::default() }) }
    }

    /// Asks for an operation that starts after this call; the future waits for its end.
    pub(crate) fn join(&self) -> impl Future<Output = Answer> + 'static {
        let (send, receive) = oneshot::channel();
        let start = {
            let mut queue = self.shared.queue.borrow_mut();
            queue.waiting.push(send);
            !std::mem::replace(&mut queue.running, true)
        };
        if start {
            tokio::task::spawn_local(run(self.shared.clone()));
        }
        async move { receive.await.unwrap_or_else(|_| Err(Error::State("shutting down".to_owned()))) }
    }
}

async fn run(shared: Rc<Shared>) {
    loop {
        let batch = {
            let mut queue = shared.queue.borrow_mut();
            let batch = std::mem::take(&mut queue.waiting);
            queue.running = !batch.is_empty();
            batch
        };
        if batch.is_empty() {
            return;
        }
        let answer = (shared.operation)().await;
        for waiter in batch {
            // A waiter that went away does not matter: the operation was done all the same.
            drop(waiter.send(answer.clone()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;
    use std::time::Duration;

    #[tokio::test(flavor = "current_thread", start_paused = true)]
    async fn who_joins_late_is_served_by_the_next() {
        let local = tokio::task::LocalSet::new();
        local
            .run_until(async {
                let started = Rc::new(Cell::new(0));
                let count = started.clone();
                let group = GroupCommit::new(move || {
                    count.set(count.get() + 1);
                    Box::pin(async {
                        tokio::time::sleep(Duration::from_millis(10)).await;
                        Ok(())
                    })
                });
                let first = group.join();
                tokio::time::sleep(Duration::from_millis(1)).await;
                assert_eq!(started.get(), 1);
                let (second, third) = (group.join(), group.join());
                first.await.unwrap();
                second.await.unwrap();
                third.await.unwrap();
                assert_eq!(started.get(), 2);
            })
            .await;
    }

    #[tokio::test(flavor = "current_thread", start_paused = true)]
    async fn a_caller_who_leaves_does_not_stop_it() {
        let local = tokio::task::LocalSet::new();
        local
            .run_until(async {
                let ended = Rc::new(Cell::new(false));
                let flag = ended.clone();
                let group = GroupCommit::new(move || {
                    let flag = flag.clone();
                    Box::pin(async move {
                        tokio::time::sleep(Duration::from_millis(10)).await;
                        flag.set(true);
                        Ok(())
                    })
                });
                drop(group.join());
                tokio::time::sleep(Duration::from_millis(20)).await;
                assert!(ended.get());
            })
            .await;
    }
}
