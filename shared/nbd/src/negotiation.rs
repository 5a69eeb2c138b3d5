//! The option phase as a state machine: one option in, replies out, and what comes next.
//!
//! Pure: no sockets, no waiting. [`handshake`](crate::handshake) moves the bytes. Every reply of one
//! option is appended before the step is returned.

use std::rc::Rc;

use crate::encode::{Style, clipped};
use crate::export::{Description, Export};
use crate::fields::Fields;
use crate::protocol::{MAX_STRING, OPTION_REPLY_MAGIC, info, option, reply, transmission};
use crate::request::Rules;
use crate::{Error, Features};

/// The exports of a server, in order; the first is also the default one.
pub(crate) type Exports = [(String, Rc<dyn Export>)];

/// The most metadata context queries of one option.
const MAX_QUERIES: u32 = 256;

/// What is known about TLS on this connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tls {
    /// Not offered.
    Never,
    /// Required, and not begun.
    Required,
    /// In use.
    Active,
}

/// What comes after an option.
pub(crate) enum Step {
    /// The next option.
    Next,
    /// Send the replies, then the TLS handshake.
    StartTls,
    /// Send the replies, then serve.
    Serve(Chosen),
    /// Send the replies, then close.
    Close,
}

/// The outcome of a successful negotiation.
pub(crate) struct Chosen {
    pub(crate) name: String,
    pub(crate) export: Rc<dyn Export>,
    pub(crate) rules: Rules,
}

/// The state of one negotiation.
pub(crate) struct Negotiation<'a> {
    exports: &'a Exports,
    tls: Tls,
    /// The client speaks fixed newstyle.
    fixed: bool,
    /// The client does not want the padding after `EXPORT_NAME`.
    no_zeroes: bool,
    style: Style,
    /// The export by position, and positions of its contexts.
    contexts: Option<(usize, Vec<usize>)>,
}

/// An option that is answered with an error: reply type and words.
type Refusal = (u32, String);

fn refusal<T>(kind: u32, words: &str) -> Result<T, Refusal> {
    Err((kind, words.to_owned()))
}

impl From<Error> for Refusal {
    fn from(error: Error) -> Refusal {
        (reply::ERR_INVALID, error.to_string())
    }
}

impl<'a> Negotiation<'a> {
    pub(crate) fn new(exports: &'a Exports, tls: Tls, fixed: bool, no_zeroes: bool) -> Self {
        Negotiation { exports, tls, fixed, no_zeroes, style: Style::Simple, contexts: None }
    }

    /// TLS is in use now. Nothing that was agreed before it counts.
    pub(crate) fn tls_started(&mut self) {
        self.tls = Tls::Active;
        self.style = Style::Simple;
        self.contexts = None;
    }

    /// Refuses an option whose data was too long to read.
    pub(crate) fn too_big(&self, code: u32, out: &mut Vec<u8>) {
        put_reply(out, code, reply::ERR_TOO_BIG, b"the option's data is too long");
    }

    /// Refuses an option because the server is being shut down.
    pub(crate) fn shutdown(&self, code: u32, out: &mut Vec<u8>) -> Step {
        match code {
            option::ABORT => self.abort(out),
            option::EXPORT_NAME => Step::Close,
            _ => {
                put_reply(out, code, reply::ERR_SHUTDOWN, b"the server is being shut down");
                Step::Next
            }
        }
    }

    fn abort(&self, out: &mut Vec<u8>) -> Step {
        put_reply(out, option::ABORT, reply::ACK, &[]);
        Step::Close
    }

    /// Carries out one option.
    pub(crate) fn option(&mut self, code: u32, data: &[u8], out: &mut Vec<u8>) -> Step {
        if code == option::EXPORT_NAME {
            return self.export_name(data, out);
        }
        if !self.fixed {
            // Such a client does not understand replies to anything else.
            return Step::Close;
        }
        if code == option::ABORT {
            return self.abort(out);
        }
        match self.answer(code, data, out) {
            Ok(step) => step,
            Err((kind, words)) => {
                put_reply(out, code, kind, clipped(&words).as_bytes());
                Step::Next
            }
        }
    }

    fn answer(&mut self, code: u32, data: &[u8], out: &mut Vec<u8>) -> Result<Step, Refusal> {
        if self.tls == Tls::Required && code != option::STARTTLS {
            return refusal(
                reply::ERR_TLS_REQD,
                "this server speaks only TLS: send STARTTLS first",
            );
        }
        let without_data =
            [option::LIST, option::STARTTLS, option::STRUCTURED_REPLY, option::EXTENDED_HEADERS];
        if without_data.contains(&code) && !data.is_empty() {
            return refusal(reply::ERR_INVALID, "this option carries no data");
        }
        match code {
            option::LIST => self.list(out),
            option::STARTTLS => return self.starttls(out),
            option::INFO | option::GO => return self.info(code, data, out),
            option::STRUCTURED_REPLY => match self.style {
                Style::Extended => {
                    let words = "extended headers are in use already";
                    return refusal(reply::ERR_EXT_HEADER_REQD, words);
                }
                _ => self.style = Style::Structured,
            },
            option::EXTENDED_HEADERS => self.style = Style::Extended,
            option::LIST_META_CONTEXT | option::SET_META_CONTEXT => {
                self.meta_context(code, data, out)?;
            }
            _ => return refusal(reply::ERR_UNSUP, "this server does not know the option"),
        }
        put_reply(out, code, reply::ACK, &[]);
        Ok(Step::Next)
    }

    /// The position of the export with that name; the empty name is the first one.
    fn find(&self, name: &[u8]) -> Option<usize> {
        match name {
            [] => (!self.exports.is_empty()).then_some(0),
            _ => self.exports.iter().position(|(n, _)| n.as_bytes() == name),
        }
    }

    fn export_name(&mut self, data: &[u8], out: &mut Vec<u8>) -> Step {
        // This option has no way to answer with an error.
        let unfit = self.tls == Tls::Required || self.style == Style::Extended;
        let Some(at) = self.find(data).filter(|_| !unfit) else { return Step::Close };
        let Some(chosen) = self.choose(at) else { return Step::Close };
        out.extend_from_slice(&chosen.rules.description.size_bytes.to_be_bytes());
        out.extend_from_slice(&self.flags(&chosen.rules.description).to_be_bytes());
        if !self.no_zeroes {
            out.extend_from_slice(&[0; 124]);
        }
        Step::Serve(chosen)
    }

    fn choose(&self, at: usize) -> Option<Chosen> {
        let (name, export) = self.exports.get(at)?;
        let contexts = match &self.contexts {
            Some((of, contexts)) if *of == at => contexts.clone(),
            _ => Vec::new(),
        };
        let rules = Rules { style: self.style, description: export.describe(), contexts };
        Some(Chosen { name: name.clone(), export: Rc::clone(export), rules })
    }

    fn flags(&self, description: &Description) -> u16 {
        let Features { flush, fua, trim, zeroes, fast_zero, cache, multi_conn, rotational } =
            description.features;
        let bits = [
            (true, transmission::HAS_FLAGS),
            (description.read_only, transmission::READ_ONLY),
            (flush, transmission::SEND_FLUSH),
            (fua, transmission::SEND_FUA),
            (trim, transmission::SEND_TRIM),
            (zeroes, transmission::SEND_WRITE_ZEROES),
            (zeroes && fast_zero, transmission::SEND_FAST_ZERO),
            (cache, transmission::SEND_CACHE),
            (multi_conn, transmission::CAN_MULTI_CONN),
            (rotational, transmission::ROTATIONAL),
            (self.style != Style::Simple, transmission::SEND_DF),
        ];
        bits.iter().filter(|(set, _)| *set).map(|(_, bit)| bit).sum()
    }

    fn list(&self, out: &mut Vec<u8>) {
        for (name, export) in self.exports {
            let mut data = (name.len() as u32).to_be_bytes().to_vec();
            data.extend_from_slice(name.as_bytes());
            data.extend_from_slice(clipped(&export.describe().text).as_bytes());
            put_reply(out, option::LIST, reply::SERVER, &data);
        }
    }

    fn starttls(&self, out: &mut Vec<u8>) -> Result<Step, Refusal> {
        match self.tls {
            Tls::Never => refusal(reply::ERR_POLICY, "this socket does not speak TLS"),
            Tls::Active => refusal(reply::ERR_INVALID, "TLS is in use already"),
            Tls::Required => {
                put_reply(out, option::STARTTLS, reply::ACK, &[]);
                Ok(Step::StartTls)
            }
        }
    }

    fn info(&self, code: u32, data: &[u8], out: &mut Vec<u8>) -> Result<Step, Refusal> {
        let mut fields = Fields::new(data);
        let name = fields.string("export name", MAX_STRING)?;
        let count = fields.u16("number of information requests")?;
        let mut asked = [false; 4];
        for _ in 0..count {
            let item = fields.u16("information request")?;
            if let Some(slot) = asked.get_mut(usize::from(item)) {
                *slot = true;
            }
        }
        fields.end("information requests")?;
        let Some(chosen) = self.find(name).and_then(|at| self.choose(at)) else {
            return refusal(reply::ERR_UNKNOWN, "there is no export of that name");
        };
        let description = &chosen.rules.description;
        let size = description.size_bytes.to_be_bytes();
        put_info(out, code, info::EXPORT, &[&size, &self.flags(description).to_be_bytes()]);
        if asked[usize::from(info::NAME)] {
            put_info(out, code, info::NAME, &[chosen.name.as_bytes()]);
        }
        if asked[usize::from(info::DESCRIPTION)] && !description.text.is_empty() {
            put_info(out, code, info::DESCRIPTION, &[clipped(&description.text).as_bytes()]);
        }
        let blocks = &description.blocks;
        let (minimum, preferred) = (blocks.minimum.to_be_bytes(), blocks.preferred.to_be_bytes());
        let sizes: [&[u8]; 3] = [&minimum, &preferred, &blocks.max_payload.to_be_bytes()];
        put_info(out, code, info::BLOCK_SIZE, &sizes);
        put_reply(out, code, reply::ACK, &[]);
        Ok(if code == option::GO { Step::Serve(chosen) } else { Step::Next })
    }

    fn meta_context(&mut self, code: u32, data: &[u8], out: &mut Vec<u8>) -> Result<(), Refusal> {
        let set = code == option::SET_META_CONTEXT;
        if set {
            self.contexts = None;
            if self.style == Style::Simple {
                return refusal(reply::ERR_INVALID, "ask for structured replies first");
            }
        }
        let mut fields = Fields::new(data);
        let name = fields.string("export name", MAX_STRING)?;
        let count = fields.u32("number of queries")?;
        if count > MAX_QUERIES {
            return refusal(reply::ERR_TOO_BIG, "too many queries");
        }
        let mut queries = Vec::new();
        for _ in 0..count {
            queries.push(fields.string("query", MAX_STRING)?);
        }
        fields.end("queries")?;
        let Some(at) = self.find(name) else {
            return refusal(reply::ERR_UNKNOWN, "there is no export of that name");
        };
        let offered = match self.exports.get(at) {
            Some((_, export)) => export.describe().contexts,
            None => Vec::new(),
        };
        let matches = |context: &str| match queries.is_empty() {
            true => !set,
            false => queries.iter().any(|query| selects(query, context, !set)),
        };
        let mut chosen = Vec::new();
        for (position, context) in offered.iter().enumerate().filter(|(_, c)| matches(c)) {
            let id = if set { position as u32 } else { 0 };
            let data = [&id.to_be_bytes(), context.as_bytes()].concat();
            put_reply(out, code, reply::META_CONTEXT, &data);
            chosen.push(position);
        }
        if set {
            self.contexts = Some((at, chosen));
        }
        Ok(())
    }
}

/// Whether a query names a context. Where wildcards are allowed, `namespace:` names all of it.
fn selects(query: &[u8], context: &str, wildcards: bool) -> bool {
    let namespace = context.split_inclusive(':').next().unwrap_or(context);
    query == context.as_bytes() || (wildcards && query == namespace.as_bytes())
}

fn put_reply(out: &mut Vec<u8>, code: u32, kind: u32, data: &[u8]) {
    out.extend_from_slice(&OPTION_REPLY_MAGIC.to_be_bytes());
    out.extend_from_slice(&code.to_be_bytes());
    out.extend_from_slice(&kind.to_be_bytes());
    out.extend_from_slice(&(data.len() as u32).to_be_bytes());
    out.extend_from_slice(data);
}

fn put_info(out: &mut Vec<u8>, code: u32, item: u16, parts: &[&[u8]]) {
    let mut data = item.to_be_bytes().to_vec();
    for part in parts {
        data.extend_from_slice(part);
    }
    put_reply(out, code, reply::INFO, &data);
}
