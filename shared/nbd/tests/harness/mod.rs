//! What the integration tests share: a server on a Unix socket in a temporary directory, and real
//! clients run against it. A missing tool fails the test and says how to get it.

#![allow(dead_code)] // Each test binary uses a part of it.

use std::path::PathBuf;
use std::process::Output;
use std::rc::Rc;
use std::time::Duration;

use nbd::{Client, ConnectOptions, Export, Limits, MemoryExport, Server};
use tempfile::TempDir;

const INSTALL: &str = "apt-get install nbdkit libnbd-bin python3-libnbd qemu-utils fio openssl";

/// No client of these tests takes so long unless something hangs.
const HANG: Duration = Duration::from_secs(60);

/// A server of one export named `disk`.
pub struct Served {
    pub server: Server,
    pub directory: TempDir,
}

impl Served {
    pub async fn new(export: Rc<dyn Export>) -> Served {
        Served::with_limits(export, Limits::default()).await
    }

    pub async fn with_limits(export: Rc<dyn Export>, limits: Limits) -> Served {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let server =
            Server::new(vec![("disk".into(), export)], limits, None).expect("fine exports");
        let served = Served { server, directory };
        served.server.serve_unix(&served.socket()).await.expect("the socket is free");
        served
    }

    pub async fn memory(size_bytes: u64) -> (Served, Rc<MemoryExport>) {
        let export = Rc::new(MemoryExport::new(size_bytes));
        (Served::new(Rc::clone(&export) as Rc<dyn Export>).await, export)
    }

    pub fn socket(&self) -> PathBuf {
        self.directory.path().join("nbd.sock")
    }

    pub fn path(&self, name: &str) -> String {
        self.directory.path().join(name).display().to_string()
    }

    pub fn uri(&self) -> String {
        format!("nbd+unix:///disk?socket={}", self.socket().display())
    }

    pub async fn client(&self, options: &ConnectOptions) -> Client {
        Client::connect_unix(&self.socket(), options).await.expect("the server answers")
    }

    /// Runs a script in nbdsh with `h` connected to the export and `uri` set.
    pub async fn nbdsh(&self, script: &str) -> String {
        let connect = format!("uri = '{}'\n{script}", self.uri());
        run_tool("nbdsh", &["-c", &connect]).await
    }
}

/// Runs `test` on one thread with local tasks, and fails it when it hangs.
pub fn on_one_thread<T>(test: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.expect("a runtime");
    tokio::task::LocalSet::new().block_on(&runtime, async {
        tokio::time::timeout(HANG, test).await.expect("the test hangs")
    })
}

/// Runs a tool to its end, whatever that is.
pub async fn try_tool(tool: &str, arguments: &[&str]) -> Output {
    // nbdsh finds its Python module only with the system's Python.
    let output = tokio::process::Command::new(tool)
        .args(arguments)
        .env("PATH", "/usr/bin:/bin:/usr/sbin:/sbin")
        .env("LC_ALL", "C")
        .kill_on_drop(true)
        .output()
        .await;
    match output {
        Ok(output) => output,
        Err(error) => panic!("{tool} does not start ({error}); {INSTALL}"),
    }
}

/// Runs a tool that must succeed, and returns what it printed.
pub async fn run_tool(tool: &str, arguments: &[&str]) -> String {
    let output = try_tool(tool, arguments).await;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let (stdout, stderr) = (text(&output.stdout), text(&output.stderr));
    assert!(
        output.status.success(),
        "{tool} {arguments:?} failed ({}; is it installed? {INSTALL})\n{stdout}\n{stderr}",
        output.status
    );
    stdout
}

/// Bytes that compress to nothing special and repeat nowhere near.
pub fn noise(len: usize, seed: u64) -> Vec<u8> {
    let mut state = seed | 1;
    let step = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 32) as u8
    };
    std::iter::repeat_with(step).take(len).collect()
}
