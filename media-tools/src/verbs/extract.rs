//! `extract`: writes the raw volumes out, as they were at the cut.

use std::cell::Cell;
use std::path::PathBuf;
use std::rc::Rc;

use disk::{File, OpenMode};
use grain::{Content, GrainData};
use media::{RootVerdict, SetView};
use serde_json::json;
use site::amount::human_bytes;
use site::{Exit, Problem};

use super::open::SetArguments;
use super::{Context, problem};

/// Flags of `extract`.
#[derive(clap::Args)]
pub struct Arguments {
    #[command(flatten)]
    set: SetArguments,
    /// A directory; each volume becomes ALIAS.img there
    #[arg(long, value_name = "DIR")]
    to: PathBuf,
    /// Write what is whole even if some grains are damaged or not here (they read as zeros)
    #[arg(long)]
    partial: bool,
}

fn failed(path: &std::path::Path, e: impl std::fmt::Display) -> Problem {
    Problem::new("extract", format!("{}: {e}", path.display()), Exit::OPERATOR)
        .safe("The media were only read.")
}

/// Extracts.
pub async fn run(verb: Context, arguments: Arguments) -> Result<(), Problem> {
    let dirs = arguments.set.dirs()?;
    let keys = arguments.set.keys(&verb).await?;
    let view = SetView::open(&verb.ctx, &dirs, &keys, None).await.map_err(|e| problem(&e))?;
    if !view.signed().is_complete() && !arguments.partial {
        return Err(Problem::new(
            "incomplete",
            "not all media of the set are here",
            Exit::OPERATOR,
        )
        .safe("Nothing was written.")
        .todo("Give all directories, or --partial to write what is here."));
    }
    let to = std::path::absolute(&arguments.to).map_err(|e| failed(&arguments.to, e))?;
    verb.ctx.storage.create_dir(&to).await.map_err(|e| failed(&to, e))?;
    let geometry = view.facts().geometry.clone();
    let mut files: Vec<(PathBuf, Rc<dyn File>)> = Vec::new();
    for volume in &geometry.volumes {
        let path = to.join(format!("{}.img", volume.alias));
        let opened = verb.ctx.storage.open(&path, OpenMode::CreateNew).await;
        let file = opened.map_err(|e| failed(&path, e))?;
        file.set_len(volume.bytes).await.map_err(|e| failed(&path, e))?;
        files.push((path, file));
    }
    let total = view.facts().data_grains.saturating_mul(geometry.grain.bytes());
    let progress = verb.printer.progress("extract", Some(total));
    let done = Rc::new(Cell::new(0_u64));
    let proof = view
        .extract(async |run: media::VerifiedRun| {
            let GrainData { run, content } = run.data;
            // The file is new: what is not written reads as zeros.
            let Content::Data(bytes) = content else { return Ok(()) };
            let range = geometry.byte_range(run.volume, run.first, run.count);
            let Some((path, file)) = files.get(run.volume.index()) else { return Ok(()) };
            done.set(done.get() + bytes.len() as u64);
            progress.update(done.get(), Some(total), &[]);
            file.write_at(range.start, bytes).await.map_err(|e| failed(path, e))
        })
        .await?;
    for (path, file) in &files {
        file.sync_data().await.map_err(|e| failed(path, e))?;
    }
    progress.finish("done");
    let paths: Vec<String> = files.iter().map(|(p, _)| p.display().to_string()).collect();
    let json = json!({
        "files": paths,
        "bytes": done.get(),
        "proven_grains": proof.proven.len(),
        "fingerprint": proof.fingerprint,
        "complete": proof.root == RootVerdict::Proven,
    });
    verb.printer.data(&paths.join("\n"), &json);
    verb.printer.note(&format!(
        "{} written, fingerprint {}",
        human_bytes(done.get()),
        proof.fingerprint
    ));
    for damage in &proof.damage {
        verb.printer.warn(&damage.to_string());
    }
    if let Some(cut) = view.facts().fuzzy_end {
        verb.printer.warn(&format!(
            "the set is fuzzy: these images are no point in time; only a catch-up past the cut {cut} \
             makes them one"
        ));
    }
    if proof.is_whole(view.facts()) || arguments.partial {
        return Ok(());
    }
    Err(Problem::new("damaged", "not all grains could be read", Exit::CORRUPT)
        .safe("What was written matches the source's digests; the rest reads as zeros.")
        .todo("Load the set at a replica, which pulls what is damaged, or dump again."))
}
