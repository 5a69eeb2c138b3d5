//! A process of the simulation: a `LocalSet` of its own, polled by a task of the world. It can be
//! killed at any await (its tasks are dropped where they stand) and hung (not polled).

use std::cell::{Cell, RefCell};
use std::future::{Future, pending, poll_fn};
use std::pin::pin;
use std::rc::Rc;
use std::task::{Poll, Waker};

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tokio::task::{JoinHandle, LocalSet};

#[derive(Default)]
struct Control {
    dead: Cell<bool>,
    hung: Cell<bool>,
    waker: RefCell<Option<Waker>>,
}

impl Control {
    fn remember(&self, waker: &Waker) {
        let mut known = self.waker.borrow_mut();
        if !known.as_ref().is_some_and(|known| known.will_wake(waker)) {
            *known = Some(waker.clone());
        }
    }

    fn wake(&self) {
        if let Some(waker) = self.waker.borrow().as_ref() {
            waker.wake_by_ref();
        }
    }
}

/// See the module's text. The handle does not keep it alive.
#[derive(Clone)]
pub struct Process {
    local: std::rc::Weak<LocalSet>,
    control: Rc<Control>,
}

impl Process {
    /// A new process and what ends when it is gone.
    pub fn start() -> (Process, JoinHandle<()>) {
        let local = Rc::new(LocalSet::new());
        let control = Rc::new(Control::default());
        let process = Process { local: Rc::downgrade(&local), control: control.clone() };
        let polled = tokio::task::spawn_local(async move {
            let mut work = pin!(local.run_until(pending::<()>()));
            poll_fn(|cx| {
                control.remember(cx.waker());
                if !control.dead.get() && !control.hung.get() {
                    // Its tasks are polled with it; it has no end of its own.
                    assert!(work.as_mut().poll(cx).is_pending());
                }
                if control.dead.get() { Poll::Ready(()) } else { Poll::Pending }
            })
            .await;
        });
        (process, polled)
    }

    /// Runs a task in it; none when it is gone.
    pub fn spawn<T: 'static>(
        &self,
        task: impl Future<Output = T> + 'static,
    ) -> Option<JoinHandle<T>> {
        let local = self.local.upgrade().filter(|_| !self.control.dead.get())?;
        let handle = local.spawn_local(task);
        drop(local);
        Some(handle)
    }

    /// Ends it. Its tasks are dropped as soon as it is not being polled.
    pub fn kill(&self) {
        self.control.dead.set(true);
        self.control.wake();
    }

    /// Stops or goes on polling it.
    pub fn hang(&self, hung: bool) {
        self.control.hung.set(hung);
        self.control.wake();
    }

    /// Whether it was killed.
    pub fn is_dead(&self) -> bool {
        self.control.dead.get()
    }

    /// Whether it is not scheduled at present.
    pub fn is_hung(&self) -> bool {
        self.control.hung.get()
    }
}

/// A `LocalSet` polls what it runs until it ends whenever one of its tasks was woken. This polls it only when
/// it was woken itself.
pub async fn when_woken<F: Future>(work: F) -> F::Output {
    let mut one = FuturesUnordered::from_iter([work]);
    one.next().await.expect("one piece of work")
}
