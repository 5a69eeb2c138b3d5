//! Control requests of a replica.

use std::path::PathBuf;
use std::rc::Rc;

use serde_json::{Value, json};
use site::Problem;

use super::promote::PromoteArguments;
use super::{LoadArguments, ReplicaAgent};
use crate::control::{Daemon, arguments, other_role, unknown};
use crate::past::ExportArguments;
use crate::{FollowArguments, PeerArguments, VerifyArguments};

impl Daemon for ReplicaAgent {
    fn control_socket(&self) -> PathBuf {
        self.relationship.dir.control_socket()
    }

    fn status_value(&self) -> Value {
        serde_json::to_value(self.status()).unwrap_or_default()
    }

    async fn verb(self: Rc<Self>, verb: &str, body: Value) -> Result<Value, Problem> {
        match verb {
            "load" => {
                let arguments: LoadArguments = arguments(body)?;
                // It may take days: the answer comes at once, status shows how far it is.
                self.begin_load(arguments).map(|()| json!({ "begun": true }))
            }
            "follow" => self.follow(arguments::<FollowArguments>(body)?).await,
            "peer" => match arguments::<PeerArguments>(body)? {
                PeerArguments::List => Ok(self.replica.store().with(crate::peer::listed)),
                PeerArguments::Remove { peer } => self.forget_peer(&peer).await,
                PeerArguments::Add { .. } => Err(other_role(verb, "replica", "source")),
            },
            "promote" => self.promote(arguments::<PromoteArguments>(body)?).await,
            "points" => Ok(self.points(arguments(body)?)),
            "export" => self.export(arguments::<ExportArguments>(body)?).await,
            "export-look" => self.look_at_view(arguments(body)?),
            "export-end" => self.end_view(arguments(body)?).await,
            "dump" | "dump-cancel" | "bookmark" | "switchover" | "rejoin" | "mode" | "pace" => {
                Err(other_role(verb, "replica", "source"))
            }
            "verify" => self.begin_verify(arguments::<VerifyArguments>(body)?),
            "verify-stop" => Ok(self.stop_verify()),
            "verify-progress" => Ok(json!(self.verify_progress())),
            "status" => Ok(self.status_value()),
            "plan" => Ok(json!(self.plan())),
            other => Err(unknown(other)),
        }
    }
}
