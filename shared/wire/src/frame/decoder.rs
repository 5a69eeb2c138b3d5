//! From bytes to frames, piece by piece. The bytes come from outside: every length is checked before
//! anything is allocated for it, and a decoder that has failed stays failed.

use bytes::{BufMut, Bytes, BytesMut};

use super::{Frame, HEADER_BYTES, Header, Limits, flags};
use crate::Error;

/// An incremental decoder.
///
/// Use: append what arrived to a buffer of your own and call [`Decoder::decode`] until it returns
/// `None`. While [`Decoder::gap`] is not `None`, a large payload is being collected in a buffer of its
/// own, and reading straight into the gap saves a copy. [`Decoder::pending`] says how much memory the
/// frame under way takes, so that it can be accounted for before its bytes are collected.
pub struct Decoder {
    limits: Limits,
    state: State,
    zstd: Option<zstd::bulk::Decompressor<'static>>,
}

enum State {
    /// Waiting for a header.
    Header,
    /// Waiting for the control part.
    Control(Header),
    /// Collecting the payload.
    Payload(Header, Bytes, BytesMut),
    /// Nothing makes sense any more.
    Failed,
}

impl Default for Decoder {
    fn default() -> Self {
        Decoder::with_limits(Limits::FULL)
    }
}

impl Decoder {
    /// A decoder that accepts frames of full size.
    pub fn new() -> Self {
        Decoder::default()
    }

    pub(crate) fn with_limits(limits: Limits) -> Self {
        Decoder { limits, state: State::Header, zstd: None }
    }

    /// Accepts other sizes from the next header on.
    pub(crate) fn set_limits(&mut self, limits: Limits) {
        self.limits = limits;
    }

    /// Reads the next header from the front of `input`, if it is complete and not read yet, and says
    /// what the frame under way weighs. `None` while no header is complete.
    pub fn pending(&mut self, input: &mut BytesMut) -> Result<Option<usize>, Error> {
        if let State::Header = self.state {
            let Some(bytes) = input.first_chunk::<HEADER_BYTES>() else { return Ok(None) };
            match Header::parse(bytes, &self.limits) {
                Ok(header) => self.state = State::Control(header),
                Err(e) => return self.fail(e),
            }
            drop(input.split_to(HEADER_BYTES));
        }
        match &self.state {
            State::Control(header) | State::Payload(header, ..) => Ok(Some(header.weight())),
            State::Header | State::Failed => Ok(None),
        }
    }

    /// Takes what it needs from the front of `input` and returns the next frame when it is complete.
    pub fn decode(&mut self, input: &mut BytesMut) -> Result<Option<Frame>, Error> {
        self.pending(input)?;
        loop {
            match std::mem::replace(&mut self.state, State::Failed) {
                State::Control(header) => {
                    let len = header.control_bytes as usize;
                    if input.len() < len {
                        self.state = State::Control(header);
                        return Ok(None);
                    }
                    // Copied, so that a small control part does not keep a large buffer alive.
                    let control = Bytes::copy_from_slice(&input.split_to(len));
                    let payload = BytesMut::with_capacity(header.payload_bytes as usize);
                    self.state = State::Payload(header, control, payload);
                }
                State::Payload(header, control, mut payload) => {
                    let missing = header.payload_bytes as usize - payload.len();
                    let here = missing.min(input.len());
                    payload.put_slice(&input.split_to(here));
                    if here < missing {
                        self.state = State::Payload(header, control, payload);
                        return Ok(None);
                    }
                    return self.finish(header, control, payload).map(Some);
                }
                State::Header => {
                    self.state = State::Header;
                    return Ok(None);
                }
                State::Failed => return Err(failed_before()),
            }
        }
    }

    /// The end of the payload's buffer and how many bytes still belong there: whoever has them may
    /// append them straight to it.
    pub(crate) fn gap(&mut self) -> Option<(&mut BytesMut, usize)> {
        match &mut self.state {
            State::Payload(header, _, payload) => {
                let missing = (header.payload_bytes as usize).saturating_sub(payload.len());
                Some((payload, missing))
            }
            _ => None,
        }
    }

    /// True between two frames.
    pub(crate) fn is_idle(&self) -> bool {
        matches!(self.state, State::Header)
    }

    fn finish(&mut self, header: Header, control: Bytes, packed: BytesMut) -> Result<Frame, Error> {
        let payload = if header.flags & flags::COMPRESSED != 0 {
            match self.decompress(&packed, header.raw_bytes as usize) {
                Ok(raw) => raw,
                Err(why) => return Err(Error::Frame { field: "payload", offset: 20, why }),
            }
        } else {
            packed.freeze()
        };
        self.state = State::Header;
        let flags = header.flags & !flags::COMPRESSED;
        Ok(Frame { kind: header.kind, flags, control, payload })
    }

    /// Into a buffer of exactly the stated size: what says it is larger fails inside zstd.
    fn decompress(&mut self, packed: &[u8], raw_bytes: usize) -> Result<Bytes, String> {
        let zstd = match &mut self.zstd {
            Some(zstd) => zstd,
            none => none.insert(zstd::bulk::Decompressor::new().map_err(|e| e.to_string())?),
        };
        let mut raw = vec![0u8; raw_bytes];
        let len = zstd.decompress_to_buffer(packed, &mut raw[..]).map_err(|e| e.to_string())?;
        if len != raw_bytes {
            return Err(format!("{len} bytes came out where {raw_bytes} were announced"));
        }
        Ok(Bytes::from(raw))
    }

    fn fail<T>(&mut self, error: Error) -> Result<T, Error> {
        self.state = State::Failed;
        Err(error)
    }
}

fn failed_before() -> Error {
    Error::Frame { field: "stream", offset: 0, why: "it was broken before".into() }
}
