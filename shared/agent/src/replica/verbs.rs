//! Control requests of a replica.

use std::rc::Rc;
use std::sync::Arc;

use serde_json::{Value, json};
use site::Problem;
use site::control::{ControlLimits, ControlRequest, ControlServer, Snapshot};
use tokio::sync::mpsc;

use super::{LoadArguments, ReplicaAgent};
use crate::problem::refused;
use crate::source::arguments;

impl ReplicaAgent {
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
            "load" => {
                let arguments: LoadArguments = arguments(body)?;
                // It may take days: the answer comes at once, status shows how far it is.
                self.begin_load(arguments).map(|()| json!({ "begun": true }))
            }
            "status" => Ok(self.status_value()),
            "plan" => Ok(json!(self.plan())),
            other => Err(refused("unknown-verb", format!("there is no verb `{other}` here"))),
        }
    }
}
