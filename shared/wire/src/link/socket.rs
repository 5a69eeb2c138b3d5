//! Socket options of a link.

use std::io;
use std::time::Duration;

use rustix::net::sockopt;
use tokio::net::TcpStream;

use super::LinkConfig;

/// Frames are gathered before they are written, so Nagle's algorithm only adds delay. Keep-alive and
/// the user timeout end connections of which the kernel alone knows that they are dead.
pub(super) fn tune(stream: &TcpStream, config: &LinkConfig) -> io::Result<()> {
    stream.set_nodelay(true)?;
    sockopt::set_socket_keepalive(stream, true)?;
    sockopt::set_tcp_keepidle(stream, Duration::from_secs(10))?;
    sockopt::set_tcp_keepintvl(stream, Duration::from_secs(5))?;
    sockopt::set_tcp_keepcnt(stream, 6)?;
    let user_timeout_ms = config.tcp_user_timeout.as_millis().min(u128::from(u32::MAX)) as u32;
    sockopt::set_tcp_user_timeout(stream, user_timeout_ms)?;
    if let Some(bytes) = config.socket_buffer_bytes {
        // The kernel caps this at net.core.{r,w}mem_max without a word; more than it gives is not
        // an error.
        sockopt::set_socket_send_buffer_size(stream, bytes)?;
        sockopt::set_socket_recv_buffer_size(stream, bytes)?;
    }
    Ok(())
}
