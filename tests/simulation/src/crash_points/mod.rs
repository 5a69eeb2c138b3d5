//! Crash points: every sequence of up to three actions, every prefix of the disk operations of both sites,
//! and of what was not synced at each the bounded subsets below.
//!
//! The sequences are walked as a tree: of each, only the operations of its last action are looked at, those
//! before are another sequence's. At every operation of either machine the images of both are kept, with
//! what the oracle knows at that instant ([`record`]); afterwards each is taken as the crash that it could
//! have been ([`images`]) and looked at ([`look`]).
//!
//! | crash of | images |
//! |---|---|
//! | the site whose operation it was | killed; nothing, everything, each step alone and all but each step kept (up to so many, then seeded picks); torn |
//! | the other one with it | both: nothing kept, everything kept, torn |
//!
//! | checked | how |
//! |---|---|
//! | no change missed | the images are started and attached, nothing writes, both are equal then |
//! | flushed is kept | the source's volumes against the oracle of that instant |
//! | replica consistent | what the started replica says it is, against the source at that cut; it stands fast |
//! | cuts are points in time | at every cut that is made |
//! | media | a set that the source's state calls finished extracts to its cut, or says fuzzy |
//!
//! Equal images are looked at once; what depends on the instant, each time.

mod actions;
mod images;
mod look;
mod record;
mod walk;

pub use actions::{Action, Root};
pub use images::Depth;
pub use walk::{Failed, Report, walk};
