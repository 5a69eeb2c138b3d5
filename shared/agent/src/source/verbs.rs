//! Control requests of a source.

use std::rc::Rc;
use std::sync::Arc;

use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use site::Problem;
use site::control::{ControlLimits, ControlRequest, ControlServer, Snapshot};
use tokio::sync::mpsc;

use super::SourceAgent;
use super::dump::DumpArguments;
use crate::problem::refused;

impl SourceAgent {
    pub(super) fn start_control(
        self: &Rc<Self>,
        snapshot: &Arc<Snapshot>,
    ) -> Result<ControlServer, Problem> {
        let (commands, mut requests) = mpsc::channel::<ControlRequest>(16);
        let path = self.relationship.dir.control_socket();
        let limits = ControlLimits::default();
        let server = ControlServer::start(&path, snapshot.clone(), commands, limits)
            .map_err(|e| Problem::from(&e))?;
        let agent = self.clone();
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

    async fn verb(self: &Rc<Self>, verb: &str, body: Value) -> Result<Value, Problem> {
        match verb {
            "dump" => self.begin_dump(arguments::<DumpArguments>(body)?).await,
            "dump-cancel" => self.cancel_dump().await,
            "status" => Ok(self.status_value()),
            "plan" => Ok(json!(self.plan())),
            other => Err(refused("unknown-verb", format!("there is no verb `{other}` here"))),
        }
    }
}

/// The arguments of a verb.
pub(crate) fn arguments<T: DeserializeOwned>(body: Value) -> Result<T, Problem> {
    serde_json::from_value(body)
        .map_err(|e| refused("arguments", format!("the request is not understood: {e}")))
}
