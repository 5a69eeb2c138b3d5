//! Snapshots and power cuts by choice: which steps are not durable, and what is there when exactly these
//! were kept. For tests that go through all crash points.

use std::collections::BTreeSet;
use std::path::Path;

use super::disk_state::DiskState;
use super::image::Image;
use super::machine::Snapshot;
use super::names::Node;

/// How much of a step that was not synced a power cut leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keep {
    /// Nothing.
    Lost,
    /// All of it.
    Whole,
    /// Of a write some sectors, drawn from this; of anything else all.
    Torn(u64),
}

impl Snapshot {
    /// The numbers of the steps that are not durable, oldest first.
    pub fn unsynced(&self) -> BTreeSet<u64> {
        let files = self.disk.inodes.values().flat_map(|file| file.unsynced());
        files.chain(self.disk.names.unsynced()).collect()
    }

    /// The disk after a power cut that kept this much of each step. What a step needs of earlier ones is
    /// kept with it. The boot is another one.
    pub fn power_cut(&self, keep: &dyn Fn(u64) -> Keep) -> Snapshot {
        let mut cut = Snapshot { disk: self.disk.clone(), boot: self.boot + 1 };
        let disk: &mut DiskState = &mut cut.disk;
        disk.open.clear();
        disk.names.power_cut(|seq| keep(seq) != Keep::Lost);
        disk.forget_nameless();
        disk.inodes.values_mut().for_each(|file| file.power_cut_keeping(keep));
        cut
    }

    /// A digest of everything that a process which starts now can read: names, lengths, content, boot.
    pub fn digest(&self) -> u64 {
        let mut hash = mix(0xcbf2_9ce4_8422_2325, self.boot);
        for (path, node) in self.disk.names.all_below(Path::new("/")) {
            for piece in path.as_os_str().as_encoded_bytes().chunks(8) {
                hash = mix(hash, word(piece));
            }
            let file = match node {
                Node::File(id) => self.disk.inodes.get(&id),
                Node::Dir => None,
            };
            if let Some(file) = file {
                hash = content(hash, &file.live);
            }
        }
        hash
    }
}

fn content(hash: u64, image: &Image) -> u64 {
    let mut hash = mix(hash, image.len);
    for (number, page) in image.pages() {
        hash = mix(hash, number);
        for piece in page.chunks_exact(8) {
            hash = mix(hash, word(piece));
        }
    }
    hash
}

fn word(bytes: &[u8]) -> u64 {
    bytes.iter().rev().fold(0, |word, byte| word << 8 | u64::from(*byte))
}

/// One step of a hash over 64-bit words: enough to tell images of one test apart.
fn mix(hash: u64, word: u64) -> u64 {
    let mixed = (hash ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    mixed ^ (mixed >> 29)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use bytes::Bytes;

    use super::super::SimMachine;
    use super::*;
    use crate::OpenMode;

    #[tokio::test(flavor = "current_thread", start_paused = true)]
    async fn exactly_what_is_chosen_is_kept() {
        let machine = SimMachine::new(1);
        let storage = machine.context().storage;
        storage.create_dir(Path::new("/d")).await.unwrap();
        let path = Path::new("/d/f");
        let file = storage.open(path, OpenMode::CreateNew).await.unwrap();
        storage.sync_dir(Path::new("/d")).await.unwrap();
        file.set_len(8192).await.unwrap();
        file.sync_data().await.unwrap();
        assert!(machine.snapshot().unsynced().is_empty());
        file.write_at(0, Bytes::from_static(&[1; 512])).await.unwrap();
        file.write_at(4096, Bytes::from_static(&[2; 512])).await.unwrap();
        storage.rename(path, Path::new("/d/g")).await.unwrap();
        let left = machine.snapshot();
        let steps: Vec<_> = left.unsynced().into_iter().collect();
        assert_eq!(steps.len(), 3);
        for (kept, only) in steps.into_iter().enumerate() {
            let keep = |step| if step == only { Keep::Whole } else { Keep::Lost };
            let cut = left.power_cut(&keep);
            let other = SimMachine::new(2);
            other.restore(&cut);
            let name = if kept == 2 { "/d/g" } else { "/d/f" };
            let bytes = other.content(name).unwrap().to_vec();
            assert_eq!(bytes.len(), 8192);
            assert_eq!((bytes[0], bytes[4096]), (u8::from(kept == 0), u8::from(kept == 1) * 2));
            assert_ne!(cut.digest(), left.digest());
        }
        let all = left.power_cut(&|_| Keep::Whole);
        assert!(all.unsynced().is_empty());
        assert_ne!(all.digest(), left.digest(), "another boot");
    }
}
