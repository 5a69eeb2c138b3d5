//! The handshake of the server: moves the bytes between a socket and a [`Negotiation`], upgrades to
//! TLS where asked, and bounds length, number and time of what the client may send.

use std::cell::Cell;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_rustls::TlsAcceptor;

use crate::fields::Fields;
use crate::negotiation::{Chosen, Exports, Negotiation, Step, Tls};
use crate::protocol::{MAGIC, OPTION_HEADER_LEN, OPTION_MAGIC, handshake};
use crate::stream::Stream;
use crate::{Error, Limits};

/// Data of options that are refused for their length is skipped up to this many bytes.
const SKIP_MAX_BYTES: u64 = 4 << 20;

/// What a handshake needs to know.
pub(crate) struct Terms<'a> {
    pub(crate) exports: &'a Exports,
    /// Present where TLS is required.
    pub(crate) tls: Option<TlsAcceptor>,
    pub(crate) limits: Limits,
    pub(crate) stopping: &'a Cell<bool>,
}

/// Runs a handshake to its end: the stream (with TLS if it was asked for) and what was chosen, or
/// nothing when the client took its leave.
pub(crate) async fn serve_handshake(
    stream: Stream,
    terms: &Terms<'_>,
) -> Result<Option<(Stream, Chosen)>, Error> {
    let limit = terms.limits.handshake;
    match tokio::time::timeout(limit, negotiate(stream, terms)).await {
        Ok(outcome) => outcome,
        Err(_) => Err(Error::Slow(limit.as_millis() as u64, "finish the handshake")),
    }
}

async fn negotiate(
    mut stream: Stream,
    terms: &Terms<'_>,
) -> Result<Option<(Stream, Chosen)>, Error> {
    let (fixed, no_zeroes) = exchange_flags(&mut stream).await?;
    let tls = if terms.tls.is_some() { Tls::Required } else { Tls::Never };
    if tls == Tls::Required && !fixed {
        return Err(Error::protocol("client flags", 0, "TLS needs fixed newstyle"));
    }
    let mut negotiation = Negotiation::new(terms.exports, tls, fixed, no_zeroes);
    let mut out = Vec::new();
    for _ in 0..terms.limits.options {
        let Some((code, data)) = read_option(&mut stream, terms.limits.option_bytes).await? else {
            return Ok(None);
        };
        let step = match data {
            None => {
                negotiation.too_big(code, &mut out);
                Step::Next
            }
            Some(_) if terms.stopping.get() => negotiation.shutdown(code, &mut out),
            Some(data) => negotiation.option(code, &data, &mut out),
        };
        stream.write_all(&out).await.map_err(Error::io("send an option reply"))?;
        stream.flush().await.map_err(Error::io("send an option reply"))?;
        out.clear();
        match step {
            Step::Next => {}
            Step::StartTls => {
                let Some(acceptor) = &terms.tls else { return Ok(None) };
                stream = stream.accept_tls(acceptor).await?;
                negotiation.tls_started();
            }
            Step::Serve(chosen) => return Ok(Some((stream, chosen))),
            Step::Close => {
                // The client may be gone already; that is what it asked for.
                drop(stream.shutdown().await);
                return Ok(None);
            }
        }
    }
    Err(Error::protocol("options", 0, format!("more than {}", terms.limits.options)))
}

/// The greeting, and the flags that the client answers: fixed newstyle, no zeroes.
async fn exchange_flags(stream: &mut Stream) -> Result<(bool, bool), Error> {
    let mut greeting = MAGIC.to_be_bytes().to_vec();
    greeting.extend_from_slice(&OPTION_MAGIC.to_be_bytes());
    let ours = handshake::FIXED_NEWSTYLE | handshake::NO_ZEROES;
    greeting.extend_from_slice(&ours.to_be_bytes());
    stream.write_all(&greeting).await.map_err(Error::io("send the greeting"))?;
    let flags = stream.read_u32().await.map_err(Error::io("read the client's flags"))?;
    let known = handshake::CLIENT_FIXED_NEWSTYLE | handshake::CLIENT_NO_ZEROES;
    if flags & !known != 0 {
        return Err(Error::protocol("client flags", 0, format!("{flags:#x} has unknown bits")));
    }
    let has = |bit: u32| flags & bit != 0;
    Ok((has(handshake::CLIENT_FIXED_NEWSTYLE), has(handshake::CLIENT_NO_ZEROES)))
}

/// One option: its code, and its data unless that was too long. `None` when the client has gone.
///
/// Reads exactly the option: nothing that follows may be read before a TLS handshake.
async fn read_option(
    stream: &mut Stream,
    limit: usize,
) -> Result<Option<(u32, Option<Vec<u8>>)>, Error> {
    let mut header = [0; OPTION_HEADER_LEN];
    match stream.read_exact(&mut header).await {
        Err(e) if e.kind() == std::io::ErrorKind::UnexpectedEof => return Ok(None),
        outcome => outcome.map_err(Error::io("read an option"))?,
    };
    let mut fields = Fields::new(&header);
    let magic = fields.u64("option magic")?;
    if magic != OPTION_MAGIC {
        return Err(Error::protocol("option magic", 0, format!("{magic:#018x}")));
    }
    let code = fields.u32("option")?;
    let len = fields.u32("option length")?;
    if len as usize <= limit {
        let mut data = vec![0; len as usize];
        stream.read_exact(&mut data).await.map_err(Error::io("read an option's data"))?;
        return Ok(Some((code, Some(data))));
    }
    if u64::from(len) > SKIP_MAX_BYTES {
        return Err(Error::protocol("option length", 12, format!("{len} bytes")));
    }
    let mut skipped = (&mut *stream).take(u64::from(len));
    let count = tokio::io::copy(&mut skipped, &mut tokio::io::sink()).await;
    match count.map_err(Error::io("skip an option's data"))? {
        count if count == u64::from(len) => Ok(Some((code, None))),
        _ => Ok(None),
    }
}
