//! Our NBD server and our disk with nothing between them: no tracking, no gate, no relationship. What the
//! product is compared with to see what tracking costs. Usage: `untracked FILE SOCKET`.

use std::path::{Path, PathBuf};
use std::rc::Rc;

use disk::{File, OpenMode};
use nbd::{BlockSizes, Command, Description, Errno, Export, Features, Limits, Reply, Server};

struct Plain {
    file: Rc<dyn File>,
    bytes: u64,
}

impl Plain {
    /// Carries out what could not be done at once.
    fn later(&self, command: Command, reply: Reply) {
        let file = self.file.clone();
        tokio::task::spawn_local(async move {
            let outcome = match command {
                Command::Read { offset, len } => match file.read_at(offset, len as usize).await {
                    Ok(bytes) => return reply.data(bytes.into()),
                    Err(e) => Err(e),
                },
                Command::Write { offset, data, .. } => {
                    file.write_at(offset, data.into_bytes()).await
                }
                Command::Flush => file.sync_data().await,
                _ => Err(std::io::ErrorKind::Unsupported.into()),
            };
            match outcome {
                Ok(()) => reply.done(),
                Err(e) => reply.error_because(Errno::Io, &e.to_string()),
            }
        });
    }
}

impl Export for Plain {
    fn describe(&self) -> Description {
        Description {
            size_bytes: self.bytes,
            text: String::new(),
            read_only: false,
            blocks: BlockSizes::default(),
            features: Features { flush: true, multi_conn: true, ..Features::default() },
            contexts: Vec::new(),
        }
    }

    fn submit(&self, command: Command, reply: Reply) {
        let reply = match &command {
            Command::Read { offset, .. } => {
                let read = |buf: &mut [u8]| self.file.read_now(buf, *offset).map_err(|_| Errno::Io);
                match reply.fill(read) {
                    Ok(()) => return,
                    Err(reply) => reply,
                }
            }
            Command::Write { offset, data, .. } => match self.file.write_now(data, *offset) {
                Ok(true) => return reply.done(),
                Ok(false) => reply,
                Err(_) => return reply.error(Errno::Io),
            },
            _ => reply,
        };
        self.later(command, reply);
    }
}

async fn serve(file: &Path, socket: &Path) -> Result<(), String> {
    let context = disk::real::context();
    let opened = context.storage.open(file, OpenMode::Exclusive).await;
    let file = opened.map_err(|e| format!("{}: {e}", file.display()))?;
    let bytes = file.len().map_err(|e| e.to_string())?;
    let export: Rc<dyn Export> = Rc::new(Plain { file, bytes });
    let server = Server::new(vec![("disk".to_owned(), export)], Limits::default(), None);
    let server = server.map_err(|e| e.to_string())?;
    server.serve_unix(socket).await.map_err(|e| e.to_string())?;
    std::future::pending().await
}

fn main() -> Result<(), String> {
    let paths: Vec<PathBuf> = std::env::args_os().skip(1).map(PathBuf::from).collect();
    let [file, socket] = paths.as_slice() else {
        return Err("usage: untracked FILE SOCKET".into());
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|e| e.to_string())?;
    tokio::task::LocalSet::new().block_on(&runtime, serve(file, socket))
}
