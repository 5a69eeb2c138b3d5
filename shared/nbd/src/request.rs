//! Requests: their headers, and the [`Rules`] by which each is carried out or refused.
//!
//! Pure: bytes and a description in, a plan or an error out. What passes here is inside the export,
//! aligned, of a bounded length, and uses only what was offered and negotiated.

use crate::encode::Style;
use crate::export::Description;
use crate::fields::Fields;
use crate::protocol::{EXTENDED_REQUEST_MAGIC, REQUEST_MAGIC, command, flag};
use crate::{Errno, Error};

/// A request's header as it came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) flags: u16,
    pub(crate) command: u16,
    pub(crate) cookie: u64,
    pub(crate) offset: u64,
    /// Length of the payload or of the effect.
    pub(crate) len: u64,
    /// Bytes that follow the header.
    pub(crate) payload_len: u64,
}

impl Header {
    /// Parses a header; `bytes` has [`Style::request_len`] bytes. Only a wrong magic is an error:
    /// after it nothing that follows can be understood.
    pub(crate) fn parse(style: Style, bytes: &[u8]) -> Result<Header, Error> {
        let mut fields = Fields::new(bytes);
        let magic = fields.u32("request magic")?;
        let extended = style == Style::Extended;
        let expected = if extended { EXTENDED_REQUEST_MAGIC } else { REQUEST_MAGIC };
        if magic != expected {
            let problem = format!("{magic:#010x} instead of {expected:#010x}");
            return Err(Error::protocol("request magic", 0, problem));
        }
        let flags = fields.u16("command flags")?;
        let command = fields.u16("command")?;
        let cookie = fields.u64("cookie")?;
        let offset = fields.u64("offset")?;
        let len = if extended { fields.u64("length")? } else { u64::from(fields.u32("length")?) };
        // A write always has a payload. QEMU's client (10.0) leaves the flag out that should say so
        // with extended headers; its own server overlooks that, and so do we.
        let flagged = extended && flags & flag::PAYLOAD_LEN != 0;
        let has_payload = flagged || command == command::WRITE;
        let payload_len = if has_payload { len } else { 0 };
        Ok(Header { flags, command, cookie, offset, len, payload_len })
    }

    /// The longest payload that is read or skipped before the connection is given up, in bytes.
    pub(crate) fn payload_bound(max_payload: u32) -> u64 {
        u64::from(max_payload.max(crate::protocol::DEFAULT_MAX_PAYLOAD))
    }
}

/// What to do for a request that passed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Plan {
    Read { whole: bool },
    Write { fua: bool },
    Disconnect,
    Flush,
    Trim { fua: bool },
    Cache,
    WriteZeroes { fua: bool, no_hole: bool, fast_zero: bool },
    BlockStatus { req_one: bool },
}

/// What a connection may ask.
#[derive(Clone, Debug)]
pub(crate) struct Rules {
    pub(crate) style: Style,
    pub(crate) description: Description,
    /// Metadata contexts that the client selected, as positions in the description.
    pub(crate) contexts: Vec<usize>,
}

impl Rules {
    /// Decides over a request.
    pub(crate) fn check(&self, header: &Header) -> Result<Plan, Errno> {
        let features = &self.description.features;
        let has = |bit: u16| header.flags & bit != 0;
        let fua = has(flag::FUA);
        let (plan, allowed) = match header.command {
            command::READ => (Plan::Read { whole: has(flag::DF) }, self.if_chunked(flag::DF)),
            command::WRITE => (Plan::Write { fua }, self.if_extended(flag::PAYLOAD_LEN)),
            // The fields of a disconnect do not matter: the client is going.
            command::DISC => return Ok(Plan::Disconnect),
            command::FLUSH if features.flush => (Plan::Flush, 0),
            command::TRIM if features.trim => (Plan::Trim { fua }, 0),
            command::CACHE if features.cache => (Plan::Cache, 0),
            command::WRITE_ZEROES if features.zeroes => {
                let fast_zero = has(flag::FAST_ZERO);
                let fast_bit = if features.fast_zero { flag::FAST_ZERO } else { 0 };
                let no_hole = has(flag::NO_HOLE);
                (Plan::WriteZeroes { fua, no_hole, fast_zero }, flag::NO_HOLE | fast_bit)
            }
            command::BLOCK_STATUS if !self.contexts.is_empty() => {
                (Plan::BlockStatus { req_one: has(flag::REQ_ONE) }, flag::REQ_ONE)
            }
            _ => return Err(Errno::Invalid),
        };
        let fua_bit = if features.fua { flag::FUA } else { 0 };
        if header.flags & !(allowed | fua_bit) != 0 {
            return Err(Errno::Invalid);
        }
        self.check_range(header, plan)?;
        Ok(plan)
    }

    fn if_chunked(&self, bit: u16) -> u16 {
        if self.style == Style::Simple { 0 } else { bit }
    }

    fn if_extended(&self, bit: u16) -> u16 {
        if self.style == Style::Extended { bit } else { 0 }
    }

    fn check_range(&self, header: &Header, plan: Plan) -> Result<(), Errno> {
        let Header { offset, len, .. } = *header;
        if plan == Plan::Flush {
            return if offset == 0 && len == 0 { Ok(()) } else { Err(Errno::Invalid) };
        }
        let changes =
            matches!(plan, Plan::Write { .. } | Plan::Trim { .. } | Plan::WriteZeroes { .. });
        if changes && self.description.read_only {
            return Err(Errno::Perm);
        }
        let too_long = len > u64::from(self.description.blocks.max_payload);
        match plan {
            Plan::Read { .. } if too_long && self.style == Style::Simple => {
                return Err(Errno::Invalid);
            }
            Plan::Read { .. } if too_long => return Err(Errno::Overflow),
            Plan::Write { .. } if too_long => return Err(Errno::Invalid),
            _ => {}
        }
        let unit = u64::from(self.description.blocks.minimum.max(1));
        // The specification leaves an empty range open; it is refused, as most servers do.
        if len == 0 || !offset.is_multiple_of(unit) || !len.is_multiple_of(unit) {
            return Err(Errno::Invalid);
        }
        let inside = offset.checked_add(len).is_some_and(|end| end <= self.description.size_bytes);
        match plan {
            _ if inside => Ok(()),
            Plan::Write { .. } | Plan::WriteZeroes { .. } => Err(Errno::NoSpace),
            _ => Err(Errno::Invalid),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::export::{BlockSizes, Features};

    fn rules(style: Style) -> Rules {
        let description = Description {
            size_bytes: 1 << 30,
            text: String::new(),
            read_only: false,
            blocks: BlockSizes { minimum: 512, preferred: 4096, max_payload: 1 << 20 },
            features: Features::ALL,
            contexts: vec!["base:allocation".into()],
        };
        Rules { style, description, contexts: vec![0] }
    }

    fn ask(rules: &Rules, command: u16, flags: u16, offset: u64, len: u64) -> Result<Plan, Errno> {
        rules.check(&Header { flags, command, cookie: 0, offset, len, payload_len: 0 })
    }

    #[test]
    fn ranges_are_answered_as_the_protocol_says() {
        let r = rules(Style::Structured);
        let end = 1 << 30;
        assert_eq!(ask(&r, command::READ, 0, end - 512, 1024), Err(Errno::Invalid));
        assert_eq!(ask(&r, command::WRITE, 0, end - 512, 1024), Err(Errno::NoSpace));
        assert_eq!(ask(&r, command::WRITE_ZEROES, 0, end, 512), Err(Errno::NoSpace));
        assert_eq!(ask(&r, command::TRIM, 0, end, 512), Err(Errno::Invalid));
        assert_eq!(ask(&r, command::BLOCK_STATUS, 0, end, 512), Err(Errno::Invalid));
        let huge = u64::MAX - 511;
        assert_eq!(ask(&r, command::WRITE, 0, huge, 512), Err(Errno::NoSpace));
        assert_eq!(ask(&r, command::READ, 0, 0, 0), Err(Errno::Invalid));
        assert_eq!(ask(&r, command::READ, 0, 100, 512), Err(Errno::Invalid));
        assert_eq!(ask(&r, command::READ, 0, 512, 100), Err(Errno::Invalid));
        assert_eq!(ask(&r, command::READ, 0, 512, 512), Ok(Plan::Read { whole: false }));
        assert_eq!(ask(&r, command::FLUSH, 0, 0, 512), Err(Errno::Invalid));
    }

    #[test]
    fn long_requests_are_refused_by_kind() {
        let r = rules(Style::Structured);
        let long = (1 << 20) + 512;
        assert_eq!(ask(&r, command::READ, 0, 0, long), Err(Errno::Overflow));
        assert_eq!(ask(&rules(Style::Simple), command::READ, 0, 0, long), Err(Errno::Invalid));
        assert_eq!(ask(&r, command::WRITE, 0, 0, long), Err(Errno::Invalid));
        assert_eq!(ask(&r, command::TRIM, 0, 0, long), Ok(Plan::Trim { fua: false }));
    }

    #[test]
    fn flags_must_be_documented_for_their_command() {
        let r = rules(Style::Structured);
        let expect = |command, flags, ok: bool| {
            assert_eq!(ask(&r, command, flags, 0, 512).is_ok(), ok, "{command} {flags:#x}");
        };
        expect(command::READ, flag::DF, true);
        expect(command::READ, flag::FUA, true);
        expect(command::READ, flag::NO_HOLE, false);
        expect(command::WRITE, flag::FUA, true);
        expect(command::WRITE, flag::DF, false);
        expect(command::WRITE, flag::PAYLOAD_LEN, false);
        expect(command::WRITE_ZEROES, flag::NO_HOLE | flag::FAST_ZERO | flag::FUA, true);
        expect(command::BLOCK_STATUS, flag::REQ_ONE, true);
        expect(command::TRIM, flag::REQ_ONE, false);
        expect(command::READ, 1 << 9, false);
        let simple = rules(Style::Simple);
        assert_eq!(ask(&simple, command::READ, flag::DF, 0, 512), Err(Errno::Invalid));
        let extended = rules(Style::Extended);
        for flags in [0, flag::PAYLOAD_LEN] {
            let write = ask(&extended, command::WRITE, flags, 0, 512);
            assert_eq!(write, Ok(Plan::Write { fua: false }));
        }
        let read = ask(&extended, command::READ, flag::PAYLOAD_LEN, 0, 512);
        assert_eq!(read, Err(Errno::Invalid));
    }

    #[test]
    fn what_is_not_offered_is_invalid_and_read_only_is_not_permitted() {
        let mut r = rules(Style::Structured);
        r.description.read_only = true;
        for command in [command::WRITE, command::TRIM, command::WRITE_ZEROES] {
            assert_eq!(ask(&r, command, 0, 0, 512), Err(Errno::Perm));
        }
        r.description.features = Features::default();
        r.contexts.clear();
        for command in [command::FLUSH, command::TRIM, command::CACHE, command::BLOCK_STATUS, 99] {
            assert_eq!(ask(&r, command, 0, 0, 512), Err(Errno::Invalid));
        }
        assert_eq!(ask(&r, command::READ, flag::FUA, 0, 512), Err(Errno::Invalid));
    }

    #[test]
    fn a_wrong_magic_is_named() {
        let error = Header::parse(Style::Simple, &[1; 28]).unwrap_err().to_string();
        assert!(error.contains("request magic at byte 0"), "{error}");
        assert!(Header::parse(Style::Extended, &[1; 3]).is_err());
    }
}
