//! (e) A set extracts to the cut that it names, or says that it is fuzzy; what is damaged is named and
//! costs only what it hit: nothing that is handed out is wrong.

use std::cell::RefCell;
use std::path::PathBuf;
use std::rc::Rc;

use disk::simulated::SimMachine;
use grain::{Content, CutId};
use media::{KeySource, Proof, SetView};

use crate::plan::Site;
use crate::process::when_woken;
use crate::world::{MadeSet, World};

/// What came out of a set.
struct Extracted {
    proof: Proof,
    cut: CutId,
    fuzzy: Option<CutId>,
    /// Grains that it says the source could not read.
    unreadable: u64,
}

/// A set was finished at the source.
pub async fn finished(world: &Rc<World>, set: &MadeSet, cut: CutId, fuzzy_end: Option<CutId>) {
    let machine = world.node(Site::Source).machine.copy(1);
    finished_on(world, &machine, &set.media, cut, fuzzy_end).await;
}

/// The same of a set on another machine.
pub async fn finished_on(
    world: &Rc<World>,
    machine: &SimMachine,
    media: &[PathBuf],
    cut: CutId,
    fuzzy_end: Option<CutId>,
) {
    match extract(world, machine, media).await {
        Ok(Extracted { proof, cut: facts_cut, fuzzy, unreadable }) => {
            world.trace.count("checked: a finished set");
            if !proof.damage.is_empty() {
                world.fail("media", format!("a finished set is damaged: {:?}", proof.damage));
            }
            if proof.proven.len() + unreadable != world.geometry.total_grains() {
                world.fail("media", "a finished full set lacks grains");
            }
            if facts_cut != cut || fuzzy != fuzzy_end {
                world.fail("media", format!("it names {facts_cut} {fuzzy:?}, not {cut}"));
            }
        }
        Err(words) => world.fail("media", format!("a finished set does not open: {words}")),
    }
}

/// A set was damaged on its way: it opens with its damage named, or does not open.
pub async fn damaged(world: &Rc<World>, dirs: &[PathBuf]) {
    let machine = world.node(Site::Replica).machine.copy(1);
    match extract(world, &machine, dirs).await {
        Ok(_) => world.trace.count("checked: a damaged set opens"),
        Err(_) => world.trace.count("checked: a damaged set does not open"),
    }
}

/// Extracts what is there; of a set that is not fuzzy, every byte handed out is compared.
async fn extract(
    world: &Rc<World>,
    machine: &SimMachine,
    dirs: &[PathBuf],
) -> Result<Extracted, String> {
    let keys = [KeySource::Site(world.keys(Site::Replica))];
    let source = world.keys(Site::Source).identity();
    let view = SetView::open(&machine.context(), dirs, &keys, Some(&source)).await;
    let view = view.map_err(|e| e.to_string())?;
    let (cut, fuzzy) = (view.facts().cut.cut, view.facts().fuzzy_end);
    let wrong = RefCell::new(None);
    let local = tokio::task::LocalSet::new();
    let walk = view.extract(async |verified| {
        let run = verified.data.run;
        let range = world.geometry.byte_range(run.volume, run.first, run.count);
        let mut expected = vec![0; (range.end - range.start) as usize];
        let known = world.oracle.at_cut(cut, run.volume, range.start, &mut expected);
        let right = match &verified.data.content {
            Content::Zero => expected.iter().all(|byte| *byte == 0),
            Content::Data(bytes) => *bytes == expected,
        };
        if !known || (!right && fuzzy.is_none()) {
            *wrong.borrow_mut() = Some(run);
        }
        Ok::<(), std::convert::Infallible>(())
    });
    let Ok(proof) = local.run_until(when_woken(walk)).await;
    if let Some(run) = wrong.into_inner() {
        world.fail("media", format!("a set hands out {run:?}, which is not what {cut} held"));
    }
    let unreadable = view.facts().unreadable().map_err(|e| e.to_string())?.len();
    Ok(Extracted { proof, cut, fuzzy, unreadable })
}
