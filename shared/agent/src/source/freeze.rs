//! Quiescing the application around a cut.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use site::Problem;
use site::hooks::{Frozen, Hooks};

use super::SourceAgent;

/// What is called before a cut and after it.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct FreezeArguments {
    /// Quiesces the application before the cut: a command, or `fsfreeze:PATH`.
    pub freeze: Option<String>,
    /// Ends it after the cut.
    pub thaw: Option<String>,
    /// The longest that each of freeze, frozen time and thaw may take.
    pub freeze_limit_s: u64,
}

impl SourceAgent {
    pub(super) async fn freeze(
        &self,
        arguments: &FreezeArguments,
    ) -> Result<Option<Frozen>, Problem> {
        let Some(freeze) = &arguments.freeze else { return Ok(None) };
        let limit = Duration::from_secs(arguments.freeze_limit_s.max(1));
        let hooks = Hooks::new(freeze, arguments.thaw.as_deref(), limit);
        let hooks = hooks.map_err(|e| Problem::from(&e))?;
        let dir = &self.relationship.dir;
        let mut needed = vec![dir.path().to_owned(), self.side_dir()];
        needed.extend(self.source.volumes().iter().map(|(_, v)| v.path.clone()));
        hooks.check(&needed).map_err(|e| Problem::from(&e))?;
        let frozen = hooks.freeze(&self.ctx, &dir.frozen_marker()).await;
        frozen.map(Some).map_err(|e| Problem::from(&e))
    }

    /// Whether the cut was made while everything was frozen, if anything was.
    pub(super) async fn thaw(&self, frozen: Option<Frozen>) -> Result<bool, Problem> {
        let Some(frozen) = frozen else { return Ok(true) };
        let thawed = frozen.thaw().await.map_err(|e| Problem::from(&e))?;
        if !thawed.in_time {
            self.events.note("the application was thawed before the cut was made");
        }
        Ok(thawed.in_time)
    }
}
