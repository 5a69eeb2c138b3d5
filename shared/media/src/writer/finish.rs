//! Finishing a set: manifest, signature, hash lists, and last the labels.
//!
//! Every segment and part directory is durable before this begins. The directory goes to all media
//! first; a label says `finished` only after the directory beside it is durable.

use grain::GrainSet;

use super::SetWriter;
use super::prepare::write_label;
use crate::directory::{Directory, Manifest, ManifestFile, SetFacts};
use crate::error::MediaError;
use crate::label::{Label, MediumState};
use crate::plan::{FinishInfo, SetSummary};
use crate::{hashes, names, runs};

/// See [`SetWriter::finish`].
pub(super) async fn finish(writer: &SetWriter, info: FinishInfo) -> Result<SetSummary, MediaError> {
    check_complete(writer, &info)?;
    let core = &writer.core;
    let mut segments = core.finished.borrow().clone();
    segments.sort_by_key(|facts| facts.number);
    let labels: Vec<Label> = writer
        .targets
        .iter()
        .map(|target| Label { state: MediumState::Finished, ..target.label.clone() })
        .collect();
    let mut files = Vec::new();
    for (target, label) in writer.targets.iter().zip(&labels) {
        let medium = label.medium;
        let mut add = |name: String, len: u64, hash: [u8; 32]| {
            files.push(ManifestFile { medium, name, len, hash });
        };
        let whole = |bytes: &[u8]| (bytes.len() as u64, *blake3::hash(bytes).as_bytes());
        let (len, hash) = whole(&label.encode());
        add(names::LABEL.into(), len, hash);
        if let Some(envelope) = &writer.envelope {
            let (len, hash) = whole(envelope);
            add(names::ENVELOPE.into(), len, hash);
        }
        let (len, hash) = target.part.lock().await.length_and_hash();
        add(names::part(medium), len, hash);
        for facts in segments.iter().filter(|facts| facts.medium == medium) {
            add(names::segment(facts.number), facts.file_len, facts.file_hash);
        }
    }
    let facts = SetFacts {
        fuzzy_end: info.fuzzy_end,
        fingerprint: core.records.fingerprint.so_far(&core.fingerprint.get()),
        root_digest: core.sum.borrow().finish(&core.geometry),
        grains: core.durable.borrow().len(),
        data_grains: segments.iter().map(|facts| facts.data_grains).sum(),
        unreadable: runs::encode(&info.unreadable),
        ..SetFacts::new(core.geometry.clone(), writer.plan.cut.clone(), writer.plan.basis)
    };
    let first = writer.targets.first().map(|target| &target.label);
    let manifest = Manifest {
        set: core.set,
        relationship: writer.plan.relationship,
        source: core.keys.identity(),
        media: writer.targets.len() as u16,
        generation: first.map_or(0, |label| label.generation),
        created_unix_ms: first.map_or(0, |label| label.created_unix_ms),
        signed_unix_ms: core.ctx.unix_ms(),
        files,
    };
    let directory = Directory { manifest, facts, segments };
    write_directory(writer, &directory, &labels).await?;
    Ok(summary(&directory))
}

/// A full copy holds every grain, or says which it could not read.
fn check_complete(writer: &SetWriter, info: &FinishInfo) -> Result<(), MediaError> {
    let core = &writer.core;
    let durable = core.durable.borrow();
    if *durable != *core.accepted.borrow() {
        return Err(MediaError::Bug("a grain was taken and is not durable".into()));
    }
    if writer.plan.basis.is_some() {
        return Ok(());
    }
    let mut missing = GrainSet::full(&core.geometry);
    missing.subtract(&durable);
    missing.subtract(&info.unreadable);
    if let Some(run) = missing.runs().next() {
        let (grains, total) = (missing.len(), core.geometry.total_grains());
        let why = format!("a full copy lacks {grains} of {total} grains, the first in {run:?}");
        return Err(MediaError::Bug(why));
    }
    Ok(())
}

async fn write_directory(
    writer: &SetWriter,
    directory: &Directory,
    labels: &[Label],
) -> Result<(), MediaError> {
    let core = &writer.core;
    let encoded = directory.encode(core.key.as_ref(), &core.ctx.random(), &core.keys);
    let encoded: bytes::Bytes = encoded.map_err(MediaError::Bug)?.into();
    for (target, label) in writer.targets.iter().zip(labels) {
        let path = target.dir.join(names::HASHES);
        let of_medium = directory.manifest.files.iter().filter(|f| f.medium == label.medium);
        let mut list: Vec<_> = of_medium.map(|file| (file.name.clone(), file.hash)).collect();
        list.push((names::DIRECTORY.into(), *blake3::hash(&encoded).as_bytes()));
        let written = core.ctx.storage.replace(&path, hashes::encode(&list).into()).await;
        written.map_err(MediaError::io(&path, "writing the hash list"))?;
    }
    for target in &writer.targets {
        let path = target.dir.join(names::DIRECTORY);
        let written = core.ctx.storage.replace(&path, encoded.clone()).await;
        written.map_err(MediaError::io(&path, "writing the directory"))?;
    }
    for (target, label) in writer.targets.iter().zip(labels) {
        write_label(&core.ctx, &target.dir, label).await?;
    }
    Ok(())
}

fn summary(directory: &Directory) -> SetSummary {
    let media = directory.manifest.media;
    let bytes_of = |medium| {
        let files = directory.manifest.files.iter().filter(|file| file.medium == medium);
        files.map(|file| file.len).sum()
    };
    SetSummary {
        set: directory.manifest.set,
        root_digest: directory.facts.root_digest,
        fingerprint: directory.facts.fingerprint,
        grains: directory.facts.grains,
        data_grains: directory.facts.data_grains,
        segments: directory.segments.len() as u64,
        medium_bytes: (1..=media).map(bytes_of).collect(),
    }
}
