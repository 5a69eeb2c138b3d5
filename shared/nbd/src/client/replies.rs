//! Replies as the client reads them: finds the next one in a buffer, checks it against what was
//! asked, and collects the chunks of each command.
//!
//! Pure. No reply makes the client allocate more than the command that it answers asked for.

use std::collections::BTreeMap;

use bytes::{Buf, Bytes, BytesMut};

use super::negotiate::Agreed;
use crate::encode::Style;
use crate::fields::Fields;
use crate::protocol::{
    EXTENDED_REPLY_MAGIC, SIMPLE_REPLY_MAGIC, STRUCTURED_REPLY_MAGIC, chunk, command,
};
use crate::{Errno, Error, Extent};

/// The most bytes of a chunk beside the data of a read: extents, messages.
const MAX_SIDE_BYTES: u64 = 17 << 20;

/// A command's answer.
#[derive(Debug)]
pub(crate) enum Answer {
    Done,
    Data(Bytes),
    Extents(BTreeMap<String, Vec<Extent>>),
}

/// A command that waits for its answer, and what came of it.
pub(crate) struct Pending {
    pub(crate) command: u16,
    pub(crate) offset: u64,
    pub(crate) len: u64,
    data: Vec<u8>,
    covered: u64,
    extents: BTreeMap<String, Vec<Extent>>,
    error: Option<Errno>,
}

impl Pending {
    pub(crate) fn new(command: u16, offset: u64, len: u64) -> Pending {
        let (data, extents) = (Vec::new(), BTreeMap::new());
        Pending { command, offset, len, data, covered: 0, extents, error: None }
    }

    /// The answer, when the last chunk is in.
    pub(crate) fn finish(self) -> Result<Answer, Error> {
        if let Some(errno) = self.error {
            return Err(Error::Command(errno));
        }
        match self.command {
            command::READ if self.covered != self.len => {
                Err(Error::protocol("chunks", 0, "a read was answered in part"))
            }
            command::READ => Ok(Answer::Data(self.data.into())),
            command::BLOCK_STATUS => Ok(Answer::Extents(self.extents)),
            _ => Ok(Answer::Done),
        }
    }

    /// The place of `len` bytes at `offset` in the data of a read.
    fn place(&mut self, offset: u64, len: u64) -> Result<&mut [u8], Error> {
        let wrong = || Error::protocol("offset", 0, "a chunk outside of what was asked");
        let from = offset.checked_sub(self.offset).ok_or_else(wrong)?;
        let to = from.checked_add(len).ok_or_else(wrong)?;
        if self.command != command::READ || to > self.len {
            return Err(wrong());
        }
        self.covered += len;
        if self.covered > self.len {
            return Err(Error::protocol("chunks", 0, "chunks overlap"));
        }
        self.data.resize(self.len as usize, 0);
        self.data.get_mut(from as usize..to as usize).ok_or_else(wrong)
    }
}

/// The head of a reply or chunk.
struct Head {
    len: usize,
    flags: u16,
    kind: u16,
    cookie: u64,
    payload_len: u64,
    /// Of a simple reply.
    error: u32,
}

/// Takes the next complete reply or chunk from `input` and applies it to the command that it answers.
pub(crate) fn take_reply(
    input: &mut BytesMut,
    agreed: &Agreed,
    pending: &mut BTreeMap<u64, Pending>,
) -> Result<Next, Error> {
    let Some(head) = parse_head(input, agreed.style)? else { return Ok(Next::Need(32)) };
    let Some(command) = pending.get_mut(&head.cookie) else {
        return Err(Error::protocol("cookie", 8, "an answer to nothing"));
    };
    let simple = head.kind == SIMPLE;
    let mut payload_len = head.payload_len;
    if simple && head.error == 0 && command.command == command::READ {
        payload_len = command.len;
    }
    if payload_len > command.len.saturating_add(MAX_SIDE_BYTES) {
        return Err(Error::protocol("length", 16, format!("{payload_len} bytes")));
    }
    let total = head.len + payload_len as usize;
    if input.len() < total {
        return Ok(Next::Need(total));
    }
    input.advance(head.len);
    let payload = input.split_to(payload_len as usize);
    if simple {
        match head.error {
            0 if command.command == command::READ => {
                let (offset, len) = (command.offset, command.len);
                command.place(offset, len)?.copy_from_slice(&payload);
            }
            0 => {}
            error => command.error = Some(Errno::from_wire(error)),
        }
        return Ok(Next::Complete(head.cookie));
    }
    apply_chunk(command, agreed, head.kind, &payload)?;
    let done = head.flags & chunk::DONE != 0;
    Ok(if done { Next::Complete(head.cookie) } else { Next::More })
}

/// What [`take_reply`] found.
pub(crate) enum Next {
    /// The answer to this cookie is complete.
    Complete(u64),
    /// A chunk of an answer that goes on.
    More,
    /// So many bytes are needed.
    Need(usize),
}

/// Stands for a simple reply among the chunk types, none of which has this number.
const SIMPLE: u16 = 0x7fff;

fn parse_head(input: &[u8], style: Style) -> Result<Option<Head>, Error> {
    let mut fields = Fields::new(input);
    if input.len() < 16 {
        return Ok(None);
    }
    let magic = fields.u32("reply magic")?;
    if magic == SIMPLE_REPLY_MAGIC && style != Style::Extended {
        let error = fields.u32("error")?;
        let cookie = fields.u64("cookie")?;
        let head = Head { len: 16, flags: 0, kind: SIMPLE, cookie, payload_len: 0, error };
        return Ok(Some(head));
    }
    let len = match (magic, style) {
        (STRUCTURED_REPLY_MAGIC, Style::Structured) => 20,
        (EXTENDED_REPLY_MAGIC, Style::Extended) => 32,
        _ => return Err(Error::protocol("reply magic", 0, format!("{magic:#010x}"))),
    };
    if input.len() < len {
        return Ok(None);
    }
    let flags = fields.u16("reply flags")?;
    let kind = fields.u16("chunk type")?;
    let cookie = fields.u64("cookie")?;
    let payload_len = if style == Style::Extended {
        fields.u64("offset")?;
        fields.u64("length")?
    } else {
        u64::from(fields.u32("length")?)
    };
    Ok(Some(Head { len, flags, kind, cookie, payload_len, error: 0 }))
}

fn apply_chunk(
    command: &mut Pending,
    agreed: &Agreed,
    kind: u16,
    payload: &[u8],
) -> Result<(), Error> {
    let mut fields = Fields::new(payload);
    match kind {
        chunk::NONE => fields.end("empty chunk"),
        chunk::OFFSET_DATA => {
            let offset = fields.u64("chunk offset")?;
            let data = fields.rest();
            command.place(offset, data.len() as u64)?.copy_from_slice(data);
            Ok(())
        }
        chunk::OFFSET_HOLE => {
            let offset = fields.u64("chunk offset")?;
            let len = u64::from(fields.u32("hole size")?);
            command.place(offset, len)?.fill(0);
            fields.end("hole chunk")
        }
        chunk::BLOCK_STATUS | chunk::BLOCK_STATUS_EXT => {
            let wide = kind == chunk::BLOCK_STATUS_EXT;
            let id = fields.u32("context id")?;
            let Some(name) = agreed.contexts.get(&id) else {
                return Err(Error::protocol("context id", 0, format!("{id} was not selected")));
            };
            let extents = read_extents(&mut fields, payload.len(), wide)?;
            command.extents.insert(name.clone(), extents);
            Ok(())
        }
        _ if kind & chunk::ERROR_BIT != 0 => {
            command.error = Some(Errno::from_wire(fields.u32("error")?));
            Ok(())
        }
        _ => Err(Error::protocol("chunk type", 6, format!("{kind}"))),
    }
}

fn read_extents(
    fields: &mut Fields<'_>,
    payload_len: usize,
    wide: bool,
) -> Result<Vec<Extent>, Error> {
    let count = match wide {
        true => fields.u32("descriptor count")? as usize,
        false => payload_len.saturating_sub(4) / 8,
    };
    let mut extents = Vec::new();
    for _ in 0..count {
        let (len, flags) = match wide {
            true => (fields.u64("extent length")?, fields.u64("extent flags")?),
            false => {
                let len = fields.u32("extent length")?;
                (u64::from(len), u64::from(fields.u32("extent flags")?))
            }
        };
        if len == 0 {
            return Err(Error::protocol("extent length", 0, "an empty extent"));
        }
        extents.push(Extent { len, flags });
    }
    fields.end("extents")?;
    Ok(extents)
}
