//! [`Fields`]: reads big-endian fields out of bytes from the other end. Every read is bounded; what
//! is missing is an error that names the field and its offset.

use crate::Error;

/// A position in a message.
pub(crate) struct Fields<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Fields<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Fields { bytes, at: 0 }
    }

    /// The next `len` bytes.
    pub(crate) fn take(&mut self, field: &'static str, len: usize) -> Result<&'a [u8], Error> {
        let rest = self.bytes.get(self.at..).unwrap_or(&[]);
        let Some(taken) = rest.get(..len) else {
            let problem = format!("needs {len} bytes, {} are left", rest.len());
            return Err(Error::protocol(field, self.at, problem));
        };
        self.at += len;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self, field: &'static str) -> Result<[u8; N], Error> {
        let mut array = [0; N];
        array.copy_from_slice(self.take(field, N)?);
        Ok(array)
    }

    pub(crate) fn u16(&mut self, field: &'static str) -> Result<u16, Error> {
        Ok(u16::from_be_bytes(self.array(field)?))
    }

    pub(crate) fn u32(&mut self, field: &'static str) -> Result<u32, Error> {
        Ok(u32::from_be_bytes(self.array(field)?))
    }

    pub(crate) fn u64(&mut self, field: &'static str) -> Result<u64, Error> {
        Ok(u64::from_be_bytes(self.array(field)?))
    }

    /// A 32-bit length of at most `limit` and so many bytes.
    pub(crate) fn string(&mut self, field: &'static str, limit: usize) -> Result<&'a [u8], Error> {
        let at = self.at;
        let len = self.u32(field)? as usize;
        if len > limit {
            return Err(Error::protocol(field, at, format!("{len} bytes, more than {limit}")));
        }
        self.take(field, len)
    }

    /// What is left.
    pub(crate) fn rest(&mut self) -> &'a [u8] {
        let rest = self.bytes.get(self.at..).unwrap_or(&[]);
        self.at = self.bytes.len();
        rest
    }

    /// Checks that nothing is left.
    pub(crate) fn end(&self, field: &'static str) -> Result<(), Error> {
        match self.bytes.len().saturating_sub(self.at) {
            0 => Ok(()),
            left => Err(Error::protocol(field, self.at, format!("{left} bytes too many"))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_short_message_names_the_field_and_its_offset() {
        let mut fields = Fields::new(&[0, 1, 0]);
        assert_eq!(fields.u16("count").ok(), Some(1));
        let error = fields.u32("length").unwrap_err().to_string();
        assert!(error.contains("length at byte 2"), "{error}");
    }

    #[test]
    fn a_string_is_bounded_before_it_is_taken() {
        let bytes = [0xff, 0xff, 0xff, 0xff, 1];
        let error = Fields::new(&bytes).string("name", 4096).unwrap_err().to_string();
        assert!(error.contains("more than 4096"), "{error}");
    }
}
