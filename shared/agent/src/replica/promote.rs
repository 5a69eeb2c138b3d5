//! The verb `promote`.

use std::rc::Rc;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use site::Problem;

use super::ReplicaAgent;
use crate::past::{PointShown, When};
use crate::problem::{of_replication, refused};
use crate::status::Amount;

/// What `promote` is told.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
pub struct PromoteArguments {
    /// A copy that is no point in time will do.
    pub inconsistent: bool,
    /// Only shows what it would stand on.
    pub dry_run: bool,
    /// At an earlier point.
    #[serde(default)]
    pub at: Option<When>,
}

/// What a promotion stands on, for people.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct PromoteAnswer {
    /// The cut that the copy is at.
    pub cut: String,
    /// When the source made it, milliseconds since 1970.
    pub unix_ms: Option<u64>,
    /// How old it is now, in milliseconds: what was written since is lost unless the old source comes
    /// back.
    pub age_ms: Option<u64>,
    /// Writes that the copy holds beyond it.
    #[serde(default)]
    pub writes_after: u64,
    /// Whether it is a point in time.
    pub consistent: bool,
    /// What may hold something else.
    pub lacks: Amount,
    /// Bytes that the source had written since, as far as it last told.
    pub known_unsent_bytes: u64,
    /// The earlier point at which it is promoted.
    #[serde(default)]
    pub point: Option<PointShown>,
    /// What goes back for that: it changed after the point.
    #[serde(default)]
    pub goes_back: Amount,
    /// Whether it was done.
    pub promoted: bool,
}

impl ReplicaAgent {
    pub(super) async fn promote(
        self: &Rc<Self>,
        arguments: PromoteArguments,
    ) -> Result<Value, Problem> {
        let answer = self.promote_now(&arguments).await?;
        if answer.promoted {
            self.role_changed.notify_one();
        }
        Ok(json!(answer))
    }

    /// Promotes this replica, running or not. The site is to be started as a source afterwards.
    pub async fn promote_now(
        self: &Rc<Self>,
        arguments: &PromoteArguments,
    ) -> Result<PromoteAnswer, Problem> {
        let standing = self.replica.standing().ok_or_else(|| {
            refused("empty", "this replica is empty: there is nothing here to promote")
        })?;
        let mut answer = PromoteAnswer {
            cut: standing.cut.to_string(),
            unix_ms: standing.unix_ms,
            age_ms: standing.unix_ms.map(|then| self.ctx.unix_ms().saturating_sub(then)),
            writes_after: standing.writes_after,
            consistent: standing.consistent,
            lacks: crate::status::amount_of(&standing.lacks, self.replica.volumes().geometry()),
            known_unsent_bytes: standing.known_unsent_bytes,
            promoted: false,
            ..PromoteAnswer::default()
        };
        let at = arguments.at.as_ref().map(When::at).transpose();
        let at = at.map_err(|e| refused("at", e))?;
        if let Some(at) = &at {
            let (point, back) = self.replica.way_back(at).await.map_err(|e| of_replication(&e))?;
            let geometry = self.replica.volumes().geometry();
            answer.goes_back = crate::status::amount_of(&back, geometry);
            answer.age_ms = Some(self.ctx.unix_ms().saturating_sub(point.unix_ms));
            answer.point = Some(point.into());
        }
        if arguments.dry_run {
            return Ok(answer);
        }
        if self.loading.get() {
            return Err(refused("loading", "media are being loaded; wait for the end"));
        }
        let from =
            answer.point.as_ref().map_or_else(|| standing.cut.to_string(), |p| p.cut.clone());
        self.events.note(format!("promote: from the cut {from} on"));
        // Nobody looks at it any more.
        self.end_views().await;
        let promoted = self.replica.promote_at(at.as_ref(), arguments.inconsistent).await;
        promoted.map_err(|e| of_replication(&e))?;
        answer.promoted = true;
        Ok(answer)
    }
}
