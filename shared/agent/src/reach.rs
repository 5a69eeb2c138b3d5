//! How a verb reaches its relationship: through the running agent, or by what is on disk.

use std::time::Duration;

use disk::Context;
use serde_json::Value;
use site::control::ControlClient;
use site::location::{Name, StateDir};
use site::{Error, Problem};

use crate::Relationship;
use crate::problem::of_relationship;
use crate::status::{JobStatus, Status, of_rest};

/// How long a fresh status is waited for.
const FRESH_LIMIT: Duration = Duration::from_secs(2);

/// The running agent of a relationship, if there is one.
pub async fn running(state: &StateDir, name: &Name) -> Result<Option<ControlClient>, Problem> {
    let dir = state.existing(name).map_err(|e| Problem::from(&e))?;
    let client = ControlClient::new(dir.control_socket());
    match client.status().await {
        Ok(_) => Ok(Some(client)),
        Err(Error::NotRunning(_)) => Ok(None),
        Err(e) => Err(Problem::from(&e)),
    }
}

/// The status that the running agent published.
pub async fn published(client: &ControlClient) -> Result<Status, Problem> {
    let answer = client.status().await.map_err(|e| Problem::from(&e))?;
    let status = answer.get("status").cloned().unwrap_or_default();
    serde_json::from_value(status)
        .map_err(|e| Problem::bug(format!("the agent's status is not understood: {e}")))
}

/// The status: of the running agent, or of what it left on disk.
pub async fn status(ctx: &Context, state: &StateDir, name: &Name) -> Result<Status, Problem> {
    if let Some(client) = running(state, name).await? {
        // Fresh from the relationship's thread; where that is stuck, what it published last.
        let asked = client.verb("status", &Value::Null);
        return match tokio::time::timeout(FRESH_LIMIT, asked).await {
            Ok(Ok(status)) => serde_json::from_value(status)
                .map_err(|e| Problem::bug(format!("the agent's status is not understood: {e}"))),
            _ => published(&client).await,
        };
    }
    let found = Relationship::open(ctx, state, name).await.map_err(|e| of_relationship(&e))?;
    let rest = replication::at_rest(ctx, found.dir.path(), &found.store).await;
    let mut status = found.store.with(|s| of_rest(s, &rest));
    status.unix_ms = ctx.unix_ms();
    Ok(status)
}

/// Sends a verb to the running agent.
pub async fn verb(client: &ControlClient, name: &str, body: &Value) -> Result<Value, Problem> {
    client.verb(name, body).await.map_err(|e| Problem::from(&e))
}

/// Watches the agent's job until it is over, and tells `shown` how far it is.
pub async fn watch_job(
    client: &ControlClient,
    mut shown: impl FnMut(&JobStatus, &Status),
) -> Result<JobStatus, Problem> {
    loop {
        tokio::time::sleep(Duration::from_millis(300)).await;
        let status = published(client).await?;
        let Some(job) = status.job.clone() else { continue };
        shown(&job, &status);
        if job.stage != "running" {
            return Ok(job);
        }
    }
}
