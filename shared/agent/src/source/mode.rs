//! How peers are kept, by the operator's word; and what is shown of it.

use std::rc::Rc;

use replication::source::LinkProgress;
use replication::state::{Mode, OnLinkLoss};
use serde::Deserialize;
use serde_json::{Value, json};
use site::Problem;

use super::SourceAgent;
use crate::peer::{fingerprint, is_meant};
use crate::problem::{of_replication, refused};
use crate::status::MirrorStatus;

/// What `mode` is told.
#[derive(Clone, Debug, Deserialize)]
pub struct ModeArguments {
    /// The beginning of the peer's identity or fingerprint; the only one where nothing is said.
    pub peer: Option<String>,
    /// The mode to set; nothing to look only.
    pub mode: Option<Mode>,
}

impl SourceAgent {
    /// Sets or shows the modes of peers.
    pub(super) async fn mode(&self, arguments: ModeArguments) -> Result<Value, Problem> {
        let all: Vec<String> =
            self.source.store().with(|s| s.peers.iter().map(|p| p.identity.clone()).collect());
        let meant: Vec<String> = match &arguments.peer {
            Some(peer) => all.into_iter().filter(|id| is_meant(id, peer)).collect(),
            None => all,
        };
        if let Some(mode) = arguments.mode {
            let [identity] = meant.as_slice() else {
                let words = match (&arguments.peer, meant.len()) {
                    (Some(peer), 0) => format!("no peer begins with {peer}"),
                    (_, count) => format!("{count} peers could be meant"),
                };
                return Err(refused("peer", words).todo(
                    "Name the peer by the beginning of its fingerprint; `status` lists them.",
                ));
            };
            let set = self.source.set_mode(identity, mode).await;
            set.map_err(|e| of_replication(&e))?;
            self.events.note(format!("mode of {}: {}", fingerprint(identity), words(mode)));
        }
        let modes = self.source.store().with(|s| {
            let of = s.peers.iter().filter(|p| meant.contains(&p.identity));
            of.map(|p| (p.identity.clone(), p.mode)).collect::<Vec<_>>()
        });
        let one = |(identity, mode): &(String, Mode)| {
            json!({
                "identity": identity,
                "fingerprint": fingerprint(identity),
                "mode": mode,
                "words": words(*mode),
            })
        };
        Ok(json!({ "peers": modes.iter().map(one).collect::<Vec<_>>() }))
    }
}

/// A time as it can be given again.
fn time(ms: u64) -> String {
    let units = [("h", 3_600_000), ("m", 60_000), ("s", 1000)];
    let unit = units.into_iter().find(|(_, unit)| ms.is_multiple_of(*unit));
    let (name, unit) = unit.unwrap_or(("ms", 1));
    format!("{}{name}", ms / unit)
}

/// A mode for people.
pub(crate) fn words(mode: Mode) -> String {
    match mode {
        Mode::Sync { on_link_loss: OnLinkLoss::Continue } => "sync, continues alone".to_owned(),
        Mode::Sync { on_link_loss: OnLinkLoss::Block { limit_ms } } => {
            format!("sync, waits {} for a lost peer", time(limit_ms))
        }
        Mode::Async => "async".to_owned(),
        Mode::Cycle { every_ms: None } => "cycle".to_owned(),
        Mode::Cycle { every_ms: Some(ms) } => format!("cycle={}", time(ms)),
    }
}

/// What is shown of a stream; nothing in cycle mode.
pub(super) fn mirror(
    mode: Mode,
    connected: bool,
    progress: &Rc<LinkProgress>,
) -> Option<MirrorStatus> {
    if !mode.streams() {
        return None;
    }
    let stream = &progress.stream;
    Some(MirrorStatus {
        mirroring: connected && stream.mirroring.get(),
        backlog_bytes: if connected { stream.backlog_bytes.get() } else { 0 },
        lag_ms: if connected { stream.age.get().as_millis() as u64 } else { 0 },
        writes: stream.writes.get(),
        overflows: stream.overflows.get(),
        ended: stream.ended.borrow().map(str::to_owned),
    })
}
