//! Serves one plain file over a Unix socket, with inline I/O: the least that an export can do.
//!
//! For measuring the connection loop against `nbdkit file` and `qemu-nbd`; `docs/nbd.md` has the
//! commands. Usage: `serve_file FILE SOCKET [BATCH]`.

use std::fs::File;
use std::io::IoSliceMut;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::rc::Rc;

use nbd::{BlockSizes, Command, Description, Errno, Export, Features, Limits, Reply, Server};
use rustix::io::ReadWriteFlags;

struct FileExport {
    file: File,
    size_bytes: u64,
}

impl FileExport {
    /// Reads from the page cache if all of it is there, else waits for the disk: an example has
    /// nobody else to serve meanwhile.
    fn read(&self, buf: &mut [u8], offset: u64) -> std::io::Result<()> {
        let mut slices = [IoSliceMut::new(buf)];
        match rustix::io::preadv2(&self.file, &mut slices, offset, ReadWriteFlags::NOWAIT) {
            Ok(count) if count == buf.len() => Ok(()),
            _ => self.file.read_exact_at(buf, offset),
        }
    }

    fn carry_out(&self, command: Command) -> std::io::Result<()> {
        match command {
            Command::Write { offset, data, fua } => {
                self.file.write_all_at(&data, offset)?;
                if fua { self.file.sync_data() } else { Ok(()) }
            }
            Command::Flush => self.file.sync_data(),
            _ => Err(std::io::ErrorKind::Unsupported.into()),
        }
    }
}

impl Export for FileExport {
    fn describe(&self) -> Description {
        Description {
            size_bytes: self.size_bytes,
            text: "a plain file".into(),
            read_only: false,
            blocks: BlockSizes::default(),
            features: Features { flush: true, fua: true, multi_conn: true, ..Features::default() },
            contexts: Vec::new(),
        }
    }

    fn submit(&self, command: Command, reply: Reply) {
        if let Command::Read { offset, .. } = command {
            let read = |buf: &mut [u8]| match self.read(buf, offset) {
                Ok(()) => Ok(true),
                Err(error) => Err(Errno::from(&error)),
            };
            return drop(reply.fill(read));
        }
        match self.carry_out(command) {
            Ok(()) => reply.done(),
            Err(error) => reply.error(Errno::from(&error)),
        }
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let (Some(path), Some(socket)) = (arguments.next(), arguments.next()) else {
        return Err("usage: serve_file FILE SOCKET [BATCH]".into());
    };
    let file = File::options().read(true).write(true).open(path)?;
    let size_bytes = file.metadata()?.len();
    let export: Rc<dyn Export> = Rc::new(FileExport { file, size_bytes });
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let mut limits = Limits::default();
    limits.batch = arguments.next().map_or(Ok(limits.batch), |text| text.parse())?;
    tokio::task::LocalSet::new().block_on(&runtime, async {
        let server = Server::new(vec![("file".into(), export)], limits, None)?;
        server.serve_unix(Path::new(&socket)).await?;
        std::future::pending::<()>().await;
        Ok(())
    })
}
