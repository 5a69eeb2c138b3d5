//! [`ControlServer`]: the thread that answers on the control socket.

use std::convert::Infallible;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{Path as UrlPath, Query, Request, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Json, Response};
use axum::routing::{get, post};
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use serde::Deserialize;
use serde_json::Value;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::time::{sleep, timeout};

use super::{ControlRequest, MAX_BODY, Snapshot, peer, socket};
use crate::printer::Exit;
use crate::{Error, Problem, Result};

/// What the server grants.
#[derive(Clone, Copy, Debug)]
pub struct ControlLimits {
    /// For a client to send its request.
    pub request: Duration,
    /// For the relationship's thread to answer a verb.
    pub answer: Duration,
    /// The longest wait for an event.
    pub event: Duration,
    /// Connections at the same time.
    pub connections: usize,
}

impl Default for ControlLimits {
    fn default() -> Self {
        ControlLimits {
            request: Duration::from_secs(10),
            answer: Duration::from_secs(60),
            event: Duration::from_secs(30),
            connections: 64,
        }
    }
}

/// Serves the control socket until it is dropped, see [`super`].
#[derive(Debug)]
pub struct ControlServer {
    path: PathBuf,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

/// What the handlers share.
#[derive(Clone)]
struct Shared {
    snapshot: Arc<Snapshot>,
    commands: mpsc::Sender<ControlRequest>,
    limits: ControlLimits,
}

impl ControlServer {
    /// Starts the thread. The caller holds the relationship's lock: what is left over of a socket at
    /// `path` is taken away.
    pub fn start(
        path: &Path,
        snapshot: Arc<Snapshot>,
        commands: mpsc::Sender<ControlRequest>,
        limits: ControlLimits,
    ) -> Result<ControlServer> {
        let failed = |error| Error::io("listen on", path)(error);
        let listener = socket::listen(path).map_err(failed)?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(failed)?;
        let (stop, stopped) = oneshot::channel();
        let shared = Shared { snapshot, commands, limits };
        let work = move || {
            runtime.block_on(async {
                match UnixListener::from_std(listener) {
                    Ok(listener) => tokio::select! {
                        biased;
                        // Dropping the server counts as well as a word from it.
                        _ = stopped => {}
                        () = serve(listener, shared) => {}
                    },
                    Err(error) => tracing::error!(%error, "the control socket cannot be served"),
                }
            });
            runtime.shutdown_background();
        };
        let thread = std::thread::Builder::new().name("grainhaul-control".to_owned()).spawn(work);
        let thread = thread.map_err(failed)?;
        Ok(ControlServer { path: path.to_owned(), stop: Some(stop), thread: Some(thread) })
    }
}

impl Drop for ControlServer {
    fn drop(&mut self) {
        self.stop.take();
        if let Some(thread) = self.thread.take() {
            // Its panic was reported when it happened.
            drop(thread.join());
        }
        // The lock is still held by the caller, so this is our socket. One that stays is harmless.
        drop(std::fs::remove_file(&self.path));
    }
}

async fn serve(listener: UnixListener, shared: Shared) {
    let places = Arc::new(Semaphore::new(shared.limits.connections));
    let limits = shared.limits;
    let routes = router(shared);
    loop {
        // A place first: those who come beyond the limit wait in the kernel's queue.
        let Ok(place) = places.clone().acquire_owned().await else { return };
        match listener.accept().await {
            Ok((stream, _)) => {
                let routes = routes.clone();
                tokio::spawn(async move {
                    connection(stream, routes, limits).await;
                    drop(place);
                });
            }
            Err(error) => {
                // Out of descriptors or memory: time may help, a busy loop does not.
                tracing::warn!(%error, "cannot accept on the control socket");
                sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

async fn connection(stream: UnixStream, routes: Router, limits: ControlLimits) {
    let refused = peer::refusal(&stream);
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(limits.request);
    let stream = TokioIo::new(stream);
    let ended = match refused {
        None => http.serve_connection(stream, TowerToHyperService::new(routes)).await,
        Some(reason) => {
            tracing::warn!(reason, "refused on the control socket");
            let refuse = hyper::service::service_fn(move |_| {
                let problem = Problem::new("control-refused", reason.clone(), Exit::OPERATOR);
                let answer = (StatusCode::FORBIDDEN, Json(problem)).into_response();
                std::future::ready(Ok::<_, Infallible>(answer))
            });
            http.serve_connection(stream, refuse).await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection to the control socket ended");
    }
}

fn router(shared: Shared) -> Router {
    Router::new()
        .route("/v1/status", get(status))
        .route("/v1/jobs", get(jobs))
        .route("/v1/jobs/{id}", get(job))
        .route("/v1/events", get(events))
        .route("/v1/verbs/{name}", post(verb))
        .fallback(unknown)
        .method_not_allowed_fallback(unknown)
        .with_state(shared)
}

/// An answer, or a problem with its HTTP status.
type Answer = Result<Json<Value>, Response>;

fn problem(problem: Problem) -> Response {
    let status = match problem.exit {
        Exit::USAGE => StatusCode::BAD_REQUEST,
        Exit::RETRY => StatusCode::SERVICE_UNAVAILABLE,
        Exit::PEER => StatusCode::BAD_GATEWAY,
        Exit::BUG | Exit::CORRUPT => StatusCode::INTERNAL_SERVER_ERROR,
        _ => StatusCode::CONFLICT,
    };
    (status, Json(problem)).into_response()
}

fn starting() -> Response {
    problem(
        Problem::new("starting", "the process is starting and has no status yet", Exit::RETRY)
            .todo("Ask again in a moment."),
    )
}

async fn status(State(shared): State<Shared>) -> Answer {
    shared.snapshot.status().map(Json).ok_or_else(starting)
}

async fn jobs(State(shared): State<Shared>) -> Answer {
    shared.snapshot.jobs().map(Json).ok_or_else(starting)
}

async fn job(State(shared): State<Shared>, UrlPath(id): UrlPath<String>) -> Answer {
    if let Some(job) = shared.snapshot.job(&id) {
        return Ok(Json(job));
    }
    let what = format!("there is no job `{id}`");
    let problem = Problem::new("no-such-job", what, Exit::OPERATOR);
    Err((StatusCode::NOT_FOUND, Json(problem)).into_response())
}

#[derive(Deserialize)]
struct EventQuery {
    #[serde(default)]
    after: u64,
    #[serde(default)]
    wait_ms: u64,
}

async fn events(State(shared): State<Shared>, Query(query): Query<EventQuery>) -> Json<Value> {
    let wait = Duration::from_millis(query.wait_ms).min(shared.limits.event);
    shared.snapshot.wait_event(query.after, wait).await;
    Json(shared.snapshot.events(query.after))
}

async fn verb(
    State(shared): State<Shared>,
    UrlPath(verb): UrlPath<String>,
    request: Request,
) -> Answer {
    let usage = |what: String| problem(Problem::new("bad-request", what, Exit::USAGE));
    let body = timeout(shared.limits.request, read(request.into_body())).await;
    let body = body.map_err(|_| usage("the request did not come in time".to_owned()))?;
    let body = body.map_err(usage)?;
    let (answer, answered) = oneshot::channel();
    let request = ControlRequest { verb: verb.clone(), body, answer };
    if shared.commands.try_send(request).is_err() {
        let what = "the process is too busy, or ending, to take a verb";
        return Err(problem(Problem::new("busy", what, Exit::RETRY).safe("Nothing was changed.")));
    }
    match timeout(shared.limits.answer, answered).await {
        Ok(Ok(Ok(value))) => Ok(Json(value)),
        Ok(Ok(Err(refused))) => Err(problem(refused)),
        Ok(Err(_)) => Err(problem(Problem::bug(format!("the verb `{verb}` was dropped")))),
        Err(_) => {
            let after = shared.limits.answer.as_secs();
            let what = format!("`{verb}` was not answered within {after} s");
            let late = Problem::new("late", what, Exit::RETRY)
                .safe("The process goes on; the verb may still be carried out.")
                .todo("Look at `status`, then try again.");
            Err(problem(late))
        }
    }
}

/// The JSON of a body; none is `null`.
async fn read(body: Body) -> Result<Value, String> {
    let bytes = axum::body::to_bytes(body, MAX_BODY).await;
    let bytes = bytes.map_err(|error| format!("the request cannot be read: {error}"))?;
    if bytes.is_empty() {
        return Ok(Value::Null);
    }
    serde_json::from_slice(&bytes).map_err(|error| format!("the request is no JSON: {error}"))
}

async fn unknown(request: Request) -> Response {
    let what = format!("there is no {} {}", request.method(), request.uri().path());
    let problem = Problem::new("no-such-request", what, Exit::USAGE);
    (StatusCode::NOT_FOUND, Json(problem)).into_response()
}
