//! Map files (layers, regions, missing grains). The first byte chooses: raw bytes, or edits of a good file
//! with or without checksums that fit again.
//!
//! What is read lies inside the geometry. A file that was damaged reads with at least the bits that it held,
//! unless checksums were made to fit; one that opens and is flushed reads again as what was told.

use std::cell::OnceCell;
use std::path::Path;

use disk::simulated::SimMachine;
use grain::{GrainSet, LayerId, RelationshipId, Run, VolumeId};
use replication::map::{Layout, MapFile, MapKind, MapSpec};

use crate::edits::{self, Edit};
use crate::input::Input;
use crate::{Allocation, Target, stage};

/// This target.
pub const TARGET: Target = Target {
    name: "map",
    run,
    seeds,
    // The file's size follows from the geometry, and another size is refused.
    allocation: Allocation { constant_bytes: 4 << 20, per_byte: 64 },
};

const PATH: &str = "/map";
const SECTOR: usize = 512;
const CRC_AT: usize = 12;

thread_local! {
    static GOOD: OnceCell<Vec<u8>> = const { OnceCell::new() };
}

fn spec() -> MapSpec {
    let layout = Layout::of_grains(&stage::geometry());
    MapSpec { kind: MapKind::Layer, relationship: RelationshipId::from_bytes([2; 16]), layout }
}

fn content() -> GrainSet {
    let mut set = GrainSet::new();
    set.insert_run(Run { volume: VolumeId(0), first: 3, count: 40 });
    set.insert_run(Run { volume: VolumeId(1), first: 1, count: 2 });
    set
}

fn good() -> Vec<u8> {
    let make = async {
        let machine = SimMachine::new(1);
        let (ctx, path) = (machine.context(), Path::new(PATH));
        let map = MapFile::create(&ctx, path, spec(), LayerId::from_bytes([7; 16])).await;
        let map = map.expect("a map");
        for run in content().runs() {
            map.insert(run);
        }
        map.flush().await.expect("a flush");
        machine.content(PATH).expect("a file").to_vec()
    };
    GOOD.with(|cell| cell.get_or_init(|| stage::run(make)).clone())
}

fn fix_checksums(file: &mut [u8]) {
    for sector in file.chunks_exact_mut(SECTOR) {
        let crc = crc32c::crc32c(&sector[..CRC_AT]);
        let crc = crc32c::crc32c_append(crc, &sector[CRC_AT + 4..]);
        sector[CRC_AT..CRC_AT + 4].copy_from_slice(&crc.to_le_bytes());
    }
}

fn run(data: &[u8]) {
    let mut input = Input::new(data);
    let mode = input.u8() % 3;
    let file = match mode {
        0 => input.rest().to_vec(),
        _ => {
            let mut file = good();
            edits::apply(&mut input, &mut file);
            if mode == 2 {
                fix_checksums(&mut file);
            }
            file
        }
    };
    stage::run(read(file, mode));
}

async fn read(file: Vec<u8>, mode: u8) {
    let machine = SimMachine::new(1);
    machine.plug_in(PATH, &file);
    let (ctx, path) = (machine.context(), Path::new(PATH));
    drop(MapFile::peek(&ctx, path).await);
    let Ok(found) = MapFile::read(&ctx, path, &spec()).await else { return };
    assert!(found.set.fits(&stage::geometry()), "bits outside the volumes");
    if mode == 1 {
        assert!(content().is_subset(&found.set), "damage took bits away");
    }
    let Ok((map, told)) = MapFile::open(&ctx, path, spec()).await else { return };
    assert_eq!(told.set, found.set, "open and read differ");
    map.flush().await.expect("a flush");
    let again = MapFile::read(&ctx, path, &spec()).await.expect("a healed map");
    assert_eq!((again.set, again.damaged_sectors), (told.set, 0));
}

fn seeds() -> Vec<(String, Vec<u8>)> {
    let edit = |name: &str, mode: u8, edits: &[Edit]| {
        let edits = edits.iter().flat_map(|edit| edit.encode()).collect();
        (name.to_owned(), [vec![mode], edits].concat())
    };
    let head = good()[..6000].to_vec();
    vec![
        ("raw".into(), [vec![0], head].concat()),
        edit("whole", 1, &[]),
        edit("flip-bits", 1, &[Edit::Flip { at: 4096 + 20, mask: 8 }]),
        edit("flip-header", 1, &[Edit::Flip { at: 20, mask: 8 }]),
        edit("fits-bits", 2, &[Edit::Put { at: 4096 + 16, value: u64::MAX }]),
        edit("fits-tag", 2, &[Edit::Put { at: 4096, value: 5 }]),
        edit("fits-kind", 2, &[Edit::Flip { at: 56, mask: 3 }]),
        edit("fits-beyond", 2, &[Edit::Put { at: 4096 + 100, value: u64::MAX }]),
        edit("swapped", 1, &[Edit::Copy { at: 4096, from: 8192, len: 255 }]),
        edit("short", 1, &[Edit::Truncate { at: 5000 }]),
    ]
}
