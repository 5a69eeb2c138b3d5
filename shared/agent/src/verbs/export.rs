//! `export`: the replica as it was, over NBD, while the mirroring goes on.

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::{Value, json};
use site::amount::{human_bytes, human_duration};
use site::control::ControlClient;
use site::location::Name;
use site::printer::Table;
use site::{Exit, Printer, Problem};

use super::Context;
use super::switchover::not_running;
use crate::flags::size;
use crate::past::{ExportArguments, LEASE, ViewStatus, When, wall_clock};
use crate::problem::refused;
use crate::reach;

/// Flags of `export`.
#[derive(clap::Args)]
pub struct Arguments {
    /// Name of the relationship
    name: Name,
    /// What to look at: latest, a time (2026-11-22 04:00, 04:00, "10m ago"), a cut's id, a bookmark
    #[arg(long, value_name = "WHEN", default_value = "latest")]
    at: String,
    /// The Unix socket of the NBD exports
    #[arg(long, value_name = "PATH", required_unless_present = "end")]
    socket: Option<PathBuf>,
    /// It can be written; what is written is thrown away at the end
    #[arg(long)]
    writable: bool,
    /// What the writes may take, with the state
    #[arg(long, value_name = "SIZE", default_value = "64GiB", value_parser = size)]
    overlay_max: u64,
    /// Return at once; it stays until `export NAME --end ID`
    #[arg(long)]
    background: bool,
    /// Write a report of the look into this file when it ends (JSON)
    #[arg(long, value_name = "FILE")]
    report: Option<PathBuf>,
    /// End this view, and show what was done with it
    #[arg(long, value_name = "ID", conflicts_with_all = ["socket", "writable", "background"])]
    end: Option<u32>,
}

/// Asks the running replica; stays until told to end, unless in the background.
pub async fn run(verb: Context, arguments: Arguments) -> Result<(), Problem> {
    let Some(client) = reach::running(&verb.state, &arguments.name).await? else {
        return Err(not_running(&arguments.name));
    };
    let report = arguments.report.as_deref();
    if let Some(id) = arguments.end {
        return end(&client, &verb.printer, id, report).await;
    }
    let view = begin(&verb, &client, &arguments).await?;
    if arguments.background {
        verb.printer.note(&format!("`export {} --end {}` ends it", arguments.name, view.id));
        return Ok(());
    }
    verb.printer.note("it ends with this command (Ctrl-C)");
    loop {
        tokio::select! {
            biased;
            () = verb.shutdown.wait() => return end(&client, &verb.printer, view.id, report).await,
            () = tokio::time::sleep(LEASE / 10) => {}
        }
        let now = reach::verb(&client, "export-look", &json!({ "id": view.id })).await?;
        let now: ViewStatus = read(now)?;
        if let Some(why) = now.ended {
            end(&client, &verb.printer, view.id, report).await?;
            return Err(Problem::new(
                "view-ended",
                format!("the view has ended: {why}"),
                Exit::OPERATOR,
            )
            .safe("The replica and its mirroring are as they were.")
            .todo("Open another one; `points` lists what one can go back to."));
        }
    }
}

async fn begin(
    verb: &Context,
    client: &ControlClient,
    arguments: &Arguments,
) -> Result<ViewStatus, Problem> {
    let at = When::read(&arguments.at, verb.ctx.unix_ms())?;
    let socket = arguments.socket.clone().unwrap_or_default();
    let socket = std::path::absolute(&socket)
        .map_err(|e| refused("socket", format!("{}: {e}", socket.display())))?;
    let asked = ExportArguments {
        at,
        writable: arguments.writable,
        socket,
        overlay_bytes: arguments.overlay_max,
        background: arguments.background,
    };
    let answer = reach::verb(client, "export", &json!(asked)).await?;
    let view: ViewStatus = read(answer.clone())?;
    let mut table = Table::pairs();
    let mut row = |name: &str, value: String| table.row([name.to_owned(), value]);
    row("view", view.id.to_string());
    row("shows", shows(&view));
    row("ready after", human_duration(Duration::from_micros(view.ready_us)));
    for name in &view.exports {
        row("export", format!("nbd+unix:///{name}?socket={}", view.socket));
    }
    verb.printer.table(&table, &answer);
    Ok(view)
}

fn shows(view: &ViewStatus) -> String {
    let when = wall_clock(view.cut_unix_ms);
    match (&view.label, view.latest) {
        (Some(label), _) => format!("bookmark {label}, cut {} of {when}", view.cut),
        (None, true) => format!("everything that counts now, after the cut {} of {when}", view.cut),
        (None, false) => format!("cut {} of {when}", view.cut),
    }
}

async fn end(
    client: &ControlClient,
    printer: &Printer,
    id: u32,
    report: Option<&Path>,
) -> Result<(), Problem> {
    let answer = reach::verb(client, "export-end", &json!({ "id": id })).await?;
    let view: ViewStatus = read(answer.clone())?;
    if let Some(path) = report {
        let text = serde_json::to_string_pretty(&answer).unwrap_or_default();
        std::fs::write(path, text + "\n")
            .map_err(|e| refused("report", format!("{}: {e}", path.display())))?;
    }
    let mut table = Table::pairs();
    let mut row = |name: &str, value: String| table.row([name.to_owned(), value]);
    row("view", view.id.to_string());
    row("showed", shows(&view));
    let lasted = view.ended_unix_ms.unwrap_or_default().saturating_sub(view.opened_unix_ms);
    row("open for", human_duration(Duration::from_millis(lasted)));
    row("read", format!("{} in {} requests", human_bytes(view.read_bytes), view.reads));
    if view.writable {
        let written = human_bytes(view.written_bytes);
        row("written", format!("{written} in {} requests, thrown away", view.writes));
    }
    if view.errors > 0 {
        row("failed", format!("{} requests", view.errors));
    }
    printer.table(&table, &answer);
    Ok(())
}

fn read(answer: Value) -> Result<ViewStatus, Problem> {
    serde_json::from_value(answer).map_err(|e| Problem::bug(e.to_string()))
}
