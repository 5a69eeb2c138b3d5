//! `mode`: how a peer is kept: in sync, asynchronously, or in cycles.

use replication::state::{Mode, OnLinkLoss};
use serde_json::json;
use site::location::Name;
use site::{Exit, Problem};

use super::Context;
use super::switchover::not_running;
use crate::flags::duration;
use crate::reach;

/// Flags of `mode`.
#[derive(clap::Args)]
pub struct Arguments {
    /// Name of the relationship
    name: Name,
    /// Which peer, by the beginning of its identity or fingerprint, where there are several; and `sync`,
    /// `async`, `cycle` or `cycle=TIME`. Without a mode the present ones are shown
    #[arg(value_names = ["PEER", "MODE"], num_args = 0..=2)]
    words: Vec<String>,
    /// In sync mode, when the peer cannot be reached: `continue` alone, or `block=TIME`, after which
    /// writes fail
    #[arg(long, value_name = "WHAT", default_value = "continue")]
    on_link_loss: String,
}

/// Asks the running source.
pub async fn run(verb: Context, arguments: Arguments) -> Result<(), Problem> {
    let (peer, mode) = match arguments.words.as_slice() {
        [] => (None, None),
        [mode] => (None, Some(parse(mode, &arguments.on_link_loss)?)),
        [peer, mode, ..] => (Some(peer.clone()), Some(parse(mode, &arguments.on_link_loss)?)),
    };
    let Some(client) = reach::running(&verb.state, &arguments.name).await? else {
        return Err(not_running(&arguments.name));
    };
    let answer = reach::verb(&client, "mode", &json!({ "peer": peer, "mode": mode })).await?;
    let peers = answer["peers"].as_array().cloned().unwrap_or_default();
    let line = |p: &serde_json::Value| {
        let word = |key: &str| p[key].as_str().unwrap_or_default().to_owned();
        format!("{}: {}", word("fingerprint"), word("words"))
    };
    let lines: Vec<String> = peers.iter().map(line).collect();
    verb.printer.data(&lines.join("\n"), &answer);
    Ok(())
}

fn parse(mode: &str, on_link_loss: &str) -> Result<Mode, Problem> {
    let wrong = |what: String| {
        Problem::new("usage", what, Exit::USAGE)
            .safe("Nothing was changed.")
            .todo("Write sync, async, cycle or cycle=5m; --on-link-loss continue or block=30s.")
    };
    let time = |text: &str| {
        let time = duration(text).map_err(&wrong)?;
        match time.as_millis() as u64 {
            0 => Err(wrong(format!("{text}: a time longer than nothing is needed"))),
            ms => Ok(ms),
        }
    };
    let on_link_loss = match (on_link_loss, on_link_loss.strip_prefix("block=")) {
        ("continue", _) => OnLinkLoss::Continue,
        (_, Some(limit)) => OnLinkLoss::Block { limit_ms: time(limit)? },
        _ => return Err(wrong(format!("{on_link_loss}: neither continue nor block=TIME"))),
    };
    let mode = match (mode, mode.strip_prefix("cycle=")) {
        ("sync", _) => Mode::Sync { on_link_loss },
        ("async", _) => Mode::Async,
        ("cycle", _) => Mode::Cycle { every_ms: None },
        (_, Some(every)) => Mode::Cycle { every_ms: Some(time(every)?) },
        _ => return Err(wrong(format!("{mode}: no such mode"))),
    };
    if on_link_loss != OnLinkLoss::Continue && !mode.is_sync() {
        return Err(wrong("--on-link-loss block is for sync mode".to_owned()));
    }
    Ok(mode)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes_are_read_and_wrong_ones_are_named() {
        let good = |mode, loss| parse(mode, loss).unwrap_or_else(|e| panic!("{}", e.what));
        assert_eq!(good("async", "continue"), Mode::Async);
        assert_eq!(good("cycle", "continue"), Mode::Cycle { every_ms: None });
        assert_eq!(good("cycle=5m", "continue"), Mode::Cycle { every_ms: Some(300_000) });
        let block = Mode::Sync { on_link_loss: OnLinkLoss::Block { limit_ms: 30_000 } };
        assert_eq!(good("sync", "block=30s"), block);
        for (mode, loss) in [
            ("synk", "continue"),
            ("cycle=", "continue"),
            ("cycle=0s", "continue"),
            ("sync", "block"),
            ("sync", "block=soon"),
            ("async", "block=5s"),
        ] {
            assert!(parse(mode, loss).is_err(), "{mode} {loss}");
        }
    }
}
