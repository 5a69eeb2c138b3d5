//! A small asynchronous client: what tests, the demo's writer and tools need.
//!
//! Several commands may be in flight at once; each method is one command and returns with its
//! answer. Runs as a local task of the caller's thread. Trusts the server with nothing: replies are
//! bounded by what was asked, and what does not fit ends the connection with an error. Does not
//! reconnect, does not split long requests.

pub(crate) mod negotiate;
pub(crate) mod replies;
mod session;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;
use rustls::pki_types::ServerName;
use tokio::net::{TcpStream, UnixStream};

use crate::protocol::{command, flag};
use crate::stream::Stream;
use crate::{Error, Extent};
use negotiate::Agreed;
use session::{Answer, Request, Session};

/// What a client asks for when it connects.
#[derive(Clone, Default)]
pub struct ConnectOptions {
    /// The export's name; empty for the default one.
    pub export: String,
    /// Do not ask for structured replies or extended headers.
    pub simple: bool,
    /// Ask for extended headers first.
    pub extended: bool,
    /// Metadata contexts to select.
    pub contexts: Vec<String>,
    /// Upgrade to TLS (TCP only), and the name that the server's certificate must have.
    pub tls: Option<(Arc<rustls::ClientConfig>, ServerName<'static>)>,
}

/// Flags of [`Client::zero`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ZeroFlags {
    /// On stable storage before the answer.
    pub fua: bool,
    /// The range stays allocated.
    pub no_hole: bool,
    /// Fail at once unless it is fast.
    pub fast: bool,
}

/// A connection to an export. Cheap to clone; the connection ends with a goodbye when the last clone
/// is dropped.
#[derive(Clone)]
pub struct Client {
    session: Rc<Session>,
}

impl Client {
    /// Connects over a Unix socket.
    pub async fn connect_unix(path: &Path, options: &ConnectOptions) -> Result<Client, Error> {
        let stream = UnixStream::connect(path).await;
        let stream = stream.map_err(Error::io(format!("connect to {}", path.display())))?;
        Client::over(Stream::unix(stream), options).await
    }

    /// Connects over TCP.
    pub async fn connect_tcp(
        address: SocketAddr,
        options: &ConnectOptions,
    ) -> Result<Client, Error> {
        let stream = TcpStream::connect(address).await;
        let stream = stream.map_err(Error::io(format!("connect to {address}")))?;
        Client::over(Stream::tcp(stream)?, options).await
    }

    /// Connects over a Unix socket that is connected already.
    pub async fn connected(stream: UnixStream, options: &ConnectOptions) -> Result<Client, Error> {
        Client::over(Stream::unix(stream), options).await
    }

    pub(crate) async fn over(stream: Stream, options: &ConnectOptions) -> Result<Client, Error> {
        let (stream, agreed) = negotiate::negotiate(stream, options).await?;
        Ok(Client { session: Session::start(stream, agreed) })
    }

    fn agreed(&self) -> &Agreed {
        self.session.agreed()
    }

    /// Size of the export in bytes.
    pub fn size_bytes(&self) -> u64 {
        self.agreed().size_bytes
    }

    /// Whether the export refuses writes.
    pub fn is_read_only(&self) -> bool {
        self.agreed().flags & crate::protocol::transmission::READ_ONLY != 0
    }

    /// Whether a flush covers all connections to the export.
    pub fn is_multi_conn(&self) -> bool {
        self.agreed().flags & crate::protocol::transmission::CAN_MULTI_CONN != 0
    }

    /// Whether extended headers are in use.
    pub fn is_extended(&self) -> bool {
        self.agreed().style == crate::encode::Style::Extended
    }

    async fn plain(&self, code: u16, flags: u16, offset: u64, len: u64) -> Result<(), Error> {
        let request = Request { command: code, flags, offset, len, data: Bytes::new() };
        self.session.ask(request).await.map(drop)
    }

    /// Reads `len` bytes.
    pub async fn read(&self, offset: u64, len: u32) -> Result<Bytes, Error> {
        let len = u64::from(len);
        let request = Request { command: command::READ, flags: 0, offset, len, data: Bytes::new() };
        match self.session.ask(request).await? {
            Answer::Data(data) => Ok(data),
            _ => Err(Error::protocol("reply", 0, "a read was answered without data")),
        }
    }

    /// Writes `data`.
    pub async fn write(&self, offset: u64, data: Bytes, fua: bool) -> Result<(), Error> {
        let flags = if fua { flag::FUA } else { 0 };
        let len = data.len() as u64;
        let request = Request { command: command::WRITE, flags, offset, len, data };
        self.session.ask(request).await.map(drop)
    }

    /// Puts what was answered before onto stable storage.
    pub async fn flush(&self) -> Result<(), Error> {
        self.plain(command::FLUSH, 0, 0, 0).await
    }

    /// Says that a range is no longer needed.
    pub async fn trim(&self, offset: u64, len: u64, fua: bool) -> Result<(), Error> {
        let flags = if fua { flag::FUA } else { 0 };
        self.plain(command::TRIM, flags, offset, len).await
    }

    /// Makes a range read as zeros.
    pub async fn zero(&self, offset: u64, len: u64, how: ZeroFlags) -> Result<(), Error> {
        let bits =
            [(how.fua, flag::FUA), (how.no_hole, flag::NO_HOLE), (how.fast, flag::FAST_ZERO)];
        let flags = bits.iter().filter(|(set, _)| *set).map(|(_, bit)| bit).sum();
        self.plain(command::WRITE_ZEROES, flags, offset, len).await
    }

    /// Says that a range will be read soon.
    pub async fn cache(&self, offset: u64, len: u64) -> Result<(), Error> {
        self.plain(command::CACHE, 0, offset, len).await
    }

    /// The extents of each selected context from `offset` on; they may cover less than `len`.
    pub async fn block_status(
        &self,
        offset: u64,
        len: u64,
        req_one: bool,
    ) -> Result<BTreeMap<String, Vec<Extent>>, Error> {
        let flags = if req_one { flag::REQ_ONE } else { 0 };
        let code = command::BLOCK_STATUS;
        let request = Request { command: code, flags, offset, len, data: Bytes::new() };
        match self.session.ask(request).await? {
            Answer::Extents(extents) => Ok(extents),
            _ => Err(Error::protocol("reply", 0, "a block status was answered without extents")),
        }
    }

    /// Says goodbye and waits until the server has closed the connection. Commands in flight are
    /// answered first.
    pub async fn disconnect(self) {
        self.session.leave();
        self.session.ended().await;
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        // The session's own task holds the other reference.
        if Rc::strong_count(&self.session) <= 2 {
            self.session.leave();
        }
    }
}
