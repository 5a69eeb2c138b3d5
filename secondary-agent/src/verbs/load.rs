//! `load`: what is here of a media set, through the running agent or by a process of its own.

use std::path::PathBuf;
use std::time::Duration;

use agent::problem::refused;
use agent::reach;
use agent::replica::{LoadAnswer, LoadArguments, ReplicaAgent, ReplicaOptions};
use agent::status::Progress;
use serde_json::json;
use site::amount::human_bytes;
use site::location::Name;
use site::{Exit, Problem};

use super::Context;

/// Flags of `load`.
#[derive(clap::Args)]
pub struct Arguments {
    /// Name of the relationship
    name: Name,
    /// Directories of the media that are here; others can be loaded another day
    #[arg(required = true, value_name = "DIR")]
    dirs: Vec<PathBuf>,
    /// A file whose first line is the passphrase of the set
    #[arg(long, value_name = "FILE")]
    passphrase_file: Option<PathBuf>,
}

/// Loads.
pub async fn run(verb: Context, arguments: Arguments) -> Result<(), Problem> {
    let mut dirs = Vec::new();
    for dir in &arguments.dirs {
        dirs.push(std::path::absolute(dir).map_err(|e| refused("usage", e.to_string()))?);
    }
    let passphrase = match &arguments.passphrase_file {
        None => None,
        Some(path) => Some(agent::passphrase_from(&verb.ctx, path).await?),
    };
    let wanted = LoadArguments { dirs, passphrase };
    let answer = match reach::running(&verb.state, &arguments.name).await? {
        Some(client) => through_agent(&verb, &client, &wanted).await?,
        None => alone(&verb, &arguments.name, wanted).await?,
    };
    report(&verb, &answer)
}

async fn through_agent(
    verb: &Context,
    client: &site::control::ControlClient,
    wanted: &LoadArguments,
) -> Result<LoadAnswer, Problem> {
    let body = serde_json::to_value(wanted).unwrap_or_default();
    reach::verb(client, "load", &body).await?;
    let progress = verb.printer.progress("load", Some(0));
    let job = reach::watch_job(client, |job, status| {
        shown(&*progress, &job.progress, status.grain_bytes);
    })
    .await?;
    progress.finish(&job.stage);
    match job.result.and_then(|result| serde_json::from_value(result).ok()) {
        Some(answer) => Ok(answer),
        None => {
            let what = job.error.unwrap_or_else(|| format!("the load was {}", job.stage));
            Err(Problem::new("load", what, Exit::OPERATOR)
                .safe("What was loaded and checked is kept.")
                .todo("Put it right and load again; nothing is loaded twice."))
        }
    }
}

async fn alone(verb: &Context, name: &Name, wanted: LoadArguments) -> Result<LoadAnswer, Problem> {
    let options = ReplicaOptions::default();
    let agent = ReplicaAgent::start(&verb.ctx, &verb.state, name, options).await?;
    let grain = agent.status().grain_bytes;
    let progress = verb.printer.progress("load", Some(0));
    let loading = agent.load(wanted);
    tokio::pin!(loading);
    let outcome = loop {
        tokio::select! {
            biased;
            outcome = &mut loading => break outcome,
            () = verb.shutdown.wait() => {
                progress.finish("interrupted");
                verb.printer.note("what was loaded is kept; load again to go on");
                return Err(Problem::new("interrupted", "the load was interrupted", Exit::RETRY)
                    .safe("What was loaded and checked is kept."));
            }
            () = tokio::time::sleep(Duration::from_millis(200)) => {
                shown(&*progress, &agent.load_progress(), grain);
            }
        }
    };
    progress.finish(if outcome.is_ok() { "done" } else { "failed" });
    let stopped = agent.stop().await;
    outcome.and_then(|answer| stopped.map(|()| answer))
}

fn shown(progress: &dyn site::printer::Progress, now: &Progress, grain: u64) {
    let bytes = |grains: u64| grains.saturating_mul(grain);
    let extra = [("data", human_bytes(now.bytes))];
    progress.update(bytes(now.done_grains), Some(bytes(now.total_grains)), &extra);
}

fn report(verb: &Context, answer: &LoadAnswer) -> Result<(), Problem> {
    let json = serde_json::to_value(answer).unwrap_or(json!(null));
    for damage in &answer.damage {
        verb.printer.warn(damage);
    }
    verb.printer.data(
        &format!(
            "{} grains loaded, {} were loaded before, {} damaged, {} wait for other media",
            answer.loaded_grains,
            answer.already_grains,
            answer.damaged_grains,
            answer.waiting_grains
        ),
        &json,
    );
    if answer.damaged_grains > 0 {
        verb.printer.note("what is damaged will be pulled over the link");
    }
    if answer.unreadable_grains > 0 {
        verb.printer.warn(&format!(
            "{} grains could not be read at the source and are on no medium; they are missing here, and \
             pulled when the source can read them",
            answer.unreadable_grains
        ));
    }
    if answer.waiting_grains > 0 {
        verb.printer.note(&format!(
            "{} of {} media were here; load the others when they arrive",
            answer.media_here.len(),
            answer.media
        ));
    }
    if let Some(fingerprint) = &answer.fingerprint {
        verb.printer.note(&format!("the volumes read back as the set: fingerprint {fingerprint}"));
    }
    if answer.fuzzy {
        verb.printer.note("the set is fuzzy: no consistent image before the first catch-up");
    }
    Ok(())
}
