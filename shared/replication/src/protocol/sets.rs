//! Sets of grains over a connection: chunks out, chunks in.

use std::collections::BTreeMap;

use bytes::Bytes;
use grain::{Geometry, GrainSet, GrainSetDecoder};

use super::{Connection, Message, SetName};
use crate::{Error, Result};

/// Bytes of a chunk.
const CHUNK: usize = 256 << 10;

/// Sends a set.
pub async fn send_set(connection: &Connection, name: SetName, set: &GrainSet) -> Result<()> {
    let mut cursor = Some(Default::default());
    while let Some(at) = cursor {
        let (chunk, next) = set.encode_chunk(at, CHUNK);
        connection.send_with(&Message::Set { name }, Bytes::from(chunk)).await?;
        cursor = next;
    }
    Ok(())
}

/// Sets being received, by name, one after the other.
pub struct SetInbox {
    decoding: Option<(SetName, GrainSetDecoder)>,
    whole: BTreeMap<SetName, GrainSet>,
    bytes: u64,
    limit_bytes: u64,
}

impl SetInbox {
    /// Maps of the whole geometry that one side may send at most, in bytes of memory: bounds what a
    /// peer can ask for, and is more than honest sets ever take.
    const MAX_MAPS: u64 = 16;
    /// Bytes that any geometry has room for.
    const LEAST_BYTES: u64 = 16 << 20;

    /// For sets of this geometry.
    pub fn new(geometry: &Geometry) -> SetInbox {
        let map = geometry.total_grains() / 8;
        let limit_bytes = Self::LEAST_BYTES + Self::MAX_MAPS * map;
        SetInbox { decoding: None, whole: BTreeMap::new(), bytes: 0, limit_bytes }
    }

    /// Takes a chunk.
    pub fn take(&mut self, name: SetName, chunk: &[u8], geometry: &Geometry) -> Result<()> {
        if self.whole.contains_key(&name) {
            return Err(Error::Peer(format!("the set {name:?} was sent twice")));
        }
        let mut decoder = match self.decoding.take() {
            Some((begun, decoder)) if begun == name => decoder,
            None => GrainSetDecoder::default(),
            Some((begun, _)) => {
                return Err(Error::Peer(format!("the set {name:?} amid the set {begun:?}")));
            }
        };
        let bad = |e: grain::Error| Error::Peer(format!("set {name:?}: {e}"));
        if !decoder.decode_chunk(chunk, geometry).map_err(bad)? {
            self.decoding = Some((name, decoder));
            return Ok(());
        }
        let set = decoder.finish().map_err(bad)?;
        self.bytes += set.memory_bytes();
        if self.bytes > self.limit_bytes {
            return Err(Error::Peer(format!("sets of more than {} bytes", self.limit_bytes)));
        }
        self.whole.insert(name, set);
        Ok(())
    }

    /// Gives out a set that is whole.
    pub fn remove(&mut self, name: SetName) -> Option<GrainSet> {
        self.whole.remove(&name)
    }
}
