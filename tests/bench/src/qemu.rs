//! QEMU's storage daemon: a raw file as an NBD export, alone or mirrored to a remote NBD server by a
//! `blockdev-mirror` job that holds each write back until both sides have it (`write-blocking`).
//!
//! The remote side is a `qemu-nbd` reached over TCP without TLS: each write is answered there when it is in
//! the page cache.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::process::Server;
use crate::product::free_port;

/// How long the first copy of a mirror may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// One daemon with one export.
pub struct Daemon {
    socket: PathBuf,
    _server: Server,
    /// The remote side, when it mirrors.
    _remote: Option<Server>,
}

impl Daemon {
    /// Serves `volume` on a socket named after `name` in `dir`; mirrored to `remote` if there is one.
    pub fn start(
        dir: &Path,
        name: &str,
        volume: &Path,
        remote: Option<&Path>,
    ) -> Result<Self, String> {
        let socket = dir.join(format!("{name}.socket"));
        let control = dir.join(format!("{name}.control"));
        let mut command = Command::new("qemu-storage-daemon");
        let file = format!("driver=file,node-name=file,filename={}", volume.display());
        command.args(["--blockdev", &file, "--blockdev", "driver=raw,node-name=disk,file=file"]);
        let remote = match remote {
            Some(volume) => {
                let (server, port) = serve_remote(dir, name, volume)?;
                command.arg("--blockdev");
                command.arg(format!(
                    "driver=nbd,node-name=remote,server.type=inet,server.host=127.0.0.1,server.port={port}"
                ));
                Some(server)
            }
            None => None,
        };
        command.arg("--nbd-server");
        command.arg(format!("addr.type=unix,addr.path={}", socket.display()));
        command.args(["--export", "type=nbd,id=export,node-name=disk,name=,writable=on"]);
        command.arg("--chardev");
        command.arg(format!("socket,id=control,path={},server=on,wait=off", control.display()));
        command.args(["--monitor", "chardev=control"]);
        let server = Server::start(&mut command, &socket)?;
        if remote.is_some() {
            Monitor::connect(&control)?.mirror()?;
        }
        Ok(Self { socket, _server: server, _remote: remote })
    }

    /// Where the export is.
    pub fn socket(&self) -> &Path {
        &self.socket
    }
}

fn serve_remote(dir: &Path, name: &str, volume: &Path) -> Result<(Server, u16), String> {
    let port = free_port()?;
    let mut command = Command::new("qemu-nbd");
    command.args(["--persistent", "--shared=8", "--format=raw", "--bind=127.0.0.1"]);
    command.arg(format!("--port={port}")).arg(volume);
    let is_up = || TcpStream::connect(("127.0.0.1", port)).is_ok();
    let log = dir.join(format!("{name}.remote.log"));
    Ok((Server::start_until(&mut command, log, is_up)?, port))
}

/// The daemon's control socket (QMP).
struct Monitor {
    lines: BufReader<UnixStream>,
}

impl Monitor {
    fn connect(path: &Path) -> Result<Self, String> {
        let stream = UnixStream::connect(path).map_err(|e| format!("{}: {e}", path.display()))?;
        let mut monitor = Self { lines: BufReader::new(stream) };
        monitor.ask("qmp_capabilities", json!({}))?;
        Ok(monitor)
    }

    /// One command and its answer; greetings and events before it are passed over.
    fn ask(&mut self, command: &str, arguments: Value) -> Result<Value, String> {
        let words = json!({ "execute": command, "arguments": arguments }).to_string();
        let failed = |e: std::io::Error| format!("{command}: {e}");
        self.lines.get_mut().write_all(words.as_bytes()).map_err(failed)?;
        loop {
            let mut line = String::new();
            if self.lines.read_line(&mut line).map_err(failed)? == 0 {
                return Err(format!("{command}: the daemon has ended"));
            }
            let answer: Value = serde_json::from_str(&line).map_err(|e| e.to_string())?;
            if let Some(error) = answer.get("error") {
                return Err(format!("{command}: {error}"));
            }
            if let Some(value) = answer.get("return") {
                return Ok(value.clone());
            }
        }
    }

    /// Starts the mirror and waits until both sides are the same.
    fn mirror(&mut self) -> Result<(), String> {
        let job = json!({
            "job-id": "mirror", "device": "disk", "target": "remote", "sync": "full",
            "copy-mode": "write-blocking",
        });
        self.ask("blockdev-mirror", job)?;
        let start = Instant::now();
        loop {
            let jobs = self.ask("query-block-jobs", json!({}))?;
            match &jobs[0]["ready"] {
                Value::Bool(true) => return Ok(()),
                Value::Bool(false) if start.elapsed() < PATIENCE => {}
                _ => return Err(format!("QEMU's mirror does not come up: {jobs}")),
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}
