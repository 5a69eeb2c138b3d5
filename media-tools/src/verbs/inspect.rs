//! `inspect`: what a set holds.

use media::{SegmentPlace, SetView, SignedSet};
use serde_json::json;
use site::Problem;
use site::amount::human_bytes;
use site::printer::Table;

use super::open::SetArguments;
use super::{Context, problem};

/// Flags of `inspect`.
#[derive(clap::Args)]
pub struct Arguments {
    #[command(flatten)]
    set: SetArguments,
}

/// Inspects.
pub async fn run(verb: Context, arguments: Arguments) -> Result<(), Problem> {
    let dirs = arguments.set.dirs()?;
    let signed = SignedSet::open(&verb.ctx, &dirs, None).await.map_err(|e| problem(&e))?;
    let manifest = signed.manifest().clone();
    let sealed = signed.sealed();
    let mut table = Table::pairs();
    let mut row = |name: &str, value: String| table.row([name.to_owned(), value]);
    row("set", manifest.set.to_string());
    row("relationship", manifest.relationship.to_string());
    row("signed by", format!("{} ({})", manifest.source, manifest.source.fingerprint()));
    row("media", format!("{} here of {}", signed.media().len(), manifest.media));
    let bytes: u64 = manifest.files.iter().map(|f| f.len).sum();
    row("files", format!("{}, {}", manifest.files.len(), human_bytes(bytes)));
    row("encrypted", if sealed { "yes" } else { "no" }.to_owned());
    let mut json = json!({
        "set": manifest.set, "relationship": manifest.relationship,
        "source": manifest.source.to_string(), "media": manifest.media,
        "media_here": signed.media().len(), "file_bytes": bytes, "sealed": sealed,
    });
    let keys = arguments.set.keys(&verb).await?;
    match SetView::unlock(signed, &keys).await {
        Ok(view) => {
            let facts = view.facts();
            row("cut", format!("{} ({} ms since 1970)", facts.cut.cut, facts.cut.unix_ms));
            for volume in &facts.geometry.volumes {
                row("volume", format!("{} {}", volume.alias, human_bytes(volume.bytes)));
            }
            row("grain", human_bytes(facts.geometry.grain.bytes()));
            row("grains", format!("{}, {} of them not zero", facts.grains, facts.data_grains));
            let unreadable = facts.unreadable().unwrap_or_default();
            for run in unreadable.runs() {
                let range = facts.geometry.byte_range(run.volume, run.first, run.count);
                let alias =
                    facts.geometry.volumes.get(run.volume.index()).map_or("?", |v| &v.alias);
                let place = format!("bytes {}..{} of volume {alias}", range.start, range.end);
                row("unreadable at the source", place);
            }
            row("fingerprint", facts.fingerprint.to_string());
            match facts.fuzzy_end {
                Some(cut) => row("fuzzy", format!("consistent only from the cut {cut} on")),
                None => row("point in time", "exactly the cut".to_owned()),
            }
            let segments = view.segments().await;
            let gone = |s: &&media::SegmentStatus| !matches!(s.place, SegmentPlace::Present);
            let absent = segments.iter().filter(gone).count();
            row("segments", format!("{}, {absent} of them not readable here", segments.len()));
            json["cut"] = json!(facts.cut.cut);
            json["grains"] = json!(facts.grains);
            json["data_grains"] = json!(facts.data_grains);
            json["fingerprint"] = json!(facts.fingerprint);
            json["unreadable_grains"] = json!(unreadable.len());
            json["fuzzy"] = json!(facts.fuzzy_end.is_some());
            json["segments"] = json!(segments.len());
        }
        Err(e) => row("content", format!("not shown: {e}")),
    }
    verb.printer.table(&table, &json);
    Ok(())
}
