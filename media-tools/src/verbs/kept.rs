//! `kept`: what was put aside before it was overwritten: shows it, checks it, writes it out.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use disk::{File, OpenMode};
use media::{KeptBytes, KeptIndex, KeptPiece};
use serde_json::json;
use site::amount::{counted, human_bytes};
use site::{Exit, Problem};

use super::{Context, problem};

/// Flags of `kept`.
#[derive(clap::Args)]
pub struct Arguments {
    /// The index, `*.json`; the data lies beside it
    index: PathBuf,
    /// A directory; what was kept of each volume goes into ALIAS.img there, at its place
    #[arg(long, value_name = "DIR")]
    to: Option<PathBuf>,
}

/// What came of it.
#[derive(Default)]
struct Found {
    whole: u64,
    bytes: u64,
    damaged: Vec<String>,
    never_read: Vec<String>,
}

fn failed(path: &Path, e: impl std::fmt::Display) -> Problem {
    Problem::new("kept", format!("{}: {e}", path.display()), Exit::OPERATOR)
        .safe("What was kept was only read.")
}

fn place(piece: &KeptPiece) -> String {
    format!("{} bytes at {} of volume {}", piece.bytes, piece.offset, piece.volume)
}

/// The files that pieces are written to, by volume.
struct Images<'a> {
    verb: &'a Context,
    dir: Option<PathBuf>,
    open: BTreeMap<String, (PathBuf, Rc<dyn File>)>,
}

impl Images<'_> {
    async fn write(&mut self, piece: &KeptPiece, bytes: bytes::Bytes) -> Result<(), Problem> {
        let Some(dir) = &self.dir else { return Ok(()) };
        let (path, file) = match self.open.get(&piece.volume) {
            Some(image) => image.clone(),
            None => {
                let path = dir.join(format!("{}.img", piece.volume));
                let opened = self.verb.ctx.storage.open(&path, OpenMode::CreateNew).await;
                let image = (path.clone(), opened.map_err(|e| failed(&path, e))?);
                self.open.insert(piece.volume.clone(), image.clone());
                image
            }
        };
        file.write_at(piece.offset, bytes).await.map_err(|e| failed(&path, e))
    }

    async fn sync(&self) -> Result<Vec<String>, Problem> {
        let mut paths = Vec::new();
        for (path, file) in self.open.values() {
            file.sync_data().await.map_err(|e| failed(path, e))?;
            paths.push(path.display().to_string());
        }
        Ok(paths)
    }
}

/// Reads, checks, and writes out.
pub async fn run(verb: Context, arguments: Arguments) -> Result<(), Problem> {
    let path = std::path::absolute(&arguments.index).map_err(|e| failed(&arguments.index, e))?;
    let index = KeptIndex::read(&verb.ctx, &path).await.map_err(|e| problem(&e))?;
    let dir = arguments.to.as_ref().map(std::path::absolute).transpose();
    let dir = dir.map_err(|e| failed(&path, e))?;
    if let Some(dir) = &dir {
        verb.ctx.storage.create_dir(dir).await.map_err(|e| failed(dir, e))?;
    }
    let mut images = Images { verb: &verb, dir, open: BTreeMap::new() };
    let mut found = Found::default();
    let pieces = index.pieces(&verb.ctx, &path, async |piece, kept| {
        match kept {
            KeptBytes::Whole(bytes) => {
                found.whole += 1;
                found.bytes += piece.bytes;
                images.write(piece, bytes).await.map_err(Failed::Here)?;
            }
            KeptBytes::Damaged(why) => found.damaged.push(format!("{}: {why}", place(piece))),
            KeptBytes::NeverRead => found.never_read.push(place(piece)),
        }
        Ok(())
    });
    match pieces.await {
        Ok(()) => {}
        Err(Failed::Here(e)) => return Err(e),
        Err(Failed::Media(e)) => return Err(problem(&e)),
    }
    let paths = images.sync().await?;
    report(&verb, &index, &found, &paths)
}

/// Of the media, or of this verb.
enum Failed {
    Media(media::MediaError),
    Here(Problem),
}

impl From<media::MediaError> for Failed {
    fn from(e: media::MediaError) -> Failed {
        Failed::Media(e)
    }
}

fn report(
    verb: &Context,
    index: &KeptIndex,
    found: &Found,
    paths: &[String],
) -> Result<(), Problem> {
    let json = json!({
        "why": index.why,
        "cut": index.cut.to_string(),
        "unix_ms": index.unix_ms,
        "pieces": index.pieces.len(),
        "whole": found.whole,
        "bytes": found.bytes,
        "damaged": found.damaged,
        "never_read": found.never_read,
        "files": paths,
    });
    let mut lines = vec![format!(
        "kept before `{}`, from the cut {} on: {} in {}",
        index.why,
        index.cut,
        human_bytes(found.bytes),
        counted(found.whole as usize, "piece"),
    )];
    lines.extend(paths.iter().cloned());
    verb.printer.data(&lines.join("\n"), &json);
    for place in &found.never_read {
        verb.printer.warn(&format!("the disk had not given {place}"));
    }
    if found.damaged.is_empty() {
        return Ok(());
    }
    for words in &found.damaged {
        verb.printer.warn(words);
    }
    let words =
        format!("{} cannot be read as they were kept", counted(found.damaged.len(), "piece"));
    Err(Problem::new("damaged", words, Exit::CORRUPT)
        .safe("What was kept was only read; what was written out is what was kept."))
}
