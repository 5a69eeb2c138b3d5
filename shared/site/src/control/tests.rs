//! Client and server over real sockets.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream as StdStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use tokio::sync::mpsc;

use super::*;
use crate::{Error, Exit};

struct Rig {
    _dir: tempfile::TempDir,
    path: PathBuf,
    snapshot: Arc<Snapshot>,
    commands: mpsc::Receiver<ControlRequest>,
    server: ControlServer,
    client: ControlClient,
}

fn rig_below(below: &str, limits: ControlLimits) -> Rig {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join(below);
    std::fs::create_dir_all(&folder).unwrap();
    let path = folder.join("control.sock");
    let snapshot = Arc::new(Snapshot::new());
    let (send, commands) = mpsc::channel(2);
    let server = ControlServer::start(&path, snapshot.clone(), send, limits).unwrap();
    let client = ControlClient::new(&path);
    Rig { _dir: dir, path, snapshot, commands, server, client }
}

fn rig() -> Rig {
    rig_below("", ControlLimits::default())
}

fn raw(path: &Path, request: &[u8]) -> String {
    let mut stream = StdStream::connect(path).unwrap();
    stream.write_all(request).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

#[tokio::test]
async fn status_is_what_was_published_and_its_age() {
    let rig = rig();
    let mode = std::fs::metadata(&rig.path).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let Err(Error::Answered(early)) = rig.client.status().await else { panic!("no status yet") };
    assert_eq!((early.code.as_str(), early.exit), ("starting", Exit::RETRY));
    let jobs = BTreeMap::from([("dump-1".to_owned(), json!({ "bytes": 5 }))]);
    rig.snapshot.publish(json!({ "role": "source" }), jobs);
    let status = rig.client.status().await.unwrap();
    assert_eq!(status["status"], json!({ "role": "source" }));
    assert!(status["age_ms"].is_u64());
    assert_eq!(rig.client.job("dump-1").await.unwrap()["job"]["bytes"], 5);
    assert!(rig.client.jobs().await.unwrap()["jobs"]["dump-1"].is_object());
    let error = rig.client.job("dump-2").await.unwrap_err();
    assert_eq!(error.code(), "no-such-job");
}

#[tokio::test]
async fn verbs_reach_the_thread_and_its_answers_come_back() {
    let mut rig = rig();
    let client = rig.client.clone();
    let asked = tokio::spawn(async move { client.verb("dump", &json!({ "to": ["/a"] })).await });
    let request = rig.commands.recv().await.unwrap();
    assert_eq!((request.verb.as_str(), &request.body["to"][0]), ("dump", &json!("/a")));
    request.answer.send(Ok(json!({ "job": "dump-1" }))).unwrap();
    assert_eq!(asked.await.unwrap().unwrap(), json!({ "job": "dump-1" }));

    let client = rig.client.clone();
    let asked = tokio::spawn(async move { client.verb("promote", &json!(null)).await });
    let request = rig.commands.recv().await.unwrap();
    let refused = Problem::new("no-source", "two replicas", Exit(13)).safe("All.").todo("Wait.");
    request.answer.send(Err(refused.clone())).unwrap();
    let error = asked.await.unwrap().unwrap_err();
    assert_eq!(Problem::from(&error), refused);

    let client = rig.client.clone();
    let asked = tokio::spawn(async move { client.verb("dump", &json!(null)).await });
    drop(rig.commands.recv().await.unwrap());
    assert_eq!(asked.await.unwrap().unwrap_err().code(), "bug");
}

#[tokio::test]
async fn status_answers_while_verbs_are_stuck() {
    let answer = Duration::from_millis(50);
    let rig = rig_below("", ControlLimits { answer, ..Default::default() });
    rig.snapshot.publish(json!(1), BTreeMap::new());
    // Nobody takes the verbs: two wait in the queue, the third finds it full.
    for _ in 0..2 {
        assert_eq!(rig.client.verb("x", &json!(null)).await.unwrap_err().code(), "late");
    }
    assert_eq!(rig.client.verb("x", &json!(null)).await.unwrap_err().code(), "busy");
    assert_eq!(rig.client.status().await.unwrap()["status"], 1);
}

#[tokio::test]
async fn events_are_numbered_and_can_be_waited_for() {
    let rig = rig();
    assert_eq!(rig.snapshot.event(7, "cut", json!({ "id": 1 })), 1);
    let all = rig.client.events(0, Duration::ZERO).await.unwrap();
    let first = json!({ "number": 1, "unix_ms": 7, "kind": "cut", "body": { "id": 1 } });
    assert_eq!(all, json!({ "events": [first], "next": 1 }));
    let client = rig.client.clone();
    let waits = tokio::spawn(async move { client.events(1, Duration::from_secs(60)).await });
    // Before or after the request arrives: it is told in both cases.
    rig.snapshot.event(8, "cut", json!(null));
    assert_eq!(waits.await.unwrap().unwrap()["events"][0]["number"], 2);
    for _ in 0..3000 {
        rig.snapshot.event(9, "x", json!(null));
    }
    let kept = rig.client.events(0, Duration::ZERO).await.unwrap();
    assert_eq!(kept["events"].as_array().unwrap().len(), 1024);
    assert_eq!(kept["next"], 3002);
}

#[tokio::test]
async fn a_path_too_long_for_the_kernel_works() {
    let below = format!("{}/{}", "x".repeat(120), "y".repeat(120));
    let rig = rig_below(&below, ControlLimits::default());
    rig.snapshot.publish(json!("far"), BTreeMap::new());
    assert_eq!(rig.client.status().await.unwrap()["status"], "far");
    drop(rig.server);
    assert!(!rig.path.exists());
}

#[tokio::test]
async fn nothing_running_is_told_from_something_odd() {
    let rig = rig();
    let path = rig.path.clone();
    drop(rig.server);
    assert!(matches!(rig.client.status().await, Err(Error::NotRunning(_))));
    // A socket that a killed process left behind.
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    assert!(matches!(rig.client.status().await, Err(Error::NotRunning(_))));
    let (send, _receive) = mpsc::channel(1);
    let limits = ControlLimits::default();
    let server = ControlServer::start(&path, rig.snapshot.clone(), send, limits).unwrap();
    rig.snapshot.publish(json!(1), BTreeMap::new());
    assert!(rig.client.status().await.is_ok());
    drop(server);
    // What is no socket is never removed.
    std::fs::write(&path, "precious").unwrap();
    let (send, _receive) = mpsc::channel(1);
    assert!(ControlServer::start(&path, rig.snapshot.clone(), send, limits).is_err());
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "precious");
}

#[test]
fn odd_requests_are_answered_as_problems() {
    let request = Duration::from_millis(50);
    let rig = rig_below("", ControlLimits { request, ..Default::default() });
    let get = |target: &str| {
        let head = format!("GET {target} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
        raw(&rig.path, head.as_bytes())
    };
    assert!(get("/v2/status").contains("no-such-request"));
    assert!(get("/v1/verbs/dump").contains("no-such-request"));
    assert!(get("/v1/events?after=minus").starts_with("HTTP/1.1 400"));
    let post = |length: usize, body: &str| {
        let head = "POST /v1/verbs/x HTTP/1.1\r\nhost: x\r\nconnection: close\r\n";
        raw(&rig.path, format!("{head}content-length: {length}\r\n\r\n{body}").as_bytes())
    };
    assert!(post(3, "{a}").contains("is no JSON"));
    assert!(post(MAX_BODY + 1, "").contains("bad-request"));
    // A body that never comes ends in time, and so does a header.
    assert!(post(10, "").contains("did not come in time"));
    raw(&rig.path, b"GET /v1/sta");
    raw(&rig.path, b"\x16\x03\x01 no http at all\r\n\r\n");
}
