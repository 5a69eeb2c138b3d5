//! From frames to bytes on the wire, several frames in one go and without copying large payloads.

use std::collections::VecDeque;
use std::io::IoSlice;
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};

use super::compress::{Compress, Packer};
use super::{Frame, HEADER_BYTES, Header, flags};
use crate::Error;

/// Payloads up to this size are copied next to their header; a copy is cheaper than one more slice.
const COPY_BYTES: usize = 8 << 10;

/// Turns frames into a queue of byte slices, which is itself a [`Buf`]: write it out, then go on.
pub struct Encoder {
    packer: Packer,
    /// Headers, control parts and small payloads since the last large one.
    head: BytesMut,
    ready: VecDeque<Bytes>,
    ready_bytes: usize,
}

impl Encoder {
    /// `compress` is for frames that ask for compression.
    pub fn new(compress: Compress) -> Self {
        let (head, ready) = (BytesMut::new(), VecDeque::new());
        Encoder { packer: Packer::new(compress), head, ready, ready_bytes: 0 }
    }

    /// What was written out has taken this time.
    pub fn link_took(&mut self, bytes: usize, time: Duration) {
        self.packer.link_took(bytes, time);
    }

    /// Appends a frame. Compresses its payload when it asks for that, and that is worth it.
    pub fn push(&mut self, frame: Frame) -> Result<(), Error> {
        frame.check()?;
        let raw_bytes = frame.payload.len();
        let packed = match frame.flags & flags::COMPRESS {
            0 => None,
            _ => self.packer.pack(&frame.payload)?,
        };
        let (payload, packed) = match packed {
            Some(packed) => (packed, flags::COMPRESSED),
            None => (frame.payload, 0),
        };
        let header = Header {
            kind: frame.kind,
            flags: frame.flags | packed,
            control_bytes: frame.control.len() as u32,
            payload_bytes: payload.len() as u32,
            raw_bytes: raw_bytes as u32,
        };
        self.head.reserve(HEADER_BYTES + frame.control.len());
        self.head.extend_from_slice(&header.to_bytes());
        self.head.extend_from_slice(&frame.control);
        self.ready_bytes += HEADER_BYTES + frame.control.len() + payload.len();
        if payload.len() <= COPY_BYTES {
            self.head.extend_from_slice(&payload);
        } else {
            self.ready.push_back(self.head.split().freeze());
            self.ready.push_back(payload);
        }
        Ok(())
    }

    /// Closes the last slice; call after the last [`Encoder::push`] and before writing.
    pub fn seal(&mut self) {
        if !self.head.is_empty() {
            self.ready.push_back(self.head.split().freeze());
        }
    }
}

impl Buf for Encoder {
    fn remaining(&self) -> usize {
        self.ready_bytes
    }

    fn chunk(&self) -> &[u8] {
        self.ready.front().map_or(&[], |first| first.chunk())
    }

    fn chunks_vectored<'a>(&'a self, slices: &mut [IoSlice<'a>]) -> usize {
        let mut used = 0;
        for (slice, bytes) in slices.iter_mut().zip(&self.ready) {
            *slice = IoSlice::new(bytes);
            used += 1;
        }
        used
    }

    fn advance(&mut self, mut count: usize) {
        self.ready_bytes -= count;
        while count > 0 {
            let Some(first) = self.ready.front_mut() else { return };
            let step = first.len().min(count);
            first.advance(step);
            count -= step;
            if first.is_empty() {
                self.ready.pop_front();
            }
        }
    }
}
