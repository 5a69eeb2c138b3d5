//! [`Snapshot`]: what the relationship's thread publishes and the control thread serves.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::sync::watch;

/// How many events are kept.
const EVENTS: usize = 1024;

/// The last published status and jobs, and the last events. Never holds its lock for longer than a
/// pointer swap or a copy of what is asked for.
#[derive(Debug)]
pub struct Snapshot {
    state: Mutex<State>,
    newest: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct State {
    published: Option<Published>,
    events: VecDeque<Event>,
    next: u64,
}

#[derive(Debug, Clone)]
struct Published {
    at: Instant,
    status: Value,
    jobs: BTreeMap<String, Value>,
}

#[derive(Debug, Clone)]
struct Event {
    number: u64,
    unix_ms: u64,
    kind: String,
    body: Value,
}

impl Default for Snapshot {
    fn default() -> Self {
        Snapshot::new()
    }
}

impl Snapshot {
    /// Nothing published yet.
    pub fn new() -> Snapshot {
        let state = State { next: 1, ..State::default() };
        Snapshot { state: Mutex::new(state), newest: watch::Sender::new(0) }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing that can panic happens under the lock.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Publishes the status, and the jobs by their ids.
    pub fn publish(&self, status: Value, jobs: BTreeMap<String, Value>) {
        let published = Published { at: Instant::now(), status, jobs };
        // What was there is dropped outside the lock.
        let before = self.lock().published.replace(published);
        drop(before);
    }

    /// Adds an event; answers its number. The oldest goes when there are too many.
    pub fn event(&self, unix_ms: u64, kind: &str, body: Value) -> u64 {
        let mut state = self.lock();
        let number = state.next;
        state.next += 1;
        state.events.push_back(Event { number, unix_ms, kind: kind.to_owned(), body });
        if state.events.len() > EVENTS {
            state.events.pop_front();
        }
        drop(state);
        self.newest.send_replace(number);
        number
    }

    fn published(&self) -> Option<(u64, Published)> {
        let published = self.lock().published.clone()?;
        Some((published.at.elapsed().as_millis() as u64, published))
    }

    /// `{age_ms, status}`, once something was published.
    pub fn status(&self) -> Option<Value> {
        let (age_ms, published) = self.published()?;
        Some(json!({ "age_ms": age_ms, "status": published.status }))
    }

    /// `{age_ms, jobs}`, once something was published.
    pub fn jobs(&self) -> Option<Value> {
        let (age_ms, published) = self.published()?;
        Some(json!({ "age_ms": age_ms, "jobs": published.jobs }))
    }

    /// `{age_ms, job}` of a job that was published.
    pub fn job(&self, id: &str) -> Option<Value> {
        let (age_ms, published) = self.published()?;
        let job = published.jobs.get(id)?;
        Some(json!({ "age_ms": age_ms, "job": job }))
    }

    /// `{events, next}` after number `after`. `next` is what to ask with the next time; where events
    /// were forgotten meanwhile, the first one's number shows it.
    pub fn events(&self, after: u64) -> Value {
        let state = self.lock();
        let events: Vec<Event> =
            state.events.iter().filter(|event| event.number > after).cloned().collect();
        let next = state.next - 1;
        drop(state);
        let events: Vec<Value> = events
            .into_iter()
            .map(|Event { number, unix_ms, kind, body }| {
                json!({ "number": number, "unix_ms": unix_ms, "kind": kind, "body": body })
            })
            .collect();
        json!({ "events": events, "next": next })
    }

    /// Waits until there is an event after number `after`, or `limit` has passed.
    pub async fn wait_event(&self, after: u64, limit: Duration) {
        let mut newest = self.newest.subscribe();
        let waits = newest.wait_for(|number| *number > after);
        // Both ends of the wait lead to the same look at the events.
        drop(tokio::time::timeout(limit, waits).await);
    }
}
