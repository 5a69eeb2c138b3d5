//! A site at work in whatever role it has, and from one role to the other.

use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use disk::Context;
use replication::state::Role;
use site::location::{Name, StateDir};
use site::runtime::Shutdown;
use site::{Exit, Problem};

use crate::Relationship;
use crate::problem::of_relationship;
use crate::replica::{ReplicaAgent, ReplicaOptions};
use crate::source::{SourceAgent, SourceOptions};
use crate::status::Status;

/// How long the files of a role that has ended may still be open.
const LET_GO: Duration = Duration::from_secs(30);

/// How to serve in either role.
#[derive(Clone, Default)]
pub struct SiteOptions {
    /// As source.
    pub source: SourceOptions,
    /// As replica.
    pub replica: ReplicaOptions,
}

/// What a serving site tells while it comes up.
pub enum Told<'a> {
    /// It serves the volumes; peers dial these addresses.
    Source(&'a [SocketAddr]),
    /// It follows its source.
    Replica,
    /// A verdict in words, before anything moves.
    Verdict(&'a [String]),
    /// It has taken the other role.
    RoleChanged(Role),
}

/// How a role ended without an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RoleEnd {
    /// It was asked to, or has done what it was started for.
    Stopped,
    /// The site has the other role now.
    RoleChanged,
}

/// Serves until asked to stop; a replica that was started to come into step once returns when it is.
/// Gives the last status of a replica that ended so.
pub async fn serve(
    ctx: &Context,
    state: &StateDir,
    name: &Name,
    options: &SiteOptions,
    shutdown: &Shutdown,
    told: impl Fn(Told<'_>) + Clone + 'static,
) -> Result<Option<Status>, Problem> {
    loop {
        let found = Relationship::open(ctx, state, name).await.map_err(|e| of_relationship(&e))?;
        let role = found.store.with(|s| s.role);
        drop(found);
        let (end, status) = match role {
            Role::Source => {
                let options = options.source.clone();
                let agent = SourceAgent::start(ctx, state, name, options).await?;
                let ready = |addresses: &[SocketAddr]| told(Told::Source(addresses));
                let end = agent.serve(shutdown.clone(), ready).await?;
                let source = Rc::downgrade(agent.source());
                drop(agent);
                let_go(|| source.strong_count() == 0).await?;
                (end, None)
            }
            Role::Replica => {
                let options = options.replica.clone();
                let agent = ReplicaAgent::start(ctx, state, name, options).await?;
                let shown = told.clone();
                agent.show_verdicts(move |lines| shown(Told::Verdict(lines)));
                let end = agent.serve(shutdown.clone(), || told(Told::Replica)).await?;
                let status = agent.status();
                let replica = Rc::downgrade(agent.replica());
                drop(agent);
                let_go(|| replica.strong_count() == 0).await?;
                (end, Some(status))
            }
        };
        match end {
            RoleEnd::Stopped => return Ok(status),
            RoleEnd::RoleChanged => told(Told::RoleChanged(other(role))),
        }
    }
}

fn other(role: Role) -> Role {
    match role {
        Role::Source => Role::Replica,
        Role::Replica => Role::Source,
    }
}

/// Waits until the role that has ended holds no file any more: volumes are opened by one at a time.
async fn let_go(gone: impl Fn() -> bool) -> Result<(), Problem> {
    let waiting = async {
        while !gone() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(LET_GO, waiting).await.map_err(|_| {
        Problem::new("role", "the role that has ended does not let its files go", Exit::OPERATOR)
            .safe("The roles have changed; nothing is lost.")
            .todo("Start the agent again.")
    })
}
