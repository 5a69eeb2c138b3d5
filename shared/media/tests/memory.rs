//! The writer takes no more content than it was allowed to hold, however slow the media are.

#![allow(clippy::unwrap_used, reason = "a test ends where its scene cannot be built")]

mod scene;

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use disk::simulated::{Fault, OpKind, SimMachine};
use grain::GrainSet;
use media::{FinishInfo, SetWriter};
use scene::{Scene, run};

#[test]
fn slow_media_hold_the_caller_back() {
    let machine = SimMachine::new(1);
    let mut scene = Scene::new(machine.context(), "/mnt", 2, 12 << 20, true);
    scene.segment_bytes = 4 << 20;
    scene.level = None;
    run(async {
        let plan = media::SetPlan { queue_bytes: 3 << 20, ..scene.plan(1) };
        let limit = plan.queue_bytes;
        let writer = Rc::new(SetWriter::create(&scene.ctx, plan).await.unwrap());
        machine.set_fault_hook(|op| match op.kind {
            OpKind::Write if op.path.to_string_lossy().ends_with(".ghs") => {
                Fault::Slow(Duration::from_millis(1))
            }
            _ => Fault::None,
        });
        let largest = Rc::new(Cell::new(0));
        let watched = (writer.clone(), largest.clone());
        let watch = tokio::task::spawn_local(async move {
            loop {
                let counters = watched.0.counters();
                let held: u64 = counters.queued_bytes.iter().sum();
                watched.1.set(watched.1.get().max(held));
                tokio::task::yield_now().await;
            }
        });
        scene.push_all(&writer, &GrainSet::new()).await.unwrap();
        watch.abort();
        drop(watch.await);
        assert!(largest.get() <= limit, "{} bytes were held", largest.get());
        assert!(largest.get() > limit / 2, "the scene does not press: {}", largest.get());
        machine.clear_fault_hook();
        let writer = Rc::into_inner(writer).unwrap();
        writer.finish(FinishInfo::default()).await.unwrap();
        let view = scene.view(&scene.media).await.unwrap();
        // Both media were used, the one about as much as the other.
        let share = view.listed_on(1).len() as f64 / view.listed().len() as f64;
        assert!((0.3..0.7).contains(&share), "{share}");
    });
}
