//! Listening sockets: the Unix socket's file, and which TCP addresses are allowed.

use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::{Path, PathBuf};

use tokio::net::{TcpListener, UnixListener, UnixStream};

use crate::Error;

/// A bound Unix socket; its file is removed with it.
pub(crate) struct UnixSocket {
    pub(crate) listener: UnixListener,
    path: PathBuf,
    /// Device and inode of the file that we made, so that another's is left alone.
    file: Option<(u64, u64)>,
}

impl UnixSocket {
    /// Binds `path` with mode 0600. A socket file is replaced only if nobody answers on it, anything
    /// else at the path is left alone.
    pub(crate) async fn bind(path: &Path) -> Result<UnixSocket, Error> {
        match std::fs::symlink_metadata(path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            Err(e) => return Err(Error::io(format!("look at {}", path.display()))(e)),
            Ok(meta) if !meta.file_type().is_socket() => {
                return Err(Error::NotASocket(path.to_owned()));
            }
            Ok(_) => remove_stale(path).await?,
        }
        bind_private(path).map_err(Error::io(format!("listen on {}", path.display())))
    }
}

impl Drop for UnixSocket {
    fn drop(&mut self) {
        if self.file.is_some() && self.file == identity(&self.path) {
            // At worst a stale socket stays behind, which the next start replaces.
            drop(std::fs::remove_file(&self.path));
        }
    }
}

fn identity(path: &Path) -> Option<(u64, u64)> {
    use std::os::unix::fs::MetadataExt;
    std::fs::symlink_metadata(path).ok().map(|meta| (meta.dev(), meta.ino()))
}

/// Removes a socket file on which nobody listens. Any answer but a refusal counts as somebody, a
/// full backlog included.
async fn remove_stale(path: &Path) -> Result<(), Error> {
    match UnixStream::connect(path).await {
        Err(e) if e.kind() == io::ErrorKind::ConnectionRefused => {}
        _ => return Err(Error::SocketInUse(path.to_owned())),
    }
    std::fs::remove_file(path)
        .map_err(Error::io(format!("remove the stale socket {}", path.display())))
}

/// Binds under a temporary name, restricts the mode, and only then gives the socket its name: at no
/// moment can somebody else connect.
fn bind_private(path: &Path) -> io::Result<UnixSocket> {
    // A short name, because a socket's path has at most 107 bytes.
    let hidden = path.with_file_name(format!(".nbd-{}", std::process::id()));
    match std::fs::remove_file(&hidden) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
        _ => {}
    }
    let listener = UnixListener::bind(&hidden)?;
    let named = std::fs::set_permissions(&hidden, std::fs::Permissions::from_mode(0o600))
        .and_then(|()| std::fs::hard_link(&hidden, path));
    std::fs::remove_file(&hidden)?;
    named?;
    Ok(UnixSocket { listener, path: path.to_owned(), file: identity(path) })
}

/// Binds a TCP address. Without TLS only loopback addresses pass, and only with the explicit flag.
pub(crate) async fn bind_tcp(
    address: SocketAddr,
    tls: bool,
    plain_loopback: bool,
) -> Result<TcpListener, Error> {
    let allowed = tls || (plain_loopback && address.ip().is_loopback());
    if !allowed {
        return Err(Error::PlainTcp(address));
    }
    TcpListener::bind(address).await.map_err(Error::io(format!("listen on {address}")))
}
