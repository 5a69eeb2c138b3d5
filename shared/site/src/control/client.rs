//! [`ControlClient`]: how a verb asks the running process.

use std::fmt::Display;
use std::future::Future;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1;
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::UnixStream;
use tokio::time::timeout;

use super::{MAX_BODY, socket};
use crate::{Error, Problem, Result};

/// How long the process may take to accept a connection.
const CONNECT_LIMIT: Duration = Duration::from_secs(5);
/// How long it may take to answer from what it published.
const READ_LIMIT: Duration = Duration::from_secs(10);
/// How long a verb may take; the server gives up earlier and says so.
const VERB_LIMIT: Duration = Duration::from_secs(70);

/// A client of one control socket. Each request has a connection of its own.
#[derive(Clone, Debug)]
pub struct ControlClient {
    path: PathBuf,
}

impl ControlClient {
    /// A client of the socket at `path`. Connects to nothing yet.
    pub fn new(path: impl Into<PathBuf>) -> ControlClient {
        ControlClient { path: path.into() }
    }

    /// The socket.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// `{age_ms, status}`.
    pub async fn status(&self) -> Result<Value> {
        self.request(Method::GET, "/v1/status", None, READ_LIMIT).await
    }

    /// `{age_ms, jobs}`.
    pub async fn jobs(&self) -> Result<Value> {
        self.request(Method::GET, "/v1/jobs", None, READ_LIMIT).await
    }

    /// `{age_ms, job}`.
    pub async fn job(&self, id: &str) -> Result<Value> {
        self.request(Method::GET, &format!("/v1/jobs/{}", plain(id)), None, READ_LIMIT).await
    }

    /// `{events, next}` after number `after`, waiting up to `wait` for the first.
    pub async fn events(&self, after: u64, wait: Duration) -> Result<Value> {
        let target = format!("/v1/events?after={after}&wait_ms={}", wait.as_millis());
        self.request(Method::GET, &target, None, wait + READ_LIMIT).await
    }

    /// Sends a verb and waits for its answer.
    pub async fn verb(&self, name: &str, body: &Value) -> Result<Value> {
        let target = format!("/v1/verbs/{}", plain(name));
        self.request(Method::POST, &target, Some(body), VERB_LIMIT).await
    }

    async fn request(
        &self,
        method: Method,
        target: &str,
        body: Option<&Value>,
        limit: Duration,
    ) -> Result<Value> {
        let stream = within(CONNECT_LIMIT, socket::connect(&self.path)).await?;
        let stream = stream.map_err(|error| self.connect_error(error))?;
        let body = Full::new(Bytes::from(body.map(Value::to_string).unwrap_or_default()));
        let request = Request::builder()
            .method(method)
            .uri(target)
            .header("host", "grainhaul")
            .header("content-type", "application/json")
            .body(body)
            .map_err(odd)?;
        let (status, body) = within(limit, exchange(stream, request)).await??;
        self.understand(status, &body)
    }

    fn understand(&self, status: StatusCode, body: &[u8]) -> Result<Value> {
        let odd = |error: serde_json::Error| Error::ControlProtocol(format!("{status}: {error}"));
        if status.is_success() {
            return serde_json::from_slice(body).map_err(odd);
        }
        let problem: Problem = serde_json::from_slice(body).map_err(odd)?;
        if status == StatusCode::FORBIDDEN {
            return Err(Error::ControlRefused { path: self.path.clone(), reason: problem.what });
        }
        Err(Error::Answered(Box::new(problem)))
    }

    fn connect_error(&self, error: io::Error) -> Error {
        match error.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => {
                Error::NotRunning(self.path.clone())
            }
            io::ErrorKind::PermissionDenied => {
                Error::ControlRefused { path: self.path.clone(), reason: error.to_string() }
            }
            _ => Error::io("connect to", &self.path)(error),
        }
    }
}

/// One request and its answer over a fresh connection.
async fn exchange(
    stream: UnixStream,
    request: Request<Full<Bytes>>,
) -> Result<(StatusCode, Bytes)> {
    let (mut send, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(odd)?;
    let exchange = async {
        let answer = send.send_request(request).await.map_err(odd)?;
        let status = answer.status();
        let body = Limited::new(answer.into_body(), MAX_BODY).collect().await.map_err(odd)?;
        Ok((status, body.to_bytes()))
    };
    tokio::pin!(exchange);
    tokio::select! {
        biased;
        answer = &mut exchange => answer,
        // The connection ended; what came is still with the exchange.
        _ = connection => exchange.await,
    }
}

fn odd(error: impl Display) -> Error {
    Error::ControlProtocol(error.to_string())
}

async fn within<T>(limit: Duration, work: impl Future<Output = T>) -> Result<T> {
    timeout(limit, work).await.map_err(|_| Error::ControlTimeout(limit))
}

/// Keeps what may stand in a URL as it is; anything else cannot be a name of ours.
fn plain(name: &str) -> String {
    let good = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    name.chars().map(|c| if good(c) { c } else { '_' }).collect()
}
