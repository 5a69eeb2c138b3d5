//! Runs of neighbouring grains, and their content: the unit in which data moves. Spans of bytes, and
//! theirs: what a single write covers.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::VolumeId;

/// `count` neighbouring grains of one volume, from grain `first` on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Run {
    /// Which volume.
    pub volume: VolumeId,
    /// Index of the first grain.
    pub first: u64,
    /// How many grains; at least 1.
    pub count: u64,
}

impl Run {
    /// One past the last grain.
    pub fn end(&self) -> u64 {
        self.first.saturating_add(self.count)
    }
}

/// What the grains of a run hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Content {
    /// The bytes of all grains of the run, in order (the last grain of a volume may be short).
    Data(Bytes),
    /// All zeros: travels without data.
    Zero,
}

impl Content {
    /// How many bytes travel or stand somewhere for it.
    pub fn bytes(&self) -> u64 {
        match self {
            Content::Data(bytes) => bytes.len() as u64,
            Content::Zero => 0,
        }
    }
}

/// A run with its content, as it stood at one cut.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GrainData {
    /// Which grains.
    pub run: Run,
    /// What they hold.
    pub content: Content,
}

/// `bytes` neighbouring bytes of one volume, from byte `start` on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Span {
    /// Which volume.
    pub volume: VolumeId,
    /// Offset of the first byte.
    pub start: u64,
    /// How many bytes; at least 1.
    pub bytes: u64,
}

impl Span {
    /// One past the last byte.
    pub fn end(&self) -> u64 {
        self.start.saturating_add(self.bytes)
    }

    /// What is left of the span without these ranges of its volume's bytes, which are in order of their
    /// first byte.
    pub fn without(self, ranges: impl IntoIterator<Item = std::ops::Range<u64>>) -> Vec<Span> {
        let mut left = Vec::new();
        let mut at = self.start;
        let mut keep = |from: u64, to: u64| {
            if from < to {
                left.push(Span { start: from, bytes: to - from, ..self });
            }
        };
        for range in ranges {
            keep(at, range.start.min(self.end()));
            at = at.max(range.end);
        }
        keep(at, self.end());
        left
    }
}

/// A span with its content; data is exactly as long as the span.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SpanData {
    /// Which bytes.
    pub span: Span,
    /// What they hold.
    pub content: Content,
}
