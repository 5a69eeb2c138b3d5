//! The client's side of the handshake.

use std::collections::BTreeMap;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_rustls::TlsConnector;

use super::ConnectOptions;
use crate::Error;
use crate::encode::Style;
use crate::fields::Fields;
use crate::protocol::{
    MAGIC, MAX_STRING, OPTION_MAGIC, OPTION_REPLY_HEADER_LEN, OPTION_REPLY_MAGIC, handshake, info,
    option, reply,
};
use crate::stream::Stream;

/// The most replies to one option.
const MAX_REPLIES: usize = 4096;
/// The most bytes of one option reply's data.
const MAX_REPLY_BYTES: usize = 3 * MAX_STRING;

/// What was agreed.
pub(crate) struct Agreed {
    pub(crate) size_bytes: u64,
    pub(crate) flags: u16,
    pub(crate) style: Style,
    /// The names of selected contexts by the id that the server gave them.
    pub(crate) contexts: BTreeMap<u32, String>,
}

/// Runs the handshake with `GO`.
pub(crate) async fn negotiate(
    mut stream: Stream,
    options: &ConnectOptions,
) -> Result<(Stream, Agreed), Error> {
    greet(&mut stream).await?;
    if let Some((config, name)) = &options.tls {
        ask(&mut stream, "STARTTLS", option::STARTTLS, &[]).await?;
        let connector = TlsConnector::from(std::sync::Arc::clone(config));
        stream = stream.connect_tls(&connector, name.clone()).await?;
    }
    let style = agree_on_style(&mut stream, options).await?;
    let name = options.export.as_bytes();
    let named = [&(name.len() as u32).to_be_bytes(), name].concat();
    let contexts = select_contexts(&mut stream, options, &named).await?;
    let go = [&named[..], &0_u16.to_be_bytes()].concat();
    for (kind, data) in ask(&mut stream, "GO", option::GO, &go).await? {
        let mut fields = Fields::new(&data);
        if kind == reply::INFO && fields.u16("information type")? == info::EXPORT {
            let size_bytes = fields.u64("export size")?;
            let flags = fields.u16("transmission flags")?;
            return Ok((stream, Agreed { size_bytes, flags, style, contexts }));
        }
    }
    Err(Error::protocol("reply to GO", 0, "no size was given"))
}

async fn greet(stream: &mut Stream) -> Result<(), Error> {
    let mut greeting = [0; 18];
    let read = stream.read_exact(&mut greeting).await;
    read.map_err(Error::io("read the server's greeting"))?;
    let mut fields = Fields::new(&greeting);
    if fields.u64("magic")? != MAGIC || fields.u64("option magic")? != OPTION_MAGIC {
        return Err(Error::protocol("magic", 0, "this is not a newstyle NBD server"));
    }
    let flags = fields.u16("handshake flags")?;
    if flags & handshake::FIXED_NEWSTYLE == 0 {
        return Err(Error::protocol("handshake flags", 16, "no fixed newstyle"));
    }
    let mut ours = handshake::CLIENT_FIXED_NEWSTYLE;
    if flags & handshake::NO_ZEROES != 0 {
        ours |= handshake::CLIENT_NO_ZEROES;
    }
    stream.write_all(&ours.to_be_bytes()).await.map_err(Error::io("send the client's flags"))
}

async fn agree_on_style(stream: &mut Stream, options: &ConnectOptions) -> Result<Style, Error> {
    if options.simple {
        return Ok(Style::Simple);
    }
    let wanted = [
        (options.extended, "EXTENDED_HEADERS", option::EXTENDED_HEADERS, Style::Extended),
        (true, "STRUCTURED_REPLY", option::STRUCTURED_REPLY, Style::Structured),
    ];
    for (_, name, code, style) in wanted.into_iter().filter(|(asked, ..)| *asked) {
        match ask(stream, name, code, &[]).await {
            Ok(_) => return Ok(style),
            Err(Error::Refused { reply: reply::ERR_UNSUP, .. }) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(Style::Simple)
}

async fn select_contexts(
    stream: &mut Stream,
    options: &ConnectOptions,
    named: &[u8],
) -> Result<BTreeMap<u32, String>, Error> {
    let mut contexts = BTreeMap::new();
    if options.contexts.is_empty() {
        return Ok(contexts);
    }
    let mut data = [named, &(options.contexts.len() as u32).to_be_bytes()].concat();
    for context in &options.contexts {
        data.extend_from_slice(&(context.len() as u32).to_be_bytes());
        data.extend_from_slice(context.as_bytes());
    }
    let replies = ask(stream, "SET_META_CONTEXT", option::SET_META_CONTEXT, &data).await?;
    for (kind, data) in replies {
        if kind != reply::META_CONTEXT {
            continue;
        }
        let mut fields = Fields::new(&data);
        let id = fields.u32("context id")?;
        contexts.insert(id, String::from_utf8_lossy(fields.rest()).into_owned());
    }
    Ok(contexts)
}

/// Sends one option and collects its replies up to the `ACK`.
async fn ask(
    stream: &mut Stream,
    name: &'static str,
    code: u32,
    data: &[u8],
) -> Result<Vec<(u32, Vec<u8>)>, Error> {
    let mut message = OPTION_MAGIC.to_be_bytes().to_vec();
    message.extend_from_slice(&code.to_be_bytes());
    message.extend_from_slice(&(data.len() as u32).to_be_bytes());
    message.extend_from_slice(data);
    stream.write_all(&message).await.map_err(Error::io(format!("send {name}")))?;
    stream.flush().await.map_err(Error::io(format!("send {name}")))?;
    let mut replies = Vec::new();
    while replies.len() < MAX_REPLIES {
        let (kind, data) = read_reply(stream, code).await?;
        match kind {
            reply::ACK => return Ok(replies),
            _ if kind & reply::ERROR != 0 => {
                let message = String::from_utf8_lossy(&data).into_owned();
                return Err(Error::Refused { option: name, reply: kind, message });
            }
            _ => replies.push((kind, data)),
        }
    }
    Err(Error::protocol("option replies", 0, format!("more than {MAX_REPLIES} to {name}")))
}

async fn read_reply(stream: &mut Stream, code: u32) -> Result<(u32, Vec<u8>), Error> {
    let mut header = [0; OPTION_REPLY_HEADER_LEN];
    let read = stream.read_exact(&mut header).await;
    read.map_err(Error::io("read an option reply"))?;
    let mut fields = Fields::new(&header);
    if fields.u64("option reply magic")? != OPTION_REPLY_MAGIC {
        return Err(Error::protocol("option reply magic", 0, "wrong"));
    }
    if fields.u32("option")? != code {
        return Err(Error::protocol("option", 8, "a reply to another option"));
    }
    let kind = fields.u32("reply type")?;
    let len = fields.u32("reply length")? as usize;
    if len > MAX_REPLY_BYTES {
        return Err(Error::protocol("reply length", 16, format!("{len} bytes")));
    }
    let mut data = vec![0; len];
    stream.read_exact(&mut data).await.map_err(Error::io("read an option reply"))?;
    Ok((kind, data))
}
