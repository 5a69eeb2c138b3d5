//! Requests on the control socket, as raw bytes over a Unix socket. Whatever is sent, the server goes on:
//! the next client gets its status.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use site::Problem;
use site::control::{ControlLimits, ControlRequest, ControlServer, Snapshot};
use tokio::sync::mpsc;

use crate::{Allocation, Target};

/// This target.
pub const TARGET: Target = Target {
    name: "control",
    run,
    seeds,
    // Buffers of two connections, each up to about 400 KiB for headers; bodies as long as they come.
    allocation: Allocation { constant_bytes: 2 << 20, per_byte: 256 },
};

fn run(data: &[u8]) {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("control.sock");
    let snapshot = Arc::new(Snapshot::new());
    snapshot.publish(json!({ "role": "source" }), BTreeMap::from([("job-1".into(), json!({}))]));
    let limits = ControlLimits {
        request: Duration::from_secs(5),
        answer: Duration::from_secs(5),
        event: Duration::ZERO,
        connections: 4,
    };
    let (commands, requests) = mpsc::channel(4);
    let server = ControlServer::start(&path, snapshot, commands, limits).expect("a server");
    let verbs = std::thread::spawn(move || answer(requests));
    drop(exchange(&path, data, true));
    let request = b"GET /v1/status HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";
    let status = exchange(&path, request, false);
    assert!(status.starts_with(b"HTTP/1.1 200"), "no status after a hostile request");
    drop(server);
    verbs.join().expect("no verb panics");
}

/// Answers each verb by its name until the server has gone.
fn answer(mut requests: mpsc::Receiver<ControlRequest>) {
    while let Some(ControlRequest { verb, body, answer }) = requests.blocking_recv() {
        let known: Result<Value, Problem> = Ok(json!({ "verb": verb, "body": body }));
        // The client may have gone.
        drop(answer.send(known));
    }
}

/// A client that hangs up when it has spoken may get no answer.
fn exchange(path: &Path, request: &[u8], hangs_up: bool) -> Vec<u8> {
    let mut stream = UnixStream::connect(path).expect("the server listens");
    stream.set_read_timeout(Some(Duration::from_secs(20))).expect("a timeout");
    // It may hang up before it has read everything.
    drop(stream.write_all(request));
    if hangs_up {
        drop(stream.shutdown(Shutdown::Write));
    }
    let (mut answer, mut piece) = (Vec::new(), [0; 4096]);
    loop {
        match stream.read(&mut piece) {
            Ok(0) => return answer,
            Ok(len) => answer.extend_from_slice(&piece[..len]),
            Err(e) => {
                assert_ne!(e.kind(), std::io::ErrorKind::WouldBlock, "the server hangs");
                return answer;
            }
        }
    }
}

fn seeds() -> Vec<(String, Vec<u8>)> {
    let get = |name: &str, target: &str| {
        (name.to_owned(), format!("GET {target} HTTP/1.1\r\nhost: x\r\n\r\n").into_bytes())
    };
    let post = |name: &str, body: &str| {
        let head = "POST /v1/verbs/dump HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n";
        let text = format!("{head}content-length: {}\r\n\r\n{body}", body.len());
        (name.to_owned(), text.into_bytes())
    };
    let chunked = "POST /v1/verbs/x HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n";
    let chunked = format!("{chunked}4\r\nnull\r\n0\r\n\r\n").into_bytes();
    vec![
        get("status", "/v1/status"),
        get("jobs", "/v1/jobs"),
        get("job", "/v1/jobs/job-1"),
        get("events", "/v1/events?after=0&wait_ms=18446744073709551615"),
        get("unknown", "/v2/%ff?x"),
        post("verb", "{\"to\":[\"/mnt/a\"]}"),
        post("deep", &format!("{}{}", "[".repeat(500), "]".repeat(500))),
        ("chunked".into(), chunked),
        ("no-http".into(), b"\x16\x03\x01 no http\r\n\r\n".to_vec()),
    ]
}
