//! What is asked of a dump, and what of it is saved so that it can be resumed.

use std::path::PathBuf;
use std::rc::Rc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use wire::{Recipient, SiteKeys};

use crate::session::Overflow;
use crate::{Error, Result};

/// What happens when there is no more room to preserve what is overwritten.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Preserve {
    /// The set becomes fuzzy: no point in time before the first catch-up.
    #[default]
    Fuzzy,
    /// Writers wait.
    Throttle,
    /// The dump is given up.
    Abort,
}

impl Preserve {
    pub(super) fn overflow(self) -> Overflow {
        match self {
            Preserve::Fuzzy => Overflow::Fuzzy,
            Preserve::Throttle => Overflow::Throttle,
            Preserve::Abort => Overflow::Abort,
        }
    }
}

/// How a dump is made; kept in the state, so that a dump that broke off is resumed the same way.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SavedOptions {
    /// Largest size of a segment file, in bytes.
    pub segment_bytes: u64,
    /// The zstd level; none stores raw.
    pub level: Option<i32>,
    /// False leaves the content unencrypted.
    pub encrypt: bool,
    /// Further recipients, in their text form. A passphrase is not kept: it is needed again to resume.
    pub recipients: Vec<String>,
    /// Preserved grains in memory, in bytes at most.
    pub buffer_bytes: u64,
    /// Size of the side file for preserved grains, in bytes; 0 for none.
    pub side_bytes: u64,
    /// Where the side file goes.
    pub side_dir: PathBuf,
    /// How long a writer waits for room.
    pub preserve_wait_ms: u64,
    /// And then?
    pub preserve: Preserve,
    /// Bytes read a second at most; 0 for no limit.
    pub rate_bytes: u64,
}

impl SavedOptions {
    pub(super) fn wait(&self) -> Duration {
        Duration::from_millis(self.preserve_wait_ms)
    }
}

/// What only lives as long as the dump.
#[derive(Clone)]
pub struct DumpOptions {
    /// Kept for resuming.
    pub saved: SavedOptions,
    /// All recipients beside the source itself: peers, keys, a passphrase.
    pub recipients: Vec<Recipient>,
    /// The source's keys, which sign the set.
    pub keys: Rc<SiteKeys>,
    /// The relationship's ticket, for the labels.
    pub ticket: String,
}

/// A dump to begin or to resume.
#[derive(Clone)]
pub struct DumpRequest {
    /// One directory a medium.
    pub media: Vec<PathBuf>,
    /// How.
    pub options: DumpOptions,
}

impl SavedOptions {
    /// As kept in the state.
    pub(super) fn to_json(&self) -> Result<serde_json::Value> {
        serde_json::to_value(self).map_err(|e| Error::State(e.to_string()))
    }

    /// From the state.
    pub fn from_json(value: &serde_json::Value) -> Result<SavedOptions> {
        serde_json::from_value(value.clone())
            .map_err(|e| Error::State(format!("the options of the dump are not understood: {e}")))
    }
}
