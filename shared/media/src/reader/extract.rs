//! Walking over all content that is there: for extracting, and for verifying with a key.
//!
//! One reader a medium, so that all disks are read at once; what they bring meets in one bounded
//! queue and is handed over one by one, in any order.

use std::future::Future;

use grain::GrainSet;
use grain::fingerprint::{Fingerprint, FingerprintPlan, FingerprintSum};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::damage::Damage;
use super::segment_reader::{SegmentEvent, VerifiedRun};
use super::view::SetView;
use crate::directory::SetFacts;
use crate::root_digest::RootSum;

/// Events that may wait between the readers and the sink.
const QUEUE_EVENTS: usize = 8;

/// What a walk over a set proved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proof {
    /// Everything that is wrong, with the grains that it cost.
    pub damage: Vec<Damage>,
    /// The grains that were read and match signed digests.
    pub proven: GrainSet,
    /// What the root digest says.
    pub root: RootVerdict,
    /// The fingerprint over what was read. That of a set read whole is the one in its directory.
    pub fingerprint: Fingerprint,
}

impl Proof {
    /// Whether everything that the set lists was read and adds up to what the source signed.
    pub fn is_whole(&self, facts: &SetFacts) -> bool {
        self.root == RootVerdict::Proven && self.fingerprint == facts.fingerprint
    }
}

/// What the root digest says about the grains that were read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RootVerdict {
    /// All grains of the set were read, and their digest is the signed one.
    Proven,
    /// Some grains are damaged or on media that are not there.
    Incomplete,
    /// All grains were read, and their digest is another: the source signed a contradiction.
    Differs,
}

impl SetView {
    /// Hands every verified run on the media that are there to `sink`, in any order, and returns what
    /// was damaged. An error of the sink ends the walk.
    pub async fn extract<E, F>(&self, mut sink: impl FnMut(VerifiedRun) -> F) -> Result<Proof, E>
    where
        F: Future<Output = Result<(), E>>,
    {
        let (send, mut events) = mpsc::channel(QUEUE_EVENTS);
        // Dropped at an error of the sink, and with it all readers.
        let mut readers = JoinSet::new();
        for (_, numbers) in self.present_segments() {
            let (view, send) = (self.clone(), send.clone());
            readers.spawn_local(async move {
                for number in numbers {
                    let Some(mut reader) = view.read_segment(number) else { continue };
                    while let Some(event) = reader.next().await {
                        if send.send(event).await.is_err() {
                            return;
                        }
                    }
                }
            });
        }
        drop(send);
        let mut damage = self.signed().damage.clone();
        let (mut proven, mut sum) = (GrainSet::new(), RootSum::new());
        let geometry = &self.facts().geometry;
        let plan = FingerprintPlan::of_cut(geometry, self.facts().cut.cut);
        let mut samples = FingerprintSum::new();
        while let Some(event) = events.recv().await {
            match event {
                SegmentEvent::Damage(found) => damage.push(found),
                SegmentEvent::Run(run) => {
                    proven.insert_run(run.data.run);
                    sum.add(&run.sum);
                    plan.add_grains(geometry, &mut samples, &run.data);
                    sink(run).await?;
                }
            }
        }
        while let Some(ended) = readers.join_next().await {
            if let Err(error) = ended
                && error.is_panic()
            {
                std::panic::resume_unwind(error.into_panic());
            }
        }
        let root = self.verdict(&proven, &sum);
        Ok(Proof { damage, proven, root, fingerprint: plan.so_far(&samples) })
    }

    fn verdict(&self, proven: &GrainSet, sum: &RootSum) -> RootVerdict {
        let facts = self.facts();
        if *proven != self.listed() {
            RootVerdict::Incomplete
        } else if sum.finish(&facts.geometry) == facts.root_digest {
            RootVerdict::Proven
        } else {
            RootVerdict::Differs
        }
    }

    /// Reads and checks everything: every record, every grain, the root digest. `on_bytes` hears of
    /// the content bytes of every run.
    pub async fn verify(&self, on_bytes: &dyn Fn(u64)) -> Proof {
        let walked = self
            .extract(async |run: VerifiedRun| {
                if let grain::Content::Data(bytes) = &run.data.content {
                    on_bytes(bytes.len() as u64);
                }
                Ok::<(), std::convert::Infallible>(())
            })
            .await;
        match walked {
            Ok(proof) => proof,
            Err(never) => match never {},
        }
    }
}
