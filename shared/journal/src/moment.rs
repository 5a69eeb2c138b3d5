//! Places in the order in which a replica's bytes change.

/// After a commit, and after the `split`-th look that somebody took inside of the epoch that follows it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Moment {
    /// The number of the commit.
    pub commit: u64,
    /// Looks taken in the epoch after it.
    pub split: u32,
}
