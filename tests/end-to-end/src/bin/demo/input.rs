//! What the demo copies: a real ext4 file system filled from files of this machine where `mke2fs` is
//! there, a generated tree of data otherwise, or a copy of the user's image.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Bytes of the volume that is made.
const VOLUME_BYTES: u64 = 1 << 30;
/// Bytes of files put into it, about.
const FILL_BYTES: u64 = 200 << 20;

/// Makes the volume; says what it is.
pub fn make(dir: &Path, volume: &Path, input: Option<&Path>) -> Result<String, String> {
    if let Some(image) = input {
        let copied = Command::new("cp")
            .arg("--sparse=always")
            .arg(image)
            .arg(volume)
            .status()
            .map_err(|e| format!("cp: {e}"))?;
        if !copied.success() {
            return Err(format!("{} could not be copied", image.display()));
        }
        return Ok(format!("a copy of {}", image.display()));
    }
    end_to_end::sparse_image(volume, VOLUME_BYTES, 0, 0, 1);
    let Some(tool) = mke2fs() else {
        end_to_end::sparse_image(volume, VOLUME_BYTES, 400, 1 << 20, 7);
        return Ok("1 GiB of generated data (there is no mke2fs here)".to_owned());
    };
    let tree = dir.join("tree");
    let files = gather(&tree)?;
    let made = Command::new(tool)
        .args(["-q", "-F", "-t", "ext4", "-d"])
        .arg(&tree)
        .arg(volume)
        .output()
        .map_err(|e| format!("mke2fs: {e}"))?;
    fs::remove_dir_all(&tree).map_err(|e| e.to_string())?;
    if !made.status.success() {
        return Err(format!("mke2fs: {}", String::from_utf8_lossy(&made.stderr)));
    }
    Ok(format!("an ext4 file system of 1 GiB with {files} files of this machine"))
}

fn mke2fs() -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::env::split_paths(&path).chain(["/sbin".into(), "/usr/sbin".into()]);
    folders.map(|folder| folder.join("mke2fs")).find(|tool| tool.is_file())
}

/// Copies files of the machine, or makes some, until there is enough.
fn gather(tree: &Path) -> Result<u64, String> {
    fs::create_dir_all(tree).map_err(|e| e.to_string())?;
    let mut folders: Vec<PathBuf> =
        ["/usr/lib", "/usr/share", "/usr/bin"].iter().map(PathBuf::from).collect();
    let (mut bytes, mut files) = (0, 0);
    while let Some(folder) = folders.pop() {
        let Ok(entries) = fs::read_dir(&folder) else { continue };
        for entry in entries.flatten() {
            let Ok(kind) = entry.file_type() else { continue };
            if kind.is_dir() {
                folders.push(entry.path());
            } else if kind.is_file() && bytes < FILL_BYTES {
                let target = tree.join(format!("{files:06}"));
                // Files that cannot be read are not ours to show.
                if let Ok(copied) = fs::copy(entry.path(), target) {
                    bytes += copied;
                    files += 1;
                }
            }
        }
        if bytes >= FILL_BYTES {
            break;
        }
    }
    if files == 0 {
        end_to_end::random_image(&tree.join("data"), FILL_BYTES, 3);
        files = 1;
    }
    Ok(files)
}
