//! `verify`: without a key file hashes and signature, with one every record and the root digest.

use std::cell::Cell;

use grain::fingerprint::Fingerprint;
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
                proven = Some(content(&verb, &view, &mut damage).await);
            }
            Err(e) => verb.printer.note(&format!("the records were not checked: {e}")),
        }
    }
    report(&verb, &damage, proven, &here, media)
}

/// What the records prove.
struct Content {
    grains: u64,
    root: RootVerdict,
    fingerprint: Fingerprint,
    /// The fingerprint is the signed one.
    as_signed: bool,
}

async fn content(verb: &Context, view: &SetView, damage: &mut Vec<Damage>) -> Content {
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
    let (root, fingerprint) = (proof.root, proof.fingerprint);
    let (grains, as_signed) = (proof.proven.len(), fingerprint == view.facts().fingerprint);
    for found in proof.damage {
        if !damage.iter().any(|d| d.path == found.path && d.offset == found.offset) {
            damage.push(found);
        }
    }
    Content { grains, root, fingerprint, as_signed }
}

fn report(
    verb: &Context,
    damage: &[Damage],
    proven: Option<Content>,
    here: &[u16],
    media: u16,
) -> Result<(), Problem> {
    let words: Vec<String> = damage.iter().map(ToString::to_string).collect();
    let json = json!({
        "damage": words,
        "media_here": here,
        "media": media,
        "proven_grains": proven.as_ref().map(|p| p.grains),
        "root_digest_proven": proven.as_ref().map(|p| p.root == RootVerdict::Proven),
        "fingerprint": proven.as_ref().map(|p| p.fingerprint),
        "fingerprint_as_signed": proven.as_ref().map(|p| p.as_signed),
    });
    let mut lines = vec![format!("media here: {} of {media}", here.len())];
    match &proven {
        Some(Content { grains, root: RootVerdict::Proven, fingerprint, .. }) => {
            lines.push(format!("every record is whole: {grains} grains, root digest proven"));
            lines.push(format!("fingerprint {fingerprint}"));
        }
        Some(Content { grains, root, .. }) => {
            lines.push(format!("{grains} grains proven, root digest: {root:?}"))
        }
        None => lines.push("files and signature only".to_owned()),
    }
    lines.extend(words.iter().map(|w| format!("damage: {w}")));
    verb.printer.data(&lines.join("\n"), &json);
    // Either is a contradiction that the source signed: whole records that do not add up.
    let differs = proven.is_some_and(|p| {
        p.root == RootVerdict::Differs || (p.root == RootVerdict::Proven && !p.as_signed)
    });
    if damage.is_empty() && !differs {
        return Ok(());
    }
    let what = match damage.len() {
        0 => "the records are whole and do not add up to what the source signed".to_owned(),
        places => format!("{places} places are damaged"),
    };
    Err(Problem::new("damaged", what, Exit::CORRUPT)
        .safe("Everything else on the media can be loaded; what is damaged is pulled later.")
        .todo("Load the set as it is, or have the source dump it again."))
}
