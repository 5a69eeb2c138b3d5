//! The corpus on disk: `tests/fuzz/corpus/TARGET/NAME`, and the findings beside it.

use std::io;
use std::path::{Path, PathBuf};

use crate::Target;

/// The folder of a target's corpus in the tree.
pub fn folder(target: &Target) -> PathBuf {
    top().join("corpus").join(target.name)
}

/// Where findings go; git ignores it.
pub fn findings() -> PathBuf {
    top().join("findings")
}

fn top() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The inputs of a target in the order of their names.
pub fn inputs(target: &Target) -> io::Result<Vec<(String, Vec<u8>)>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder(target))? {
        let entry = entry?;
        found
            .push((entry.file_name().to_string_lossy().into_owned(), std::fs::read(entry.path())?));
    }
    found.sort();
    Ok(found)
}

/// Writes the seeds of a target. Other files of its folder, such as findings that were pinned, stay.
pub fn write_seeds(target: &Target) -> io::Result<usize> {
    let folder = folder(target);
    std::fs::create_dir_all(&folder)?;
    let seeds = (target.seeds)();
    for (name, bytes) in &seeds {
        std::fs::write(folder.join(name), bytes)?;
    }
    Ok(seeds.len())
}
