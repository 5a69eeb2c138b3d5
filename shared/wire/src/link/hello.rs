//! The greeting: the first frame of each side, before anything else is believed. Format:
//! `docs/formats/frame.md`.
//!
//! By now TLS has proven who the other side is. The dialling side says which relationship it wants and
//! which versions of the protocol above it speaks; the listening side picks one or refuses in words.

use std::ops::RangeInclusive;

use bytes::BytesMut;
use grain::RelationshipId;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use crate::frame::{Compress, Decoder, Encoder, Frame, Limits};
use crate::{Error, codec};

/// Kinds of frame that belong to the link.
pub(super) mod kind {
    pub const HELLO: u16 = 1;
    pub const WELCOME: u16 = 2;
    pub const CLOSE: u16 = 3;
    pub const PING: u16 = 4;
    pub const PONG: u16 = 5;
}

/// Codes of refusals that the link itself gives.
pub mod refusal {
    /// The listener serves another relationship.
    pub const RELATIONSHIP: u16 = 1;
    /// No version in common.
    pub const VERSION: u16 = 2;
    /// Too many links.
    pub const BUSY: u16 = 3;
    /// The key is not pinned there (told by TLS, not by a frame).
    pub const KEY: u16 = 4;
    /// Codes from here on belong to the protocol above.
    pub const FIRST_FREE: u16 = 100;
}

/// What a side brings to the greeting.
#[derive(Clone, Debug)]
pub struct Terms {
    /// The relationship that is served or wanted.
    pub relationship: RelationshipId,
    /// Versions of the protocol above that this side speaks.
    pub protocol: RangeInclusive<u16>,
    /// Program and version, for the other side's status; cut at 64 characters.
    pub software: String,
}

/// The first frame of the dialling side.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Hello {
    pub protocol_min: u16,
    pub protocol_max: u16,
    pub relationship: RelationshipId,
    pub software: String,
}

/// The answer that lets it in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Welcome {
    pub protocol: u16,
    pub software: String,
}

/// The last frame of a side, at the greeting or later. Code 0 is an end in good order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Close {
    pub code: u16,
    pub text: String,
}

impl Close {
    /// As the side sees it that receives it.
    pub fn into_error(self) -> Error {
        match self.code {
            0 => Error::Closed,
            code => Error::Refused { by_peer: true, code, text: presentable(&self.text, 500) },
        }
    }
}

/// What the greeting settled, and the bytes that came behind it.
pub(super) struct Greeted {
    pub protocol: u16,
    pub software: String,
    pub input: BytesMut,
    pub decoder: Decoder,
}

/// Somebody else's text, fit for a terminal and a log: no control characters, bounded.
pub(super) fn presentable(text: &str, limit_chars: usize) -> String {
    text.chars().take(limit_chars).map(|c| if c.is_control() { ' ' } else { c }).collect()
}

pub(super) fn frame_of<T: Serialize>(kind: u16, message: &T) -> Result<Frame, Error> {
    Ok(Frame::control(kind, codec::encode(message)?))
}

pub(super) fn message_of<T: serde::de::DeserializeOwned>(frame: &Frame) -> Result<T, Error> {
    codec::decode(&frame.control, Limits::GREETING.control_bytes)
}

/// Greets as the side that dialled.
pub(super) async fn as_dialer<S: AsyncRead + AsyncWrite + Unpin>(
    stream: &mut S,
    terms: &Terms,
) -> Result<Greeted, Error> {
    let hello = Hello {
        protocol_min: *terms.protocol.start(),
        protocol_max: *terms.protocol.end(),
        relationship: terms.relationship,
        software: presentable(&terms.software, 64),
    };
    write_frame(stream, frame_of(kind::HELLO, &hello)?).await?;
    let mut reading = Reading::default();
    let frame = reading.frame(stream).await?;
    let welcome: Welcome = match frame.kind {
        kind::WELCOME => message_of(&frame)?,
        kind::CLOSE => return Err(message_of::<Close>(&frame)?.into_error()),
        other => return Err(Error::Protocol(format!("it greets with a frame of kind {other}"))),
    };
    if !terms.protocol.contains(&welcome.protocol) {
        let version = welcome.protocol;
        return Err(Error::Protocol(format!("it chose version {version}, which was not offered")));
    }
    Ok(reading.greeted(welcome.protocol, &welcome.software))
}

/// Greets as the side that listens: reads the hello and judges it. The answer is sent by
/// [`welcome`] or [`refuse`].
pub(super) async fn as_listener<S: AsyncRead + AsyncWrite + Unpin>(
    stream: &mut S,
    terms: &Terms,
) -> Result<Greeted, Error> {
    let mut reading = Reading::default();
    let frame = reading.frame(stream).await?;
    if frame.kind != kind::HELLO {
        return Err(Error::Protocol(format!("it greets with a frame of kind {}", frame.kind)));
    }
    let hello: Hello = message_of(&frame)?;
    let protocol = judge(&hello, terms)?;
    Ok(reading.greeted(protocol, &hello.software))
}

/// What a greeting settled, for one who brings a stream of its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Greeting {
    /// The version of the protocol above on which both agreed.
    pub protocol: u16,
    /// What the other side says it runs: bounded, and fit for a terminal.
    pub software: String,
}

impl From<Greeted> for Greeting {
    fn from(greeted: Greeted) -> Self {
        Greeting { protocol: greeted.protocol, software: greeted.software }
    }
}

/// The dialling side's greeting over a stream that has proven its peer already; links do it by themselves.
///
/// # Errors
/// What the other side sent is no greeting, or a refusal.
pub async fn greet_as_dialer<S: AsyncRead + AsyncWrite + Unpin>(
    stream: &mut S,
    terms: &Terms,
) -> Result<Greeting, Error> {
    as_dialer(stream, terms).await.map(Greeting::from)
}

/// As [`greet_as_dialer`], for the listening side, up to the verdict on the hello.
///
/// # Errors
/// As [`greet_as_dialer`].
pub async fn greet_as_listener<S: AsyncRead + AsyncWrite + Unpin>(
    stream: &mut S,
    terms: &Terms,
) -> Result<Greeting, Error> {
    as_listener(stream, terms).await.map(Greeting::from)
}

fn judge(hello: &Hello, terms: &Terms) -> Result<u16, Error> {
    let refused = |code, text| Err(Error::Refused { by_peer: false, code, text });
    if hello.relationship != terms.relationship {
        let text = format!(
            "this site serves relationship {}, not {}",
            terms.relationship, hello.relationship
        );
        return refused(refusal::RELATIONSHIP, text);
    }
    let (ours_min, ours_max) = (*terms.protocol.start(), *terms.protocol.end());
    let best = ours_max.min(hello.protocol_max);
    if best < ours_min || best < hello.protocol_min {
        let text = format!(
            "no protocol version in common: {} to {} here, {} to {} there; update the older side",
            ours_min, ours_max, hello.protocol_min, hello.protocol_max
        );
        return refused(refusal::VERSION, text);
    }
    Ok(best)
}

/// Lets the dialling side in.
pub(super) async fn welcome<S: AsyncWrite + Unpin>(
    stream: &mut S,
    protocol: u16,
    terms: &Terms,
) -> Result<(), Error> {
    let welcome = Welcome { protocol, software: presentable(&terms.software, 64) };
    write_frame(stream, frame_of(kind::WELCOME, &welcome)?).await
}

/// Says no, and waits a moment until the words have arrived.
pub(super) async fn refuse<S: AsyncRead + AsyncWrite + Unpin>(
    stream: &mut S,
    code: u16,
    text: &str,
) -> Result<(), Error> {
    let close = Close { code, text: presentable(text, 500) };
    write_frame(stream, frame_of(kind::CLOSE, &close)?).await?;
    let cut = |e: std::io::Error| Error::Cut(e.to_string());
    stream.shutdown().await.map_err(cut)?;
    // Closing a socket with unread bytes would reset it, and the words would be lost.
    let mut scratch = [0u8; 1024];
    while stream.read(&mut scratch).await.map_err(cut)? > 0 {}
    Ok(())
}

async fn write_frame<S: AsyncWrite + Unpin>(stream: &mut S, frame: Frame) -> Result<(), Error> {
    let mut encoder = Encoder::new(Compress::Off);
    encoder.push(frame)?;
    encoder.seal();
    stream.write_all_buf(&mut encoder).await.map_err(super::connect::stream_error)?;
    stream.flush().await.map_err(super::connect::stream_error)
}

/// Reads the one frame of a greeting; what comes behind it is kept.
struct Reading {
    input: BytesMut,
    decoder: Decoder,
}

impl Default for Reading {
    fn default() -> Self {
        let decoder = Decoder::with_limits(Limits::GREETING);
        Reading { input: BytesMut::with_capacity(8192), decoder }
    }
}

impl Reading {
    async fn frame<S: AsyncRead + Unpin>(&mut self, stream: &mut S) -> Result<Frame, Error> {
        loop {
            if let Some(frame) = self.decoder.decode(&mut self.input)? {
                return Ok(frame);
            }
            let read = stream.read_buf(&mut self.input).await;
            if read.map_err(super::connect::stream_error)? == 0 {
                return Err(Error::Cut("the peer hung up during the greeting".into()));
            }
        }
    }

    fn greeted(mut self, protocol: u16, software: &str) -> Greeted {
        self.decoder.set_limits(Limits::FULL);
        let software = presentable(software, 64);
        Greeted { protocol, software, input: self.input, decoder: self.decoder }
    }
}

#[cfg(test)]
mod tests;
