//! Frames: the unit that travels on a link. Format: `docs/formats/frame.md`.
//!
//! A frame is a header of 20 bytes, a control part (bincode of somebody else's type, opaque here) and a
//! payload (raw bytes, on the wire optionally compressed with zstd). [`encode`](encoder::Encoder) and
//! [`decode`](decoder::Decoder) are pure state machines; sockets are elsewhere.

use bytes::Bytes;

use crate::Error;

mod compress;
mod decoder;
mod encoder;

pub use compress::Compress;
pub use decoder::Decoder;
pub use encoder::Encoder;

/// The first two bytes of each frame, so that a stream out of step is noticed at once.
const MAGIC: [u8; 2] = *b"GH";
/// Length of the header in bytes.
pub const HEADER_BYTES: usize = 20;
/// The longest control part: 1 MiB.
pub const MAX_CONTROL_BYTES: usize = 1 << 20;
/// The longest payload, compressed or not: 8 MiB.
pub const MAX_PAYLOAD_BYTES: usize = 8 << 20;
/// Kinds below this belong to the link itself.
pub const FIRST_FREE_KIND: u16 = 16;

/// Bits of [`Frame::flags`]. The upper byte is free for the protocol above.
pub mod flags {
    /// Asks the link to compress the payload where that shrinks it. Travels along.
    pub const COMPRESS: u16 = 1 << 0;
    /// Set on the wire when the payload is compressed; never seen by receivers.
    pub(crate) const COMPRESSED: u16 = 1 << 1;
    /// The bits that the protocol above may use as it likes.
    pub const FREE: u16 = 0xff00;
    /// All bits that mean something.
    pub(crate) const KNOWN: u16 = COMPRESS | COMPRESSED | FREE;
}

/// One frame, as sender and receiver see it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Frame {
    /// What it is; at least [`FIRST_FREE_KIND`].
    pub kind: u16,
    /// See [`flags`].
    pub flags: u16,
    /// Control part, at most [`MAX_CONTROL_BYTES`].
    pub control: Bytes,
    /// Payload, at most [`MAX_PAYLOAD_BYTES`].
    pub payload: Bytes,
}

impl Frame {
    /// A frame without payload.
    pub fn control(kind: u16, control: impl Into<Bytes>) -> Self {
        Frame { kind, control: control.into(), ..Frame::default() }
    }

    /// What it counts for against the memory bound of a link, in bytes.
    pub fn weight(&self) -> usize {
        FRAME_OVERHEAD_BYTES + self.control.len() + self.payload.len()
    }

    /// Checks the bounds that a sender must keep.
    pub fn check(&self) -> Result<(), Error> {
        if self.control.len() > MAX_CONTROL_BYTES {
            return Err(too_long(
                "the control part of a frame",
                self.control.len(),
                MAX_CONTROL_BYTES,
            ));
        }
        if self.payload.len() > MAX_PAYLOAD_BYTES {
            return Err(too_long("the payload of a frame", self.payload.len(), MAX_PAYLOAD_BYTES));
        }
        if self.flags & !(flags::FREE | flags::COMPRESS) != 0 {
            return Err(Error::Encode(format!("frame flags {:#06x} are not free", self.flags)));
        }
        Ok(())
    }
}

/// What a queued frame costs beside its bytes: queue slots and allocations.
const FRAME_OVERHEAD_BYTES: usize = 256;

/// The header, as it stands on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    pub kind: u16,
    pub flags: u16,
    pub control_bytes: u32,
    /// As it follows on the wire.
    pub payload_bytes: u32,
    /// After decompression; equal to `payload_bytes` when not compressed.
    pub raw_bytes: u32,
}

impl Header {
    pub fn to_bytes(self) -> [u8; HEADER_BYTES] {
        let mut out = [0; HEADER_BYTES];
        out[0..2].copy_from_slice(&MAGIC);
        out[2..4].copy_from_slice(&self.kind.to_le_bytes());
        out[4..6].copy_from_slice(&self.flags.to_le_bytes());
        // 6..8 reserved, zero.
        out[8..12].copy_from_slice(&self.control_bytes.to_le_bytes());
        out[12..16].copy_from_slice(&self.payload_bytes.to_le_bytes());
        out[16..20].copy_from_slice(&self.raw_bytes.to_le_bytes());
        out
    }

    /// Reads a header and checks every field against the bounds of `limits`.
    pub fn parse(bytes: &[u8; HEADER_BYTES], limits: &Limits) -> Result<Self, Error> {
        let [m0, m1, k0, k1, f0, f1, r0, r1, lengths @ ..] = *bytes;
        let [c0, c1, c2, c3, p0, p1, p2, p3, w0, w1, w2, w3] = lengths;
        if [m0, m1] != MAGIC {
            return Err(bad("magic", 0, format!("{m0:#04x} {m1:#04x} is not `GH`")));
        }
        let header = Header {
            kind: u16::from_le_bytes([k0, k1]),
            flags: u16::from_le_bytes([f0, f1]),
            control_bytes: u32::from_le_bytes([c0, c1, c2, c3]),
            payload_bytes: u32::from_le_bytes([p0, p1, p2, p3]),
            raw_bytes: u32::from_le_bytes([w0, w1, w2, w3]),
        };
        if header.flags & !flags::KNOWN != 0 {
            return Err(bad("flags", 4, format!("{:#06x} has unknown bits", header.flags)));
        }
        if [r0, r1] != [0, 0] {
            return Err(bad("reserved", 6, "it is not zero".into()));
        }
        let (control, payload, raw) =
            (header.control_bytes, header.payload_bytes, header.raw_bytes);
        if control as usize > limits.control_bytes {
            return Err(bad(
                "control length",
                8,
                format!("{control} exceeds {}", limits.control_bytes),
            ));
        }
        if payload as usize > limits.payload_bytes {
            return Err(bad(
                "payload length",
                12,
                format!("{payload} exceeds {}", limits.payload_bytes),
            ));
        }
        let compressed = header.flags & flags::COMPRESSED != 0;
        let raw_fits = raw as usize <= limits.payload_bytes;
        let plausible = if compressed { 0 < payload && payload < raw } else { payload == raw };
        if !raw_fits || !plausible {
            return Err(bad("raw length", 16, format!("{raw} for {payload} bytes on the wire")));
        }
        Ok(header)
    }

    /// What the frame will count for once it is decoded, decompression included.
    pub fn weight(&self) -> usize {
        let packed =
            if self.flags & flags::COMPRESSED != 0 { self.payload_bytes as usize } else { 0 };
        FRAME_OVERHEAD_BYTES + self.control_bytes as usize + self.raw_bytes as usize + packed
    }
}

/// What a decoder accepts: small before both sides have greeted, the full size afterwards.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    pub control_bytes: usize,
    pub payload_bytes: usize,
}

impl Limits {
    pub const FULL: Limits =
        Limits { control_bytes: MAX_CONTROL_BYTES, payload_bytes: MAX_PAYLOAD_BYTES };
    pub const GREETING: Limits = Limits { control_bytes: 4096, payload_bytes: 0 };
}

/// The largest weight of any frame on its way in: the least memory that a link can work with.
pub(crate) const MAX_WEIGHT: usize =
    FRAME_OVERHEAD_BYTES + MAX_CONTROL_BYTES + 2 * MAX_PAYLOAD_BYTES;

fn bad(field: &'static str, offset: usize, why: String) -> Error {
    Error::Frame { field, offset, why }
}

fn too_long(what: &'static str, bytes: usize, limit: usize) -> Error {
    Error::TooLong { what, bytes: bytes as u64, limit: limit as u64 }
}

#[cfg(test)]
mod tests;
