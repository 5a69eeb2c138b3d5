//! What the daemons of both roles do alike: requests on the control socket, and the status that is
//! published for those who only look.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use serde::de::DeserializeOwned;
use serde_json::Value;
use site::Problem;
use site::control::{ControlLimits, ControlRequest, ControlServer, Snapshot};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::problem::refused;

/// How often the status is published.
const PUBLISH_EVERY: Duration = Duration::from_millis(250);

/// The daemon of a role, as its control socket sees it.
pub(crate) trait Daemon: 'static {
    /// Where the socket is.
    fn control_socket(&self) -> PathBuf;

    /// The status as JSON.
    fn status_value(&self) -> Value;

    /// Carries out a verb.
    async fn verb(self: Rc<Self>, verb: &str, body: Value) -> Result<Value, Problem>;
}

/// Opens the control socket; requests are answered until the server is dropped.
pub(crate) fn start<D: Daemon>(
    agent: &Rc<D>,
    snapshot: &Arc<Snapshot>,
) -> Result<ControlServer, Problem> {
    let (commands, mut requests) = mpsc::channel::<ControlRequest>(16);
    let limits = ControlLimits::default();
    let server = ControlServer::start(&agent.control_socket(), snapshot.clone(), commands, limits)
        .map_err(|e| Problem::from(&e))?;
    let agent = agent.clone();
    tokio::task::spawn_local(async move {
        while let Some(request) = requests.recv().await {
            let agent = agent.clone();
            // Each in a task of its own: a slow one does not hold up the others.
            tokio::task::spawn_local(async move {
                let answer = agent.verb(&request.verb, request.body).await;
                // Who asked may have gone away.
                drop(request.answer.send(answer));
            });
        }
    });
    Ok(server)
}

/// Publishes the status again and again, until it is aborted or the agent is gone.
pub(crate) fn spawn_publisher<D: Daemon>(agent: &Rc<D>, snapshot: Arc<Snapshot>) -> JoinHandle<()> {
    let agent = Rc::downgrade(agent);
    tokio::task::spawn_local(async move {
        loop {
            tokio::time::sleep(PUBLISH_EVERY).await;
            let Some(agent) = agent.upgrade() else { return };
            snapshot.publish(agent.status_value(), BTreeMap::new());
        }
    })
}

/// The arguments of a verb.
pub(crate) fn arguments<T: DeserializeOwned>(body: Value) -> Result<T, Problem> {
    serde_json::from_value(body)
        .map_err(|e| refused("arguments", format!("the request is not understood: {e}")))
}

/// The answer to a verb that a role does not have.
pub(crate) fn unknown(verb: &str) -> Problem {
    refused("unknown-verb", format!("there is no verb `{verb}` here"))
}

/// The answer to a verb of the other role.
pub(crate) fn other_role(verb: &str, is: &str, wanted: &str) -> Problem {
    refused("role", format!("`{verb}` is for a {wanted}, and this site is the {is}"))
}
