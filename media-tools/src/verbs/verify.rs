//! `verify`: without a key file hashes and signature, with one every record and the root digest.

use std::cell::Cell;

use media::{Damage, RootVerdict, SetView, SignedSet};
use serde_json::json;
use site::{Exit, Problem};
use wire::Identity;

use super::open::SetArguments;
use super::{Context, problem};

/// Flags of `verify`.
#[derive(clap::Args)]
pub struct Arguments {
    #[command(flatten)]
    set: SetArguments,
    /// Check files and signature only, even if a key is at hand
    #[arg(long)]
    files_only: bool,
    /// The source that must have signed the set
    #[arg(long, value_name = "IDENTITY")]
    source: Option<Identity>,
}

/// Verifies.
pub async fn run(verb: Context, arguments: Arguments) -> Result<(), Problem> {
    let dirs = arguments.set.dirs()?;
    let expected = arguments.source.as_ref();
    let signed = SignedSet::open(&verb.ctx, &dirs, expected).await.map_err(|e| problem(&e))?;
    let here = signed.media().iter().map(|m| m.number).collect::<Vec<_>>();
    let media = signed.manifest().media;
    let total: u64 =
        signed.manifest().files.iter().filter(|f| here.contains(&f.medium)).map(|f| f.len).sum();
    let progress = verb.printer.progress("verify files", Some(total));
    let done = Cell::new(0);
    let mut damage = signed
        .check_files(&|bytes| {
            done.set(done.get() + bytes);
            progress.update(done.get(), Some(total), &[]);
        })
        .await;
    progress.finish("done");
    let keys = arguments.set.keys(&verb).await?;
    let mut proven = None;
    if !arguments.files_only {
        match SetView::unlock(signed, &keys).await {
            Ok(view) => {
                let (grains, root) = content(&verb, &view, &mut damage).await;
                proven = Some((grains, root));
            }
            Err(e) => verb.printer.note(&format!("the records were not checked: {e}")),
        }
    }
    report(&verb, &damage, proven, &here, media)
}

async fn content(verb: &Context, view: &SetView, damage: &mut Vec<Damage>) -> (u64, RootVerdict) {
    let grain = view.facts().geometry.grain.bytes();
    let total = view.facts().data_grains.saturating_mul(grain);
    let progress = verb.printer.progress("verify records", Some(total));
    let done = Cell::new(0);
    let proof = view
        .verify(&|bytes| {
            done.set(done.get() + bytes);
            progress.update(done.get(), Some(total), &[]);
        })
        .await;
    progress.finish("done");
    for found in proof.damage {
        if !damage.iter().any(|d| d.path == found.path && d.offset == found.offset) {
            damage.push(found);
        }
    }
    (proof.proven.len(), proof.root)
}

fn report(
    verb: &Context,
    damage: &[Damage],
    proven: Option<(u64, RootVerdict)>,
    here: &[u16],
    media: u16,
) -> Result<(), Problem> {
    let words: Vec<String> = damage.iter().map(ToString::to_string).collect();
    let json = json!({
        "damage": words,
        "media_here": here,
        "media": media,
        "proven_grains": proven.map(|p| p.0),
        "root_digest_proven": proven.map(|p| p.1 == RootVerdict::Proven),
    });
    let mut lines = vec![format!("media here: {} of {media}", here.len())];
    match proven {
        Some((grains, RootVerdict::Proven)) => {
            lines.push(format!("every record is whole: {grains} grains, root digest proven"));
        }
        Some((grains, root)) => {
            lines.push(format!("{grains} grains proven, root digest: {root:?}"))
        }
        None => lines.push("files and signature only".to_owned()),
    }
    lines.extend(words.iter().map(|w| format!("damage: {w}")));
    verb.printer.data(&lines.join("\n"), &json);
    let differs = matches!(proven, Some((_, RootVerdict::Differs)));
    if damage.is_empty() && !differs {
        return Ok(());
    }
    let what = format!("{} places are damaged", damage.len());
    Err(Problem::new("damaged", what, Exit::CORRUPT)
        .safe("Everything else on the media can be loaded; what is damaged is pulled later.")
        .todo("Load the set as it is, or have the source dump it again."))
}
