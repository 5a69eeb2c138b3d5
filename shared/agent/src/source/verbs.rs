//! Control requests of a source.

use std::path::PathBuf;
use std::rc::Rc;

use serde_json::{Value, json};
use site::Problem;

use super::SourceAgent;
use super::bookmark::BookmarkArguments;
use super::dump::DumpArguments;
use super::mode::ModeArguments;
use super::pace::PaceArguments;
use super::roles::{RejoinArguments, SwitchoverArguments};
use crate::control::{Daemon, arguments, other_role, unknown};
use crate::{PeerArguments, VerifyArguments};

impl Daemon for SourceAgent {
    fn control_socket(&self) -> PathBuf {
        self.relationship.dir.control_socket()
    }

    fn status_value(&self) -> Value {
        serde_json::to_value(self.status()).unwrap_or_default()
    }

    async fn verb(self: Rc<Self>, verb: &str, body: Value) -> Result<Value, Problem> {
        match verb {
            "dump" => self.begin_dump(arguments::<DumpArguments>(body)?).await,
            "bookmark" => self.bookmark(arguments::<BookmarkArguments>(body)?).await,
            "mode" => self.mode(arguments::<ModeArguments>(body)?).await,
            "pace" => self.set_pace(arguments::<PaceArguments>(body)?),
            "peer" => self.peer(arguments::<PeerArguments>(body)?).await,
            "dump-cancel" => self.cancel_dump().await,
            "switchover" => self.switch_over(arguments::<SwitchoverArguments>(body)?).await,
            "rejoin" => self.rejoin(arguments::<RejoinArguments>(body)?).await,
            "promote" | "load" | "follow" | "points" | "export" | "export-look" | "export-end" => {
                Err(other_role(verb, "source", "replica"))
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
