//! Fixed little-endian fields, read from foreign bytes with a bound before every slice.
//!
//! A reader names the field and the byte offset (inside the file) of whatever is wrong. It never
//! panics and allocates nothing.

/// A field that is cut off or holds what it may not hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("field `{field}` at byte {offset}: {why}")]
pub struct BadField {
    /// The field's name as in `docs/formats`.
    pub field: &'static str,
    /// Where it begins, counted from the start of the file.
    pub offset: u64,
    /// What is wrong with it.
    pub why: &'static str,
}

/// Reads fields one after the other.
#[derive(Debug, Clone)]
pub(crate) struct Fields<'a> {
    bytes: &'a [u8],
    at: usize,
    base: u64,
}

impl<'a> Fields<'a> {
    /// Reads `bytes`, which begin at `base` of their file.
    pub(crate) fn new(bytes: &'a [u8], base: u64) -> Self {
        Fields { bytes, at: 0, base }
    }

    /// An error that names `field` at the present place.
    pub(crate) fn bad(&self, field: &'static str, why: &'static str) -> BadField {
        BadField { field, offset: self.base + self.at as u64, why }
    }

    /// The next `len` bytes.
    pub(crate) fn slice(&mut self, len: usize, field: &'static str) -> Result<&'a [u8], BadField> {
        let end = self.at.checked_add(len);
        let slice = end.and_then(|end| self.bytes.get(self.at..end));
        let slice = slice.ok_or(self.bad(field, "cut off"))?;
        self.at += len;
        Ok(slice)
    }

    /// The next `N` bytes as an array.
    pub(crate) fn array<const N: usize>(
        &mut self,
        field: &'static str,
    ) -> Result<[u8; N], BadField> {
        let why = self.bad(field, "cut off");
        self.slice(N, field)?.try_into().map_err(|_| why)
    }

    pub(crate) fn u8(&mut self, field: &'static str) -> Result<u8, BadField> {
        self.array::<1>(field).map(|[byte]| byte)
    }

    pub(crate) fn u16(&mut self, field: &'static str) -> Result<u16, BadField> {
        self.array(field).map(u16::from_le_bytes)
    }

    pub(crate) fn u32(&mut self, field: &'static str) -> Result<u32, BadField> {
        self.array(field).map(u32::from_le_bytes)
    }

    pub(crate) fn u64(&mut self, field: &'static str) -> Result<u64, BadField> {
        self.array(field).map(u64::from_le_bytes)
    }

    /// A variable-length number: seven bits a byte, least significant first, at most ten bytes.
    pub(crate) fn varint(&mut self, field: &'static str) -> Result<u64, BadField> {
        let start = self.bad(field, "a number of more than 64 bits");
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = self.u8(field)?;
            let bits = u64::from(byte & 0x7f);
            if bits << shift >> shift != bits {
                return Err(start);
            }
            value |= bits << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(start)
    }

    /// Bytes that must be zero in this version.
    pub(crate) fn zeros(&mut self, len: usize, field: &'static str) -> Result<(), BadField> {
        let bad = self.bad(field, "reserved bytes are not zero");
        if self.slice(len, field)?.iter().all(|&b| b == 0) { Ok(()) } else { Err(bad) }
    }

    /// The bytes not read yet.
    pub(crate) fn rest(&self) -> &'a [u8] {
        self.bytes.get(self.at..).unwrap_or_default()
    }

    /// Fails unless all was read.
    pub(crate) fn end(&self, field: &'static str) -> Result<(), BadField> {
        if self.rest().is_empty() { Ok(()) } else { Err(self.bad(field, "bytes after the end")) }
    }
}

/// Appends a variable-length number, see [`Fields::varint`].
pub(crate) fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_cut_field_is_named_with_its_place() {
        let mut fields = Fields::new(&[1, 0, 2], 100);
        assert_eq!(fields.u16("a"), Ok(1));
        let bad = fields.u32("b");
        assert_eq!(bad, Err(BadField { field: "b", offset: 102, why: "cut off" }));
        assert!(fields.slice(usize::MAX, "c").is_err());
        assert!(fields.end("d").is_err());
    }

    proptest! {
        #[test]
        fn varints_round_trip(value: u64) {
            let mut bytes = Vec::new();
            put_varint(&mut bytes, value);
            let mut fields = Fields::new(&bytes, 0);
            prop_assert_eq!(fields.varint("v"), Ok(value));
            prop_assert!(fields.end("v").is_ok());
        }

        #[test]
        fn random_varints_do_not_panic(bytes: Vec<u8>) {
            let mut fields = Fields::new(&bytes, 0);
            while fields.varint("v").is_ok() {}
        }
    }
}
