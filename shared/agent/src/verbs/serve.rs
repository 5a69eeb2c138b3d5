//! `serve`: the daemon.

use replication::state::Role;
use site::location::Name;
use site::{Printer, Problem};

use super::Context;
use crate::flags::ServeFlags;
use crate::serve::{Told, serve};

/// Flags of `serve`.
#[derive(clap::Args)]
pub struct Arguments {
    /// Name of the relationship
    name: Name,
    #[command(flatten)]
    flags: ServeFlags,
}

/// Serves in whatever role the site has until asked to stop, or with `--once` until the replica is in
/// step.
pub async fn run(verb: Context, arguments: Arguments) -> Result<(), Problem> {
    let options = arguments.flags.options(&verb.ctx).await?;
    let (printer, name) = (verb.printer.clone(), arguments.name.clone());
    let unix = options.source.nbd.unix.clone();
    let told = move |told: Told<'_>| {
        if let (Told::Source(_), Some(path)) = (&told, &unix) {
            printer.note(&format!("NBD exports on {}", path.display()));
        }
        say(&printer, &name, &told);
    };
    let (ctx, state, shutdown) = (&verb.ctx, &verb.state, &verb.shutdown);
    let status = serve(ctx, state, &arguments.name, &options, shutdown, told).await?;
    if let Some(status) = status.filter(|_| arguments.flags.once()) {
        let cut = status.position.map(|p| p.cut).unwrap_or_default();
        let link_bytes: u64 = status.peers.iter().map(|p| p.link_bytes).sum();
        let json = serde_json::json!({ "in_step": cut, "link_bytes": link_bytes });
        verb.printer.data(&cut, &json);
    }
    Ok(())
}

fn say(printer: &Printer, name: &Name, told: &Told<'_>) {
    match told {
        Told::Source(addresses) => {
            for address in *addresses {
                printer.note(&format!("replicas dial {address}"));
            }
            printer.note(&format!("{name} is served"));
        }
        Told::Replica => printer.note(&format!("{name} follows its primary")),
        Told::Verdict(lines) => lines.iter().for_each(|line| printer.note(line)),
        Told::RoleChanged(Role::Source) => printer.note(&format!("{name} is the source now")),
        Told::RoleChanged(Role::Replica) => printer.note(&format!("{name} is a replica now")),
    }
}
