//! What an export holds, as a file, as a block device and as a mounted file system: `nbdfuse`, `losetup`
//! and `mount`, undone in the right order when dropped. Needs root, `/dev/fuse` and loop devices.

use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::{Process, Tool, wait_for};

const SOON: Duration = Duration::from_secs(30);

/// An NBD export as a regular file, by `nbdfuse`.
pub struct FuseExport {
    file: PathBuf,
    folder: PathBuf,
    process: Process,
}

impl FuseExport {
    /// Makes the export behind `uri` (`nbd+unix:///alias?socket=/path`) appear as a file in `folder`, which
    /// is made. The program's output goes beside it.
    ///
    /// # Panics
    /// When it does not appear.
    pub fn new(uri: &str, folder: &Path) -> FuseExport {
        let nbdfuse = Tool::require("nbdfuse", "libnbd-bin");
        let made = std::fs::create_dir_all(folder);
        made.unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
        let file = folder.join("volume");
        let mut command = nbdfuse.command();
        command.arg(&file).arg(uri);
        let beside = folder.parent().unwrap_or(folder);
        let mut process = Process::start(command, beside, "nbdfuse");
        let appeared = |process: &mut Process| {
            if let Some(status) = process.try_exit() {
                panic!("nbdfuse: {status}: {}", process.stderr());
            }
            std::fs::metadata(&file).is_ok_and(|meta| meta.len() > 0).then_some(())
        };
        wait_for(&file.display().to_string(), SOON, || appeared(&mut process));
        FuseExport { file, folder: folder.to_owned(), process }
    }

    /// The file.
    pub fn file(&self) -> &Path {
        &self.file
    }
}

impl Drop for FuseExport {
    fn drop(&mut self) {
        // The lazy form: a loop device may let go a little later.
        undo(Tool::find("fusermount3").or(Tool::find("fusermount")), &["-uz"], &self.folder);
        let gone = std::time::Instant::now() + SOON;
        while self.process.try_exit().is_none() && std::time::Instant::now() < gone {
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

/// A file as a block device.
pub struct LoopDevice {
    device: PathBuf,
}

impl LoopDevice {
    /// Attaches `file` to a free loop device; its partitions are not looked at.
    ///
    /// # Panics
    /// When there is none, or no permission.
    pub fn new(file: &Path) -> LoopDevice {
        let losetup = Tool::require("losetup", "mount");
        let text = losetup.text(["--find".as_ref(), "--show".as_ref(), file.as_os_str()]);
        LoopDevice { device: PathBuf::from(text.trim_end()) }
    }

    /// Its path.
    pub fn device(&self) -> &Path {
        &self.device
    }
}

impl Drop for LoopDevice {
    fn drop(&mut self) {
        undo(Tool::find("losetup"), &["--detach"], &self.device);
    }
}

/// A mounted file system.
pub struct Mounted {
    root: PathBuf,
}

impl Mounted {
    /// Mounts `device` at `root`, which is made. `options` go to `mount -o`; empty for none.
    ///
    /// # Panics
    /// With what `mount` says when it fails.
    pub fn new(device: &Path, root: &Path, options: &str) -> Mounted {
        let mount = Tool::require("mount", "mount");
        let made = std::fs::create_dir_all(root);
        made.unwrap_or_else(|e| panic!("{}: {e}", root.display()));
        let mut arguments: Vec<&std::ffi::OsStr> = Vec::new();
        if !options.is_empty() {
            arguments.push("-o".as_ref());
            arguments.push(options.as_ref());
        }
        arguments.extend([device.as_os_str(), root.as_os_str()]);
        mount.run(arguments);
        Mounted { root: root.to_owned() }
    }

    /// Its root.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Unmounts it, so that all is written back.
    ///
    /// # Panics
    /// When it is busy.
    pub fn unmount(self) {
        Tool::require("umount", "mount").run([&self.root]);
        std::mem::forget(self);
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        undo(Tool::find("umount"), &["-l"], &self.root);
    }
}

/// A file system inside an NBD export: all three of the above.
pub struct MountedExport {
    // In this order they are undone.
    mounted: Mounted,
    device: LoopDevice,
    fuse: FuseExport,
}

impl MountedExport {
    /// Mounts what the export behind `uri` holds at `folder/root`, after `make` has had the device to
    /// itself. `options` as for [`Mounted::new`].
    ///
    /// # Panics
    /// When one of the steps fails.
    pub fn new(uri: &str, folder: &Path, options: &str, make: impl FnOnce(&Path)) -> MountedExport {
        let fuse = FuseExport::new(uri, &folder.join("fuse"));
        let device = LoopDevice::new(fuse.file());
        make(device.device());
        let mounted = Mounted::new(device.device(), &folder.join("root"), options);
        MountedExport { mounted, device, fuse }
    }

    /// The root of the file system.
    pub fn root(&self) -> &Path {
        self.mounted.root()
    }

    /// Undoes it, so that all is written back.
    ///
    /// # Panics
    /// When it is busy.
    pub fn unmount(self) {
        self.mounted.unmount();
        drop(self.device);
        drop(self.fuse);
    }
}

/// In a drop there is nobody to tell; what fails here is seen in the next test that needs it.
fn undo(tool: Option<Tool>, arguments: &[&str], what: &Path) {
    if let Some(tool) = tool {
        drop(tool.command().args(arguments).arg(what).output());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mounts(of: &Path) -> usize {
        let table = std::fs::read_to_string("/proc/mounts").unwrap();
        table.lines().filter(|line| line.contains(&of.display().to_string())).count()
    }

    #[test]
    fn a_file_system_inside_an_export_is_mounted_and_undone() {
        let folder = tempfile::tempdir().unwrap();
        let (image, socket) = (folder.path().join("image"), folder.path().join("socket"));
        crate::sparse_image(&image, 32 << 20, 0, 0, 1);
        let mkfs = Tool::require("mke2fs", "e2fsprogs");
        mkfs.run(["-q".as_ref(), "-t".as_ref(), "ext4".as_ref(), image.as_os_str()]);
        let mut command = Tool::require("nbdkit", "nbdkit").command();
        command.args(["--foreground", "--unix"]).arg(&socket).arg("file").arg(&image);
        let mut server = Process::start(command, folder.path(), "nbdkit");
        server.wait_for_socket(&socket, SOON);
        let uri = format!("nbd+unix:///?socket={}", socket.display());
        for round in 0..2 {
            let fuse = FuseExport::new(&uri, &folder.path().join("fuse"));
            let device = LoopDevice::new(fuse.file());
            let mounted = Mounted::new(device.device(), &folder.path().join("root"), "");
            let path = mounted.root().join(format!("file-{round}"));
            std::fs::write(path, vec![round; 100_000]).unwrap();
            assert_eq!(mounts(folder.path()), 2);
            if round == 0 {
                mounted.unmount();
            }
        }
        drop(server);
        assert_eq!(mounts(folder.path()), 0);
        let device = LoopDevice::new(&image);
        let mounted = Mounted::new(device.device(), &folder.path().join("root"), "");
        let kept = std::fs::read(mounted.root().join("file-0")).unwrap();
        assert_eq!(kept, vec![0; 100_000]);
    }
}
