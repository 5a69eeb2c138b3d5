//! Loading a media set: only grains that are still missing are written, and a grain stops being
//! missing only when its bytes were checked against digests signed by the source, written and synced.
//!
//! Resumable and idempotent, disk by disk in any order. What is damaged on a medium that is there
//! becomes *damaged* (pulled later); what stands on a medium that is not there stays *not loaded*.

use std::cell::{Cell, RefCell};
use std::path::PathBuf;
use std::rc::Rc;

use grain::fingerprint::Fingerprint;
use grain::{Content, GrainData, GrainSet, Lineage, Run, SetId};
use media::{Damage, KeySource, SegmentEvent, SetView};
use wire::Identity;

use super::Replica;
use crate::state::SeedRecord;
use crate::{Error, Result};

/// Grains written before a sync strikes them, in bytes.
const STRIKE_BYTES: u64 = 256 << 20;

/// What is asked.
#[derive(Clone)]
pub struct LoadRequest {
    /// The media that are here.
    pub dirs: Vec<PathBuf>,
    /// What may open them.
    pub keys: Vec<KeySource>,
}

/// For the operator, while it runs.
#[derive(Debug, Default)]
pub struct LoadProgress {
    /// Grains to load from the media given.
    pub total_grains: Cell<u64>,
    /// Grains loaded.
    pub done_grains: Cell<u64>,
    /// Bytes of data written.
    pub data_bytes: Cell<u64>,
}

/// What came of it.
#[derive(Clone, Debug)]
pub struct LoadReport {
    /// Which set.
    pub set: SetId,
    /// Grains written now.
    pub loaded_grains: u64,
    /// Grains that were loaded before.
    pub already_grains: u64,
    /// Damage found now, in words.
    pub damage: Vec<String>,
    /// Grains damaged now.
    pub damaged_grains: u64,
    /// Grains that wait for media not given.
    pub waiting_grains: u64,
    /// Grains that the source could not read: they are on no medium.
    pub unreadable_grains: u64,
    /// Numbers of the media that were here, and how many the set has.
    pub media: (Vec<u16>, u16),
    /// The fingerprint of what stands in the volumes, equal to that of the set; none while some of the
    /// set is missing.
    pub fingerprint: Option<Fingerprint>,
    /// True when the set is fuzzy: no consistent image before the first catch-up.
    pub fuzzy: bool,
}

struct Loading<'a> {
    replica: &'a Rc<Replica>,
    view: SetView,
    progress: &'a LoadProgress,
    /// What still has to come from the set.
    wanted: RefCell<GrainSet>,
    damage: RefCell<Vec<Damage>>,
    written: Cell<u64>,
    /// Syncs of the base that had failed before it began.
    failed_syncs: u64,
}

impl Replica {
    /// Loads what is there of a media set.
    pub async fn load(
        self: &Rc<Self>,
        request: LoadRequest,
        progress: &LoadProgress,
    ) -> Result<LoadReport> {
        let _base = self.base.lock().await;
        self.storing.over().await;
        self.still_loading()?;
        let source: Identity = self
            .store
            .with(|s| s.replica.as_ref().map(|r| r.source.clone()).unwrap_or_default())
            .parse()
            .map_err(|e: wire::Error| Error::State(format!("the source's identity: {e}")))?;
        let view = SetView::open(&self.ctx, &request.dirs, &request.keys, Some(&source)).await?;
        if !self.begin_load(&view).await? {
            let fingerprint = self.check_seed(&view).await?;
            return Ok(LoadReport { fingerprint, ..self.already(&view) });
        }
        // What a broken catch-up brought into the base is newer than what the media hold, and is about
        // to be overwritten: all of it is asked for again.
        if self.pull.borrow().as_ref().is_some_and(|pull| pull.is_direct()) {
            self.distrust_pull().await?;
        }
        self.end_history("media are loaded").await?;
        let before = self.unloaded.set();
        let mut here = view.listed();
        here.subtract(&view.listed_on_absent());
        here.intersect_with(&before);
        progress.total_grains.set(here.len());
        let already_grains = view.listed().len() - before.len();
        let loading = Loading {
            replica: self,
            view: view.clone(),
            progress,
            wanted: RefCell::new(before),
            damage: RefCell::default(),
            written: Cell::new(0),
            failed_syncs: self.volumes.failed_syncs(),
        };
        loading.run().await?;
        let damage = loading.damage.take();
        let written = loading.written.get();
        drop(loading);
        let lost = self.settle_load(&view, here).await?;
        self.check_due.set(true);
        let fingerprint = self.check_seed(&view).await?;
        Ok(LoadReport {
            set: view.signed().set(),
            loaded_grains: written,
            already_grains,
            damage: damage.iter().map(ToString::to_string).collect(),
            damaged_grains: lost,
            waiting_grains: self.unloaded.len(),
            unreadable_grains: unreadable_of(&view).len(),
            media: media_of(&view),
            fingerprint,
            fuzzy: view.facts().fuzzy_end.is_some(),
        })
    }

    /// A stop ends a load: a base that is written after it was sealed counts as touched.
    fn still_loading(&self) -> Result<()> {
        if self.stopping.get() { Err(Error::Cancelled) } else { Ok(()) }
    }

    /// A set that was loaded whole before.
    fn already(&self, view: &SetView) -> LoadReport {
        LoadReport {
            set: view.signed().set(),
            loaded_grains: 0,
            already_grains: view.listed().len(),
            damage: Vec::new(),
            damaged_grains: 0,
            waiting_grains: 0,
            unreadable_grains: unreadable_of(view).len(),
            media: media_of(view),
            fingerprint: None,
            fuzzy: view.facts().fuzzy_end.is_some(),
        }
    }

    /// Checks that the set fits, and makes durable what has to be before the first grain is written.
    /// False when there is nothing to load from it any more.
    async fn begin_load(&self, view: &SetView) -> Result<bool> {
        let facts = view.facts();
        let set = view.signed().set();
        let relationship = view.signed().manifest().relationship;
        if relationship != self.store.with(|s| s.relationship) {
            return Err(Error::State(format!(
                "the set {set} belongs to another relationship ({relationship})"
            )));
        }
        if facts.geometry != *self.volumes.geometry() {
            return Err(Error::State(format!("the set {set} is of other volumes")));
        }
        if let Some(basis) = facts.basis {
            return Err(Error::State(format!(
                "the set {set} is a differential onto the cut {basis}; only full sets are loaded"
            )));
        }
        let (seed, head) =
            self.store.with(|s| (s.replica.as_ref().and_then(|r| r.seed.clone()), self.head_of(s)));
        match (seed, head) {
            (Some(seed), _) if seed.set == set => return Ok(!self.unloaded.is_empty()),
            (Some(seed), _) => {
                return Err(Error::State(format!(
                    "this replica was begun from the set {}; {set} is another one. The disks of \
                     one set go together",
                    seed.set
                )));
            }
            (None, Some(head)) => {
                return Err(Error::State(format!(
                    "this replica is at the cut {head} already; a full set would take it back"
                )));
            }
            (None, None) => {}
        }
        let lineage: Lineage = wire::codec::decode(&facts.cut.lineage, 64 << 20)
            .map_err(|e| Error::State(format!("the lineage of the set {set}: {e}")))?;
        lineage
            .validate(grain::attach::Facts::MAX_CUTS)
            .map_err(|e| Error::State(format!("the lineage of the set {set}: {e}")))?;
        if lineage.head().map(|c| c.id) != Some(facts.cut.cut) {
            return Err(Error::State(format!("the lineage of the set {set} ends elsewhere")));
        }
        let listed = view.listed();
        let mut unlisted = GrainSet::full(self.volumes.geometry());
        unlisted.subtract(&listed);
        let damaged = self.damaged.add(&self.pool, &unlisted).await?;
        let unreadable = unreadable_of(view).runs().collect();
        let unloaded = self.unloaded.add(&self.pool, &listed).await?;
        let seed = SeedRecord {
            set,
            cut: facts.cut.cut,
            loaded: Vec::new(),
            media: u32::from(media_of(view).1),
            fingerprint: facts.fingerprint,
            loaded_fingerprint: None,
        };
        self.store
            .update(|s| {
                s.lineage = lineage;
                if let Some(replica) = &mut s.replica {
                    replica.damaged = damaged;
                    replica.unloaded = unloaded;
                    replica.unreadable = unreadable;
                    replica.fuzzy_end = facts.fuzzy_end;
                    replica.committed_unix_ms = Some(facts.cut.unix_ms);
                    replica.seed = Some(seed);
                }
            })
            .await?;
        Ok(true)
    }

    fn head_of(&self, s: &crate::state::State) -> Option<grain::CutId> {
        s.lineage.head().map(|c| c.id)
    }

    /// What of `here` is still not loaded is damaged. Gives how many grains that are.
    async fn settle_load(&self, view: &SetView, here: GrainSet) -> Result<u64> {
        let mut lost = here;
        lost.intersect_with(&self.unloaded.set());
        let damaged = self.damaged.add(&self.pool, &lost).await?;
        self.store
            .update(|s| {
                if let Some(replica) = &mut s.replica {
                    replica.damaged = damaged;
                    if let Some(seed) = &mut replica.seed {
                        let mut loaded: Vec<u32> = seed.loaded.clone();
                        loaded.extend(media_of(view).0.into_iter().map(u32::from));
                        loaded.sort_unstable();
                        loaded.dedup();
                        seed.loaded = loaded;
                    }
                }
            })
            .await?;
        // Only now: between the two records the grain is in both, never in none.
        self.unloaded.strike(lost.runs()).await?;
        Ok(lost.len())
    }
}

impl Loading<'_> {
    /// All media at once, each segment by segment.
    async fn run(&self) -> Result<()> {
        let lanes = self.view.present_segments().into_iter().map(|(_, segments)| async move {
            for segment in segments {
                self.segment(segment).await?;
            }
            Ok::<(), Error>(())
        });
        futures_util::future::try_join_all(lanes).await?;
        Ok(())
    }

    async fn segment(&self, number: u64) -> Result<()> {
        let mut wanted = self.view.grains_of(number);
        wanted.intersect_with(&self.wanted.borrow());
        if wanted.is_empty() {
            return Ok(());
        }
        let Some(mut reader) = self.view.read_segment(number) else { return Ok(()) };
        let mut unsynced = GrainSet::new();
        let mut unsynced_bytes = 0;
        while let Some(event) = reader.next().await {
            self.replica.still_loading()?;
            match event {
                SegmentEvent::Run(run) => {
                    unsynced_bytes += self.write(run.data, &mut unsynced).await?;
                }
                SegmentEvent::Damage(damage) => {
                    tracing::warn!(%damage, "damage on a medium");
                    self.damage.borrow_mut().push(damage);
                }
            }
            if unsynced_bytes > STRIKE_BYTES {
                self.strike(std::mem::take(&mut unsynced)).await?;
                unsynced_bytes = 0;
            }
        }
        self.strike(unsynced).await
    }

    /// Writes the grains of a run that are still missing; gives how many bytes.
    async fn write(&self, data: GrainData, unsynced: &mut GrainSet) -> Result<u64> {
        let mut pieces = GrainSet::new();
        pieces.insert_run(data.run);
        pieces.intersect_with(&self.wanted.borrow());
        let geometry = self.replica.volumes.geometry();
        let mut bytes = 0;
        for piece in pieces.runs() {
            let content = match &data.content {
                Content::Zero => Content::Zero,
                Content::Data(all) => {
                    let whole = geometry.byte_range(piece.volume, piece.first, piece.count);
                    let base = data.run.first << geometry.grain.shift();
                    let from = (whole.start - base) as usize;
                    let to = (whole.end - base) as usize;
                    bytes += whole.end - whole.start;
                    Content::Data(all.slice(from..to))
                }
            };
            self.put(GrainData { run: piece, content }).await?;
            unsynced.insert_run(piece);
        }
        Ok(bytes)
    }

    async fn put(&self, data: GrainData) -> Result<()> {
        let run = data.run;
        let volumes = &self.replica.volumes;
        let bytes = match &data.content {
            Content::Data(bytes) => bytes.len() as u64,
            // On a fresh file there is nothing to do: it is a hole already. A hole whose sync failed is none
            // on the disk.
            Content::Zero
                if !self.replica.lost_a_sync() && volumes.hole_at(run).await? == run.count =>
            {
                self.note(run, 0);
                return Ok(());
            }
            Content::Zero => 0,
        };
        volumes.write(&data).await?;
        self.note(run, bytes);
        Ok(())
    }

    fn note(&self, run: Run, bytes: u64) {
        self.wanted.borrow_mut().remove_run(run);
        self.written.set(self.written.get() + run.count);
        self.progress.done_grains.set(self.progress.done_grains.get() + run.count);
        self.progress.data_bytes.set(self.progress.data_bytes.get() + bytes);
    }

    /// Syncs the base and strikes what was written before.
    async fn strike(&self, written: GrainSet) -> Result<()> {
        if written.is_empty() {
            return Ok(());
        }
        self.replica.sync_base(self.failed_syncs).await?;
        self.replica.unloaded.strike(written.runs()).await?;
        let grains = written.len();
        self.replica
            .store
            .update(|s| {
                if let Some(replica) = &mut s.replica {
                    replica.proof.digest_grains += grains;
                }
            })
            .await
    }
}

/// What the source could not read. The directory was checked when it was opened.
fn unreadable_of(view: &SetView) -> GrainSet {
    view.facts().unreadable().unwrap_or_default()
}

/// Numbers of the media that are here, and how many the set has.
fn media_of(view: &SetView) -> (Vec<u16>, u16) {
    let here = view.signed().media().iter().map(|m| m.number).collect();
    (here, view.signed().manifest().media)
}
