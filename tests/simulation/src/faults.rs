//! What may fail, and where.
//!
//! Only plans that can be survived are made: the promises hold through any combination of these, and a
//! checker that cries out has found a bug of the product or of the simulator.
//!
//! | what | where | how | bound |
//! |---|---|---|---|
//! | process killed | either site | at any operation of its disk, or at any instant | - |
//! | power cut | either site | the same; what was not synced is kept, lost, torn at 512 bytes, reordered | - |
//! | process hangs | either site | not scheduled for up to 30 s | - |
//! | EIO | any operation on any file of either site | a write may be done, undone or torn | - |
//! | EIO of a sync | any file | what it should have synced never becomes durable, a crash may take it back | the operator of a suspect source says that its content is right |
//! | ENOSPC | writes, allocations, new files, renames | nothing is done | - |
//! | slow | any operation | up to 1 s | - |
//! | full disk | either site | no more room for a while | - |
//! | bit at rest | map files, journal, media that have arrived | one bit on disk and in the page cache | not while a machine is rolled back; never in a base volume: nothing could notice |
//! | bit at rest | `state.json` | one bit while the process is down; the start must refuse; the operator puts it right | one copy only |
//! | image restored | either site, whole machine | power-up from an image that was taken while it ran | what the application wrote since is lost by definition |
//! | wall clock | either site | jumps by up to 10 000 s | - |
//! | media | on their way | late, in parts, damaged, swapped, twice, stale, never | - |
//! | link | between the sites | delay, rate, stall, break inside a frame, half open, corruption, an older session still alive | - |

use std::time::Duration;

use disk::simulated::{Fault, Op, OpKind, SplitMix64};

use crate::plan::Site;

/// What a file is, by its path.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum FileClass {
    /// A base volume.
    Volume,
    /// `state.json` and what takes its place.
    State,
    /// A map file: layers, regions, missing grains.
    Map,
    /// The journal.
    Journal,
    /// What a replica was before.
    History,
    /// Preserved grains.
    Side,
    /// A medium.
    Media,
    /// A directory, or else.
    Other,
}

impl FileClass {
    /// The class of a path.
    pub fn of(path: &std::path::Path) -> FileClass {
        let Some(text) = path.to_str() else { return FileClass::Other };
        match text {
            _ if text.starts_with("/volumes/") => FileClass::Volume,
            _ if text.starts_with("/media/") || text.starts_with("/in/") => FileClass::Media,
            _ if text.contains("state.json") => FileClass::State,
            _ if text.ends_with(".ghm") => FileClass::Map,
            _ if text.contains("/journal/") => FileClass::Journal,
            _ if text.contains("/history/") => FileClass::History,
            _ if text.ends_with(".side") => FileClass::Side,
            _ => FileClass::Other,
        }
    }
}

/// How a disk fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ill {
    /// EIO on reads and writes.
    Io,
    /// EIO on syncs.
    SyncIo,
    /// ENOSPC.
    NoSpace,
    /// Slow.
    Slow(Duration),
}

/// A disk that fails now and then, for a while.
#[derive(Clone, Copy, Debug)]
pub struct DiskTrouble {
    /// Whose.
    pub site: Site,
    /// How.
    pub ill: Ill,
    /// On which files; none for all.
    pub class: Option<FileClass>,
    /// Of 1000 operations that it may befall.
    pub odds: u64,
    /// How often at most.
    pub times: u64,
}

impl DiskTrouble {
    /// Draws one.
    pub fn draw(random: &mut SplitMix64, site: impl Fn(&mut SplitMix64) -> Site) -> DiskTrouble {
        use FileClass::{Journal, Map, Media, Side, State, Volume};
        let classes =
            [None, Some(Volume), Some(State), Some(Map), Some(Journal), Some(Side), Some(Media)];
        DiskTrouble {
            site: site(random),
            ill: match random.below(4) {
                0 => Ill::Io,
                1 => Ill::SyncIo,
                2 => Ill::NoSpace,
                _ => Ill::Slow(Duration::from_micros(random.below(1_000_000))),
            },
            class: classes[random.below(7) as usize],
            odds: [1000, 200, 30][random.below(3) as usize],
            times: 1 + random.below(4),
        }
    }

    /// Whether it may befall this operation.
    pub fn befalls(&self, op: &Op) -> bool {
        use OpKind::{
            Allocate, CreateDir, Exists, Extents, FreeSpace, List, Open, Read, Remove, RemoveDir,
            Rename, SetLen, Sync, SyncDir, Write, WriteDurable, Zero,
        };
        let kind = match self.ill {
            Ill::Io => matches!(op.kind, Read | Write | WriteDurable | Zero | Open | Rename | List),
            Ill::SyncIo => matches!(op.kind, Sync | SyncDir | WriteDurable),
            Ill::NoSpace => {
                matches!(op.kind, Write | WriteDurable | Allocate | CreateDir | Rename)
            }
            Ill::Slow(_) => !matches!(op.kind, OpKind::ReadNow | OpKind::WriteNow),
        };
        // These never fail on a file system that is there at all.
        let spared = matches!(op.kind, Exists | FreeSpace | Extents | Remove | RemoveDir | SetLen)
            && !matches!(self.ill, Ill::Slow(_));
        kind && !spared && self.class.is_none_or(|class| class == FileClass::of(&op.path))
    }

    /// What befalls it.
    pub fn fault(&self) -> (Fault, &'static str) {
        match self.ill {
            Ill::Io => (Fault::Io, "disk: EIO"),
            Ill::SyncIo => (Fault::Io, "disk: EIO of a sync"),
            Ill::NoSpace => (Fault::NoSpace, "disk: ENOSPC"),
            Ill::Slow(time) => (Fault::Slow(time), "disk: slow"),
        }
    }
}

/// In what a bit turns over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FlipTarget {
    /// A map file.
    Map,
    /// A segment of the journal.
    Journal,
    /// A medium that has arrived.
    Media,
    /// `state.json`, while the process is down.
    State,
}

impl FlipTarget {
    /// Draws one.
    pub fn draw(random: &mut SplitMix64) -> FlipTarget {
        match random.below(4) {
            0 => FlipTarget::Map,
            1 => FlipTarget::Journal,
            2 => FlipTarget::Media,
            _ => FlipTarget::State,
        }
    }

    /// The class of its files.
    pub fn class(self) -> FileClass {
        match self {
            FlipTarget::Map => FileClass::Map,
            FlipTarget::Journal => FileClass::Journal,
            FlipTarget::Media => FileClass::Media,
            FlipTarget::State => FileClass::State,
        }
    }
}
