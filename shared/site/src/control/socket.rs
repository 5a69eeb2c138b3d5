//! Unix sockets under paths of any length.
//!
//! The kernel takes at most 107 bytes of path. Longer ones are reached through a descriptor of their
//! directory, as `/proc/self/fd/N/NAME`: the socket stays where it belongs, in a directory that nobody
//! else can enter, and no second place has to be found, agreed on and guarded
//! (`docs/decisions/0012`).

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, Mode, OFlags, openat};
use tokio::net::UnixStream;

/// The longest path that the kernel takes, in bytes.
const MAX_PATH: usize = 107;

/// A path that the kernel takes, and the descriptor by which it is valid.
fn reachable(path: &Path) -> io::Result<(PathBuf, Option<OwnedFd>)> {
    if path.as_os_str().len() <= MAX_PATH {
        return Ok((path.to_owned(), None));
    }
    let dir = path.parent().ok_or(io::ErrorKind::InvalidInput)?;
    let name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?;
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let fd = openat(CWD, dir, flags, Mode::empty())?;
    let short = PathBuf::from(format!("/proc/self/fd/{}", fd.as_raw_fd())).join(name);
    Ok((short, Some(fd)))
}

/// Listens at `path`. The caller owns the place: a socket left over there is removed.
pub fn listen(path: &Path) -> io::Result<UnixListener> {
    match std::fs::symlink_metadata(path) {
        Ok(found) if found.file_type().is_socket() => std::fs::remove_file(path)?,
        Ok(_) => return Err(io::ErrorKind::AlreadyExists.into()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    let (short, _dir) = reachable(path)?;
    let listener = UnixListener::bind(short)?;
    // Until here the directory (0700) keeps others out.
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

/// Connects to the socket at `path`.
pub async fn connect(path: &Path) -> io::Result<UnixStream> {
    let (short, _dir) = reachable(path)?;
    UnixStream::connect(short).await
}
