//! What the pairs stand on: a real xfs in a file behind a loop device.

use std::path::{Path, PathBuf};

use crate::{LoopDevice, Mounted, Tool};

/// A mounted xfs, undone when dropped. A test that panics leaves its file, to be looked at.
pub(super) struct Ground {
    // In this order they are undone.
    mounted: Mounted,
    _device: LoopDevice,
    kept: Option<tempfile::TempDir>,
}

/// Room for a pair with its media, several times; the file is sparse.
const BYTES: u64 = 2 << 30;

impl Ground {
    /// # Panics
    /// Without root, loop devices or `mkfs.xfs`.
    pub(super) fn xfs() -> Ground {
        let kept = tempfile::tempdir().unwrap_or_else(|e| panic!("tempdir: {e}"));
        let image = kept.path().join("xfs.img");
        crate::sparse_image(&image, BYTES, 0, 0, 0);
        let device = LoopDevice::new(&image);
        let make = Tool::require("mkfs.xfs", "xfsprogs");
        make.run(["-q".as_ref(), device.device().as_os_str()]);
        let mounted = Mounted::new(device.device(), &kept.path().join("root"), "");
        Ground { mounted, _device: device, kept: Some(kept) }
    }

    pub(super) fn root(&self) -> PathBuf {
        Path::new(self.mounted.root()).to_owned()
    }
}

impl Drop for Ground {
    fn drop(&mut self) {
        if let Some(kept) = self.kept.take_if(|_| std::thread::panicking()) {
            println!("what it stood on is kept: {}", kept.keep().join("xfs.img").display());
        }
    }
}
