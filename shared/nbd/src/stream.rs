//! [`Stream`]: the sockets that a connection may run over: Unix, TCP, TLS over TCP, or, in tests, a
//! pipe in memory.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::{TlsAcceptor, TlsConnector, TlsStream};

use crate::Error;

/// Socket buffers are set to this many bytes, as far as the system allows: a megabyte of a
/// sequential transfer then needs few turns.
pub(crate) const SOCKET_BUFFER_BYTES: usize = 1 << 20;

/// A connected socket.
pub(crate) enum Stream {
    Unix(UnixStream),
    Tcp(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
    #[cfg(test)]
    Pipe(tokio::io::DuplexStream),
}

impl Stream {
    /// A Unix socket with its buffers set.
    pub(crate) fn unix(stream: UnixStream) -> Stream {
        size_buffers(&stream);
        Stream::Unix(stream)
    }

    /// A TCP socket with its buffers and options set.
    pub(crate) fn tcp(stream: TcpStream) -> Result<Stream, Error> {
        size_buffers(&stream);
        stream.set_nodelay(true).map_err(Error::io("set TCP_NODELAY"))?;
        Ok(Stream::Tcp(stream))
    }

    /// The server's side of a TLS handshake.
    pub(crate) async fn accept_tls(self, acceptor: &TlsAcceptor) -> Result<Stream, Error> {
        let Stream::Tcp(tcp) = self else {
            return Err(Error::protocol("option", 8, "TLS on a socket without it"));
        };
        let stream = acceptor.accept(tcp).await.map_err(Error::io("TLS handshake"))?;
        Ok(Stream::Tls(Box::new(stream.into())))
    }

    /// The client's side of a TLS handshake.
    pub(crate) async fn connect_tls(
        self,
        connector: &TlsConnector,
        name: rustls::pki_types::ServerName<'static>,
    ) -> Result<Stream, Error> {
        let Stream::Tcp(tcp) = self else {
            return Err(Error::protocol("option", 8, "TLS on a socket without it"));
        };
        let stream = connector.connect(name, tcp).await.map_err(Error::io("TLS handshake"))?;
        Ok(Stream::Tls(Box::new(stream.into())))
    }
}

/// Sets both buffers. A system that refuses leaves them as they are: slower, not wrong.
fn size_buffers(socket: &impl std::os::fd::AsFd) {
    use rustix::net::sockopt;
    let sent = sockopt::set_socket_send_buffer_size(socket, SOCKET_BUFFER_BYTES);
    let received = sockopt::set_socket_recv_buffer_size(socket, SOCKET_BUFFER_BYTES);
    if let Err(error) = sent.and(received) {
        tracing::debug!(%error, "socket buffers keep their size");
    }
}

macro_rules! on_inner {
    ($self:ident, $stream:ident => $call:expr) => {
        match $self.get_mut() {
            Stream::Unix($stream) => $call,
            Stream::Tcp($stream) => $call,
            Stream::Tls($stream) => $call,
            #[cfg(test)]
            Stream::Pipe($stream) => $call,
        }
    };
}

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        on_inner!(self, stream => Pin::new(stream).poll_read(cx, buf))
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        on_inner!(self, stream => Pin::new(stream).poll_write(cx, buf))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        on_inner!(self, stream => Pin::new(stream).poll_write_vectored(cx, slices))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        on_inner!(self, stream => Pin::new(stream).poll_flush(cx))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        on_inner!(self, stream => Pin::new(stream).poll_shutdown(cx))
    }
}
