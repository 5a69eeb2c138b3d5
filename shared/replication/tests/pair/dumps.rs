//! One dump a source, from its beginning on: whoever asks for another one meanwhile is told so.

use std::rc::Rc;
use std::time::Duration;

use replication::dump::DumpJob;
use replication::source::Source;
use replication::state::SetStage;

use crate::media::request;
use crate::rig::{GRAIN, Pair, fill, run};

const SIZES: [u64; 2] = [96 * GRAIN, 40 * GRAIN + 100];

async fn filled(seed: u64) -> (Pair, Rc<Source>) {
    let pair = Pair::new(seed, &SIZES).await;
    let source = pair.start_source().await.unwrap();
    for grain in (0..96).step_by(2) {
        fill(&source, 0, grain, grain as u8 + 1).await;
    }
    let ctx = pair.source_machine.context();
    ctx.storage.create_dir("/media".as_ref()).await.unwrap();
    pair.source_machine.set_latency(Duration::from_micros(100)..Duration::from_millis(2));
    (pair, source)
}

/// Both are asked for before either has made its cut: one of them runs.
#[test]
fn of_two_dumps_that_begin_at_once_one_is_refused() {
    run(|| async {
        let (pair, source) = filled(111).await;
        let begin = || DumpJob::begin(&source, request(&pair, 1));
        let (one, two) = tokio::join!(begin(), begin());
        assert!(one.is_ok() != two.is_ok(), "both or neither were begun");
        let job = one.or(two).unwrap();
        let running = || source.store().with(|s| s.sets.len());
        assert_eq!(running(), 1);
        assert!(begin().await.is_err(), "while one runs");
        // Nobody waits for a session that nobody takes from.
        let end = tokio::time::timeout(Duration::from_secs(600), job.run()).await.unwrap();
        assert_eq!(end.unwrap().fuzzy_end, None);
        drop(job);
        fill(&source, 0, 1, 9).await;
    });
}

/// The operator asks twice for the dump that a crash broke off to go on: two that write the same set would
/// give the same number to two segments.
#[test]
fn of_two_that_take_up_a_dump_one_is_refused() {
    run(|| async {
        let (pair, source) = filled(112).await;
        let job = DumpJob::begin(&source, request(&pair, 1)).await.unwrap();
        let set = job.set();
        // Its process is gone.
        drop(job);
        let resume = || DumpJob::resume(&source, set, request(&pair, 1));
        let (one, two) = tokio::join!(resume(), resume());
        assert!(one.is_ok() != two.is_ok(), "both or neither were taken up");
        let job = one.or(two).unwrap();
        assert!(resume().await.is_err(), "while one runs");
        job.run().await.unwrap();
        let stage = source.store().with(|s| s.sets[0].stage);
        assert_eq!(stage, SetStage::Finished);
        assert!(resume().await.is_err(), "there is nothing left to take up");
    });
}
