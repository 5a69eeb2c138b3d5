//! `dump`: a copy onto media, through the running agent or by a process of its own.

use std::path::PathBuf;
use std::time::Duration;

use agent::problem::refused;
use agent::reach;
use agent::source::{DumpArguments, SourceAgent, SourceOptions};
use agent::status::{JobStatus, Status};
use clap::ValueEnum;
use replication::dump::Preserve;
use serde_json::{Value, json};
use site::amount::{human_bytes, human_duration, parse_rate};
use site::location::Name;
use site::{Exit, Problem};

use super::Context;
use agent::flags::{FreezeFlags, duration, size};

/// Flags of `dump`.
#[derive(clap::Args)]
pub struct Arguments {
    /// Name of the relationship
    name: Name,
    /// A directory on a medium; several are written in parallel
    #[arg(long, value_name = "DIR", required_unless_present_any = ["resume", "cancel", "watch"])]
    to: Vec<PathBuf>,
    /// Who may open the set beside the peers: grainhaul1... or age1...
    #[arg(long = "recipient", value_name = "RECIPIENT")]
    recipients: Vec<String>,
    /// A file whose first line is a passphrase that opens the set, too
    #[arg(long, value_name = "FILE")]
    passphrase_file: Option<PathBuf>,
    /// Leave the content unencrypted (it is still signed)
    #[arg(long)]
    no_encryption: bool,
    /// zstd level from -5 to 19, or `off`
    #[arg(long, value_name = "LEVEL", default_value = "1", allow_hyphen_values = true)]
    compress: String,
    /// Read at most so much a second
    #[arg(long, value_name = "RATE", value_parser = rate)]
    rate: Option<u64>,
    /// Largest size of a segment file
    #[arg(long, value_name = "SIZE", default_value = "1GiB", value_parser = size)]
    segment: u64,
    /// Memory for what is overwritten before it was copied
    #[arg(long, value_name = "SIZE", default_value = "64MiB", value_parser = size)]
    preserve_buffer: u64,
    /// Size of the side file for the same
    #[arg(long, value_name = "SIZE", default_value = "0", value_parser = size)]
    preserve_side: u64,
    /// Where the side file goes [default: the relationship's directory]
    #[arg(long, value_name = "DIR")]
    side_dir: Option<PathBuf>,
    /// How long a writer waits for room
    #[arg(long, value_name = "TIME", default_value = "2s", value_parser = duration)]
    preserve_wait: Duration,
    /// And then?
    #[arg(long, value_enum, default_value_t)]
    preserve: Overflow,
    #[command(flatten)]
    freeze: FreezeFlags,
    /// Do not wait for the end
    #[arg(long)]
    background: bool,
    /// Take up the dump that was broken off
    #[arg(long, conflicts_with_all = ["to", "cancel"])]
    resume: bool,
    /// Stop the dump and remove what it wrote
    #[arg(long, conflicts_with = "to")]
    cancel: bool,
    /// Watch the running dump
    #[arg(long, conflicts_with_all = ["to", "cancel", "resume"])]
    watch: bool,
}

/// What happens without room to preserve.
#[derive(Clone, Copy, Debug, Default, ValueEnum)]
enum Overflow {
    /// The set becomes fuzzy: usable only after the first catch-up
    #[default]
    Fuzzy,
    /// Writers wait
    Throttle,
    /// The dump is given up
    Abort,
}

fn rate(text: &str) -> Result<u64, String> {
    parse_rate(text).map_err(|e| e.to_string())
}

impl Arguments {
    async fn for_agent(&self, verb: &Context) -> Result<DumpArguments, Problem> {
        let level = match self.compress.as_str() {
            "off" => None,
            text => Some(text.parse::<i32>().ok().filter(|l| (-5..=19).contains(l)).ok_or_else(
                || Problem::new("usage", format!("`{text}` is no zstd level"), Exit::USAGE),
            )?),
        };
        let mut to = Vec::new();
        for dir in &self.to {
            to.push(std::path::absolute(dir).map_err(|e| refused("usage", e.to_string()))?);
        }
        let passphrase = match &self.passphrase_file {
            None => None,
            Some(path) => Some(agent::passphrase_from(&verb.ctx, path).await?),
        };
        Ok(DumpArguments {
            to,
            recipients: self.recipients.clone(),
            passphrase,
            encrypt: !self.no_encryption,
            level,
            rate_bytes: self.rate.unwrap_or(0),
            segment_bytes: self.segment,
            buffer_bytes: self.preserve_buffer,
            side_bytes: self.preserve_side,
            side_dir: self.side_dir.clone(),
            preserve_wait_ms: self.preserve_wait.as_millis() as u64,
            preserve: match self.preserve {
                Overflow::Fuzzy => Preserve::Fuzzy,
                Overflow::Throttle => Preserve::Throttle,
                Overflow::Abort => Preserve::Abort,
            },
            freeze: self.freeze.arguments(),
            resume: self.resume,
        })
    }
}

/// Dumps.
pub async fn run(verb: Context, arguments: Arguments) -> Result<(), Problem> {
    if arguments.no_encryption {
        verb.printer.warn("whoever finds these media can read them");
    }
    if let Some(client) = reach::running(&verb.state, &arguments.name).await? {
        return through_agent(&verb, &arguments, &client).await;
    }
    if arguments.watch {
        return Err(refused("not-running", "no agent runs, and so no dump"));
    }
    // Nobody serves the volumes: this process is the agent for as long as the dump takes.
    let own = SourceOptions::default();
    let agent = SourceAgent::start(&verb.ctx, &verb.state, &arguments.name, own).await?;
    let outcome = if arguments.cancel {
        agent.cancel_dump().await.map(drop)
    } else {
        let begun = agent.begin_dump(arguments.for_agent(&verb).await?).await;
        match begun {
            Ok(_) => alone(&verb, &agent).await,
            Err(problem) => Err(problem),
        }
    };
    let stopped = agent.stop().await;
    outcome.and(stopped)
}

async fn through_agent(
    verb: &Context,
    arguments: &Arguments,
    client: &site::control::ControlClient,
) -> Result<(), Problem> {
    if arguments.cancel {
        let answer = reach::verb(client, "dump-cancel", &json!({})).await?;
        return cancelled(verb, &answer);
    }
    if !arguments.watch {
        let body = serde_json::to_value(arguments.for_agent(verb).await?).unwrap_or_default();
        let answer = reach::verb(client, "dump", &body).await?;
        if arguments.background {
            let set = answer.get("set").and_then(Value::as_str).unwrap_or_default();
            verb.printer.data(set, &answer);
            return Ok(());
        }
    }
    let progress = verb.printer.progress("dump", Some(0));
    let name = &arguments.name;
    let job = tokio::select! {
        biased;
        () = verb.shutdown.wait() => {
            progress.finish("goes on");
            verb.printer.note(&format!(
                "the dump goes on in the agent; `primary-agent dump {name} --watch` watches it, \
                 `primary-agent dump {name} --cancel` ends it"
            ));
            return Ok(());
        }
        job = reach::watch_job(client, |job, status| shown(&*progress, job, status)) => job?,
    };
    progress.finish(&job.stage);
    ended(verb, &job)
}

/// Watches the dump of this very process; asked to end, it leaves the dump to be resumed.
async fn alone(verb: &Context, agent: &std::rc::Rc<SourceAgent>) -> Result<(), Problem> {
    let progress = verb.printer.progress("dump", Some(0));
    loop {
        tokio::select! {
            biased;
            () = verb.shutdown.wait() => {
                progress.finish("interrupted");
                agent.interrupt_dump().await;
                verb.printer.note("interrupted; `dump NAME --resume` goes on, `--cancel` gives it up");
                return Ok(());
            }
            () = tokio::time::sleep(Duration::from_millis(200)) => {}
        }
        let status = agent.status();
        let Some(job) = status.job.clone() else { continue };
        shown(&*progress, &job, &status);
        if job.stage != "running" {
            progress.finish(&job.stage);
            return ended(verb, &job);
        }
    }
}

fn shown(progress: &dyn site::printer::Progress, job: &JobStatus, status: &Status) {
    let bytes = |grains: u64| grains.saturating_mul(status.grain_bytes);
    let mut extra = vec![("data", human_bytes(job.progress.bytes))];
    if job.preserved_grains > 0 {
        extra.push(("preserved", format!("{} grains", job.preserved_grains)));
    }
    if job.fuzzy {
        extra.push(("fuzzy", "no point in time before the first catch-up".to_owned()));
    }
    let total = Some(bytes(job.progress.total_grains));
    progress.update(bytes(job.progress.done_grains), total, &extra);
}

fn ended(verb: &Context, job: &JobStatus) -> Result<(), Problem> {
    if job.stage != "done" {
        let what = job.error.clone().unwrap_or_else(|| format!("the dump was {}", job.stage));
        return Err(Problem::new("dump", what, Exit::OPERATOR)
            .safe("The volumes are served as before; a set that is not finished is never loaded.")
            .todo("`dump NAME --resume` goes on, `dump NAME --cancel` gives it up."));
    }
    let took = human_duration(Duration::from_secs_f64(job.seconds.max(0.0)));
    let on_media: u64 = job.medium_bytes.iter().sum();
    let json = job.result.clone().unwrap_or_default();
    verb.printer.data(&job.set, &json);
    verb.printer.note(&format!(
        "{} read, {} on {} media in {took}{}",
        human_bytes(job.progress.bytes),
        human_bytes(on_media),
        job.media.len(),
        if job.fuzzy { "; fuzzy: no consistent image before the first catch-up" } else { "" }
    ));
    whole(&json)
}

/// A set that lacks grains is finished, and says so by its own exit code.
fn whole(result: &Value) -> Result<(), Problem> {
    let grains = result.get("unreadable_grains").and_then(Value::as_u64).unwrap_or(0);
    if grains == 0 {
        return Ok(());
    }
    let places = result.get("unreadable_places").and_then(Value::as_array);
    let places = places.into_iter().flatten().filter_map(Value::as_str);
    let places = places.collect::<Vec<_>>().join(", ");
    let what = format!("{grains} grains could not be read and are on no medium: {places}");
    Err(Problem::new("unreadable", what, Exit::UNREADABLE)
        .safe("The set is finished, signed and can be shipped; the replica shows these as missing.")
        .todo(
            "See to the disk, or have the application write these places anew; the replica pulls them \
             as soon as they can be read.",
        ))
}

fn cancelled(verb: &Context, answer: &Value) -> Result<(), Problem> {
    match answer.get("cancelled").and_then(Value::as_str) {
        Some(set) => verb.printer.data(set, answer),
        None => verb.printer.note("there is no dump to cancel"),
    }
    Ok(())
}
