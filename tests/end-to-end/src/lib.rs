//! Tools for tests with real processes, real clients and real file systems.
//!
//! The tests themselves stand in `tests/`. What is here starts and ends our binaries and the programs
//! of others, stands between them on the wire, makes and compares images, writes through NBD while
//! remembering what must be there, mounts what an export holds, and runs a database on it. Everything
//! that it starts is ended and reaped when its handle is dropped. Panics are how a test fails, so these
//! tools panic with words where a library would return an error.

mod file_tree;
mod image;
mod kills;
mod mounted;
mod postgres;
mod process;
mod proxy;
mod random;
mod sites;
mod tool;
mod volume_writer;

pub use file_tree::{FileTree, FileWriter, first_difference, make_files, read_files};
pub use image::{Difference, allocated_bytes, compare, overwrite, random_image, sparse_image};
pub use kills::{KillLoop, Tally};
pub use mounted::{FuseExport, LoopDevice, Mounted, MountedExport};
pub use postgres::{ClientLog, Held, Load, Postgres, Transaction};
pub use process::{Process, binary, wait_for};
pub use proxy::{Direction, Proxy};
pub use random::Random;
pub use sites::{Sites, flip_bit, largest_file};
pub use tool::Tool;
pub use volume_writer::{History, Verdict, VolumeWriter, WriterOptions};
