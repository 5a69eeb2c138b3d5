//! `status`.

use site::Problem;
use site::location::Name;

use super::Context;

/// Flags of `status`.
#[derive(clap::Args)]
pub struct Arguments {
    /// Name of the relationship
    name: Name,
}

/// Shows the status.
pub async fn run(verb: Context, arguments: Arguments) -> Result<(), Problem> {
    let status = crate::reach::status(&verb.ctx, &verb.state, &arguments.name).await?;
    crate::show::status(&verb.printer, &status);
    Ok(())
}
