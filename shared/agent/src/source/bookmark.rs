//! The verb `bookmark`.

use std::rc::Rc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use site::Problem;

use super::SourceAgent;
use super::freeze::FreezeArguments;
use crate::peer::fingerprint;
use crate::problem::{of_replication, refused};

/// What `bookmark` is told.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct BookmarkArguments {
    /// Its name.
    pub label: String,
    /// How long a replica that is kept in cycles is waited for.
    pub wait_ms: u64,
    /// Around the cut.
    #[serde(flatten)]
    pub freeze: FreezeArguments,
}

/// Where a bookmark was made.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct BookmarkedPeer {
    /// The replica.
    pub fingerprint: String,
    /// Its cut; none where it was not made in time.
    pub cut: Option<String>,
}

/// The answer to `bookmark`.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct BookmarkAnswer {
    /// Its name.
    pub label: String,
    /// The replicas that are connected.
    pub peers: Vec<BookmarkedPeer>,
    /// Whether the application was quiet for all of it, where that was asked.
    pub quiet: bool,
}

impl SourceAgent {
    pub(super) async fn bookmark(
        self: &Rc<Self>,
        asked: BookmarkArguments,
    ) -> Result<Value, Problem> {
        replication::source::check_label(&asked.label).map_err(|e| refused("label", e))?;
        let frozen = self.freeze(&asked.freeze).await?;
        let wait = Duration::from_millis(asked.wait_ms);
        let made = self.source.bookmark(asked.label.clone(), wait).await;
        let quiet = self.thaw(frozen).await?;
        let made = made.map_err(|e| of_replication(&e))?;
        self.events.note(format!("bookmark {}", asked.label));
        let shown = |(identity, cut): &(String, Option<grain::CutId>)| BookmarkedPeer {
            fingerprint: fingerprint(identity),
            cut: cut.map(|cut| cut.to_string()),
        };
        let peers = made.peers.iter().map(shown).collect();
        Ok(json!(BookmarkAnswer { label: asked.label, peers, quiet }))
    }
}
