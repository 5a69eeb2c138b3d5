//! Views of a replica that are open: exported over NBD, looked after, reported on.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::path::Path;
use std::rc::Rc;

use replication::replica::{Drill, Writable};
use serde::Deserialize;
use serde_json::{Value, json};
use site::Problem;
use tokio::time::Instant;

use super::ReplicaAgent;
use crate::past::{
    ExportArguments, LEASE, PastStatus, PointShown, PointsAnswer, ViewStatus, thinned,
};
use crate::problem::{nbd_problem, of_replication, refused};

/// The most views at a time.
const MOST: usize = 16;

/// See the module's text.
#[derive(Default)]
pub(super) struct Views {
    next: Cell<u32>,
    open: RefCell<BTreeMap<u32, Open>>,
}

struct Open {
    drill: Drill,
    server: nbd::Server,
    /// What stays as it is.
    told: ViewStatus,
    /// When somebody last asked for it; none in the background.
    asked: Option<Instant>,
}

/// Which view.
#[derive(Clone, Copy, Debug, Deserialize)]
pub(super) struct Which {
    id: u32,
}

/// Which points.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
pub(super) struct PointsArguments {
    #[serde(default)]
    all: bool,
}

impl Open {
    fn status(&self) -> ViewStatus {
        let counts = self.drill.counts();
        ViewStatus {
            reads: counts.reads.get(),
            read_bytes: counts.read_bytes.get(),
            writes: counts.writes.get(),
            written_bytes: counts.written_bytes.get(),
            overlay_bytes: self.drill.overlay_bytes(),
            errors: counts.errors.get(),
            ended: self.drill.ended(),
            ..self.told.clone()
        }
    }
}

impl ReplicaAgent {
    /// The points that one can go back to.
    pub(super) fn points(&self, arguments: PointsArguments) -> Value {
        let now_unix_ms = self.ctx.unix_ms();
        let points = self.replica.points();
        let total = points.len() as u64;
        let shown = if arguments.all { points } else { thinned(points, now_unix_ms) };
        let points = shown.into_iter().map(PointShown::from).collect();
        json!(PointsAnswer { points, total, now_unix_ms })
    }

    /// What status says of the past.
    pub(super) fn past(&self) -> Option<PastStatus> {
        let history = self.replica.history_status();
        let views: Vec<_> = self.views.open.borrow().values().map(Open::status).collect();
        let shown = history.kept || history.ended.is_some() || !views.is_empty();
        shown.then_some(PastStatus {
            points: history.points,
            oldest_unix_ms: history.oldest_unix_ms,
            bytes: history.bytes,
            ended: history.ended,
            views,
        })
    }

    /// Opens a view and offers it.
    pub(super) async fn export(self: &Rc<Self>, asked: ExportArguments) -> Result<Value, Problem> {
        let (begun, opened_unix_ms) = (Instant::now(), self.ctx.unix_ms());
        if self.views.open.borrow().len() >= MOST {
            return Err(refused("views", format!("{MOST} views are open already"))
                .todo("End one: `export NAME --end ID`; `status` lists them."));
        }
        let at = asked.at.at().map_err(|e| refused("at", e))?;
        let view = self.replica.view(&at).await.map_err(|e| of_replication(&e))?;
        let dir = self.relationship.dir.path().to_owned();
        let writable = asked.writable.then_some(Writable { dir, most_bytes: asked.overlay_bytes });
        let drill = Drill::new(view, writable).await.map_err(|e| of_replication(&e))?;
        let server = match self.offer(&drill, &asked.socket).await {
            Ok(server) => server,
            Err(problem) => {
                drill.close().await;
                return Err(problem);
            }
        };
        let id = self.views.next.get() + 1;
        self.views.next.set(id);
        let exports = drill.exports().into_iter().map(|(name, _)| name).collect();
        let mut told = ViewStatus {
            id,
            socket: asked.socket.display().to_string(),
            exports,
            writable: asked.writable,
            opened_unix_ms,
            ready_us: begun.elapsed().as_micros() as u64,
            ..ViewStatus::default()
        };
        told.show(drill.seen());
        let cut = told.label.clone().unwrap_or_else(|| told.cut.clone());
        self.events.note(format!("view {id} is open: {cut}"));
        let answer = json!(told);
        let asked = (!asked.background).then(Instant::now);
        self.views.open.borrow_mut().insert(id, Open { drill, server, told, asked });
        self.spawn_keeper(id);
        Ok(answer)
    }

    async fn offer(&self, drill: &Drill, socket: &Path) -> Result<nbd::Server, Problem> {
        let limits = nbd::Limits::default();
        let server = nbd::Server::new(drill.exports(), limits, None);
        let server = server.map_err(|e| nbd_problem(&e))?;
        server.serve_unix(socket).await.map_err(|e| nbd_problem(&e))?;
        Ok(server)
    }

    /// Ends a view that nobody asks for any more.
    fn spawn_keeper(self: &Rc<Self>, id: u32) {
        let agent = Rc::downgrade(self);
        tokio::task::spawn_local(async move {
            loop {
                tokio::time::sleep(LEASE / 6).await;
                let Some(agent) = agent.upgrade() else { return };
                let left = {
                    let open = agent.views.open.borrow();
                    let Some(view) = open.get(&id) else { return };
                    view.asked.is_some_and(|asked| asked.elapsed() > LEASE)
                };
                if left {
                    agent.events.note(format!("view {id}: nobody asks for it any more"));
                    drop(agent.end_view(Which { id }).await);
                    return;
                }
            }
        });
    }

    /// How a view is used; whoever asks keeps it open.
    pub(super) fn look_at_view(&self, which: Which) -> Result<Value, Problem> {
        let mut open = self.views.open.borrow_mut();
        let view = open.get_mut(&which.id).ok_or_else(|| no_view(which.id))?;
        if view.asked.is_some() {
            view.asked = Some(Instant::now());
        }
        Ok(json!(view.status()))
    }

    /// Ends a view: its socket goes, and what was written. Gives the report.
    pub(super) async fn end_view(&self, which: Which) -> Result<Value, Problem> {
        let found = self.views.open.borrow_mut().remove(&which.id);
        let open = found.ok_or_else(|| no_view(which.id))?;
        open.server.shutdown().await;
        let mut report = open.status();
        report.ended_unix_ms = Some(self.ctx.unix_ms());
        report.ended.get_or_insert_with(|| "it was ended".to_owned());
        drop(open.server);
        open.drill.close().await;
        self.events.note(format!("view {} has ended", which.id));
        Ok(json!(report))
    }

    /// The agent stops.
    pub(super) async fn end_views(&self) {
        loop {
            let next = self.views.open.borrow().keys().next().copied();
            let Some(id) = next else { return };
            drop(self.end_view(Which { id }).await);
        }
    }
}

fn no_view(id: u32) -> Problem {
    refused("view", format!("no view {id} is open")).todo("`status` lists those that are.")
}
