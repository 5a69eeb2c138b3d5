//! Cuts and dumps at the source.

use std::path::PathBuf;
use std::rc::Rc;

use grain::CutReason;
use replication::dump::{DumpJob, DumpOptions, DumpRequest, Preserve, SavedOptions};
use replication::source::Source;
use replication::state::SetStage;
use wire::Recipient;

use crate::node::dir;
use crate::plan::Site;
use crate::world::{MadeSet, World};
use crate::{check, event};

/// Runs something in the source's process, if there is one.
fn at_source<F>(world: &Rc<World>, work: impl FnOnce(Rc<World>, Rc<Source>) -> F)
where
    F: Future<Output = ()> + 'static,
{
    let source = world.source_role.borrow().clone();
    if let (Some(process), Some(source)) = (world.node(Site::Source).process(), source) {
        drop(process.spawn(work(world.clone(), source)));
    }
}

/// A cut by hand, and housekeeping.
pub fn cut(world: &Rc<World>) {
    at_source(world, |world, source| async move {
        match source.cut(CutReason::Bookmark, |_| Vec::new()).await {
            Ok(_) => event!(world, "verb: cut"),
            Err(e) => event!(world, "verb: cut refused", "{e}"),
        }
        match source.housekeep().await {
            Ok(()) => event!(world, "verb: housekeep"),
            Err(e) => event!(world, "verb: housekeep failed", "{e}"),
        }
    });
}

fn request(world: &World, media: Vec<PathBuf>) -> DumpRequest {
    let shape = &world.shape;
    let saved = SavedOptions {
        segment_bytes: media::MIN_SEGMENT_BYTES,
        level: shape.level,
        encrypt: shape.sealed,
        recipients: vec![world.keys(Site::Replica).identity().to_string()],
        buffer_bytes: shape.buffer_bytes[0],
        side_bytes: shape.side_bytes[0],
        side_dir: dir().to_owned(),
        preserve_wait_ms: shape.preserve_wait.as_millis() as u64,
        preserve: match shape.preserve {
            0 => Preserve::Fuzzy,
            1 => Preserve::Throttle,
            _ => Preserve::Abort,
        },
        rate_bytes: if world.healing.get() { 0 } else { shape.dump_rate },
    };
    let recipients = vec![Recipient::Site(world.keys(Site::Replica).identity())];
    let (keys, ticket) = (world.keys(Site::Source), "ticket".to_owned());
    DumpRequest { media, options: DumpOptions { saved, recipients, keys, ticket } }
}

/// Begins a dump.
pub fn begin(world: &Rc<World>) {
    let number = world.dumps.replace(world.dumps.get() + 1);
    let media = (0..world.shape.media).map(|m| PathBuf::from(format!("/media/d{number}m{m}")));
    let request = request(world, media.collect());
    if world.source_role.borrow().is_none() {
        return;
    }
    world.dumping.set(true);
    at_source(world, |world, source| async move {
        // An agent runs one dump at a time.
        for medium in &request.media {
            drop(source.context().storage.create_dir(medium).await);
        }
        match DumpJob::begin(&source, request).await {
            Ok(job) => run(&world, job).await,
            Err(e) => {
                world.dumping.set(world.dump.borrow().is_some());
                event!(world, "verb: dump refused", "{e}");
            }
        }
    });
}

async fn run(world: &Rc<World>, job: Rc<DumpJob>) {
    event!(world, "verb: dump");
    world.dumping.set(true);
    *world.dump.borrow_mut() = Some(job.clone());
    let outcome = job.run().await;
    let preserved = job.progress.session.get().preserved_grains;
    if preserved > 0 {
        world.trace.count("dump: preserved grains");
    }
    world.dump.borrow_mut().take();
    world.dumping.set(false);
    match outcome {
        Ok(end) => {
            match end.fuzzy_end {
                Some(_) => event!(world, "dump: finished fuzzy"),
                None => event!(world, "dump: finished exact"),
            }
            if !world.node(Site::Source).is_up() {
                return;
            }
            let set = MadeSet { set: end.summary.set, media: job.media().to_vec() };
            check::media::finished(world, &set, end.cut, end.fuzzy_end).await;
            world.made.borrow_mut().push(set);
        }
        Err(replication::Error::Cancelled) => event!(world, "dump: cancelled"),
        Err(e) => event!(world, "dump: failed", "{e}"),
    }
}

/// Takes up the unfinished dump, from inside the source's process.
pub async fn resume(world: &Rc<World>) {
    let Some(source) = world.source_role.borrow().clone() else { return };
    let unfinished =
        source.store().with(|s| s.sets.iter().find(|set| set.stage == SetStage::Writing).cloned());
    let Some(record) = unfinished else {
        event!(world, "verb: nothing to resume");
        return;
    };
    match DumpJob::resume(&source, record.id, request(world, record.media)).await {
        Ok(job) => {
            event!(world, "verb: dump resumed");
            let world = world.clone();
            tokio::task::spawn_local(async move { run(&world, job).await });
        }
        Err(e) => event!(world, "verb: resume refused", "{e}"),
    }
}

/// The same as a verb.
pub fn resume_later(world: &Rc<World>) {
    at_source(world, |world, _| async move { resume(&world).await });
}

/// Cancels a running dump, or clears up the unfinished one.
pub fn cancel(world: &Rc<World>) {
    at_source(world, |world, source| async move {
        drop(cancel_now(&world, &source).await);
    });
}

/// The same, from inside the source's process.
pub async fn cancel_now(world: &World, source: &Rc<Source>) -> replication::Result<()> {
    if let Some(job) = world.dump.borrow().clone() {
        event!(world, "verb: cancel of a running dump");
        job.cancel();
        return Ok(());
    }
    let unfinished =
        source.store().with(|s| s.sets.iter().find(|set| set.stage == SetStage::Writing).cloned());
    let Some(record) = unfinished else {
        event!(world, "verb: nothing to cancel");
        return Ok(());
    };
    event!(world, "verb: cancel of an unfinished dump");
    media::remove_set(source.context(), record.id, &record.media).await?;
    let id = record.id;
    source
        .store()
        .update(|s| {
            for set in s.sets.iter_mut().filter(|set| set.id == id) {
                set.stage = SetStage::Cancelled;
            }
        })
        .await?;
    source.housekeep().await
}
