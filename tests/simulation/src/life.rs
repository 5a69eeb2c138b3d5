//! The lives of both sites: a supervisor each that starts the process, waits for its end, has the
//! crash looked at, and starts it again after a while, as an init system does.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use disk::simulated::Crash;
use grain::ErrorClass;
use replication::replica::Replica;
use replication::source::Source;
use replication::state::{SetStage, StateStore};
use replication::{Error, Result};

use crate::node::{dir, watch};
use crate::plan::Site;
use crate::process::Process;
use crate::verbs;
use crate::workload;
use crate::world::World;
use crate::{check, event};

/// The pause before a start that failed is tried again.
const RETRY: Duration = Duration::from_millis(50);

/// Keeps a site running as long as the world lives.
pub async fn keep(world: Rc<World>, site: Site) {
    watch(&world, site);
    loop {
        let node = world.node(site);
        if node.held.get() || world.has_failed() {
            tokio::time::sleep(RETRY).await;
            continue;
        }
        node.down.set(RETRY);
        let (process, ended) = Process::start();
        *node.process.borrow_mut() = Some(process.clone());
        let life = world.clone();
        process.spawn(async move {
            if let Err(e) = begin(&life, site).await {
                start_failed(&life, site, &e);
                life.node(site).process.borrow().iter().for_each(Process::kill);
            }
        });
        drop(ended.await);
        node.process.borrow_mut().take();
        forget(&world, site);
        // A process that ended by itself leaves locks and open files as one that was killed.
        let kind = match node.crashed.take() {
            Some(kind) => kind,
            None => {
                node.machine.crash_seeded(Crash::Kill, 0);
                Crash::Kill
            }
        };
        check::after_end(&world, site, kind).await;
        let down = node.down.replace(RETRY);
        tokio::time::sleep(down).await;
    }
}

/// What was known of a process that is gone.
fn forget(world: &World, site: Site) {
    match site {
        Site::Source => {
            world.source_is_gone();
            if world.source_role.borrow_mut().take().is_none() {
                // What a start that did not come to its end suspected, it has told nobody.
                world.licence.excess.set(true);
            }
            world.dump.borrow_mut().take();
            world.dumping.set(false);
            world.oracle.process_gone();
            world.licence.sync_befell.set(None);
            world.licence.sync_told.set(false);
        }
        Site::Replica => {
            world.loading.set(false);
            drop(world.replica_role.borrow_mut().take());
            check::stands_fast::process_gone(world);
        }
    }
    world.sessions.borrow_mut()[site as usize] = None;
}

async fn begin(world: &Rc<World>, site: Site) -> Result<()> {
    let ctx = world.node(site).machine.context();
    let store = StateStore::open(&ctx, dir()).await?;
    match site {
        Site::Source => {
            *world.source_store.borrow_mut() = Some(store.clone());
            // The operator's word, as soon as faults have stopped.
            let accept = world.healing.get();
            let suspect = store.with(|s| s.suspect.is_some());
            let source = Source::start(&ctx, dir(), &store, world.source_settings(accept)).await?;
            match (suspect, accept) {
                (true, true) => event!(world, "start: suspect, accepted by the operator"),
                (true, false) => event!(world, "start: suspect"),
                _ => event!(world, "start: source"),
            }
            if !source.suspected().is_empty() {
                world.trace.count("start: a power cut made grains suspected");
                world.licence.excess.set(true);
            }
            *world.source_role.borrow_mut() = Some(source.clone());
            let unfinished = store.with(|s| s.sets.iter().any(|x| x.stage == SetStage::Writing));
            if unfinished && !world.healing.get() {
                verbs::dump::resume(world).await;
            }
            workload::begin(world, &source);
        }
        Site::Replica => {
            let settings = world.replica_settings(world.healing.get());
            let replica = Replica::start(&ctx, dir(), &store, settings).await?;
            event!(world, "start: replica");
            *world.replica_role.borrow_mut() = Some(replica);
        }
    }
    Ok(())
}

/// A start may fail when a disk fails, and must when the state is damaged.
fn start_failed(world: &World, site: Site, e: &Error) {
    event!(world, "start: failed", "{} {e}", site.name());
    if world.node(site).process().is_none() {
        return;
    }
    let damaged = world.licence.state_damaged.borrow().is_some_and(|(of, ..)| of == site);
    if damaged {
        if e.class() == ErrorClass::Corrupt {
            world.trace.count("start: damaged state refused");
            return;
        }
        return;
    }
    if world.healing.get() {
        world.fail("alive", format!("the {} does not start: {e}", site.name()));
    } else if e.class() == ErrorClass::Bug {
        world.fail("alive", format!("the {} ends in a bug at its start: {e}", site.name()));
    }
}

/// Stops a site cleanly.
pub async fn stop(world: &Rc<World>, site: Site, down: Duration) {
    let Some(process) = world.node(site).process() else { return };
    let (of, told) = (world.clone(), Rc::new(RefCell::new(())));
    let stopping = process.spawn(async move {
        let _told = told;
        let outcome = match site {
            Site::Source => {
                let source = of.source_role.borrow().clone();
                of.end_sessions();
                match source {
                    Some(source) => {
                        let begun = of.oracle.flush_begins();
                        let outcome = source.stop().await;
                        if outcome.is_ok() {
                            of.oracle.flushed(begun);
                        }
                        outcome
                    }
                    None => return,
                }
            }
            Site::Replica => {
                of.end_sessions();
                let replica = of.replica_role.borrow().clone();
                match replica {
                    Some(replica) => replica.stop().await,
                    None => return,
                }
            }
        };
        match outcome {
            Ok(()) => event!(of, "stop: clean", "{}", site.name()),
            Err(e) => event!(of, "stop: failed", "{} {e}", site.name()),
        }
        of.look();
        of.node(site).down.set(down);
        of.node(site).process.borrow().iter().for_each(Process::kill);
    });
    drop(stopping);
}
