//! The ticket: what a source hands to a site that shall become its replica. Readable text, signed by
//! the source. Format: `docs/formats/ticket.md`.
//!
//! A ticket holds no secret. [`Ticket::parse`] proves that it is whole and signed by the identity that
//! it names; that this identity is the right one is for people to compare by fingerprint, or for the
//! caller with [`Ticket::verify_from`].

use grain::{Geometry, RelationshipId};
use serde::{Deserialize, Serialize};

use crate::{Error, Identity, Signature, SiteKeys, codec};

const FIRST_LINE: &str = "grainhaul ticket 1";
const DOMAIN: &str = "ticket 1";

/// What a ticket says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TicketContent {
    /// Which relationship.
    pub relationship: RelationshipId,
    /// Its name at the source: 1 to 64 of `A-Z a-z 0-9 . _ -`.
    pub name: String,
    /// Grain size and volumes.
    pub geometry: Geometry,
    /// Where the source listens: `HOST:PORT`, tried in this order. May be empty.
    pub addresses: Vec<String>,
    /// The source's identity.
    pub primary: Identity,
}

/// A ticket whose signature was checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ticket {
    content: TicketContent,
    signature: Signature,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct OnDisk {
    ticket: TicketContent,
    signature: Signature,
}

impl Ticket {
    /// The longest ticket, in bytes.
    pub const MAX_BYTES: usize = 64 << 10;
    /// The most addresses.
    pub const MAX_ADDRESSES: usize = 16;

    /// Makes a ticket. Fails when a bound is broken or `keys` are not those of `content.primary`.
    pub fn sign(content: TicketContent, keys: &SiteKeys) -> Result<Self, Error> {
        validate(&content)?;
        if content.primary != keys.identity() {
            return Err(Error::Ticket("its primary is not the site that signs it".into()));
        }
        let signature = keys.sign(DOMAIN, &codec::encode(&content)?);
        Ok(Ticket { content, signature })
    }

    /// Reads `NAME.ticket` and checks bounds and signature.
    pub fn parse(bytes: &[u8]) -> Result<Self, Error> {
        if bytes.len() > Self::MAX_BYTES {
            let (bytes, limit) = (bytes.len() as u64, Self::MAX_BYTES as u64);
            return Err(Error::TooLong { what: "the ticket", bytes, limit });
        }
        let fail = |why: String| Err(Error::Ticket(why));
        let Ok(text) = std::str::from_utf8(bytes) else {
            return fail("it is not text".into());
        };
        let (first, body) = text.split_once('\n').unwrap_or((text, ""));
        match first.trim_end().strip_prefix("grainhaul ticket ") {
            Some("1") => {}
            Some(version) => {
                let version: String = version.chars().take(20).collect();
                return fail(format!("it has version {version:?}; this program knows 1"));
            }
            None => return fail(format!("its first line is not `{FIRST_LINE}`")),
        }
        let on_disk: OnDisk = match serde_json::from_str(body) {
            Ok(on_disk) => on_disk,
            Err(e) => return fail(format!("{e}, counted after the first line")),
        };
        validate(&on_disk.ticket)?;
        let ticket = Ticket { content: on_disk.ticket, signature: on_disk.signature };
        ticket.check_signature()?;
        Ok(ticket)
    }

    fn check_signature(&self) -> Result<(), Error> {
        // The values are signed, not the text: a mail program may change line ends and indents.
        let message = codec::encode(&self.content)?;
        self.content.primary.verify(DOMAIN, &message, &self.signature)
    }

    /// Checks that this ticket is by `primary`, a key that is known already.
    pub fn verify_from(&self, primary: &Identity) -> Result<(), Error> {
        if self.content.primary == *primary {
            return Ok(());
        }
        Err(Error::Ticket(format!(
            "it is signed by another site ({}) than the one known ({})",
            self.content.primary.fingerprint(),
            primary.fingerprint()
        )))
    }

    /// What it says.
    pub fn content(&self) -> &TicketContent {
        &self.content
    }

    /// The content of `NAME.ticket`.
    pub fn to_text(&self) -> Result<String, Error> {
        let on_disk = OnDisk { ticket: self.content.clone(), signature: self.signature };
        let body =
            serde_json::to_string_pretty(&on_disk).map_err(|e| Error::Encode(e.to_string()))?;
        Ok(format!("{FIRST_LINE}\n{body}\n"))
    }
}

fn validate(content: &TicketContent) -> Result<(), Error> {
    let fail = |why: String| Err(Error::Ticket(why));
    let good = |c: u8| c.is_ascii_alphanumeric() || b"._-".contains(&c);
    let name = &content.name;
    let named = (1..=64).contains(&name.len()) && !name.starts_with(['.', '-']);
    if !named || !name.bytes().all(good) {
        let name: String = name.chars().take(80).collect();
        return fail(format!("{name:?} cannot name a relationship"));
    }
    if let Err(e) = content.geometry.validate() {
        return fail(e.to_string());
    }
    if content.addresses.len() > Ticket::MAX_ADDRESSES {
        return fail(format!("it has {} addresses", content.addresses.len()));
    }
    for address in &content.addresses {
        check_address(address).map_err(Error::Ticket)?;
    }
    Ok(())
}

/// `HOST:PORT`, with an IPv6 address in brackets. Nothing is looked up.
pub(crate) fn check_address(address: &str) -> Result<(), String> {
    let shown: String = address.chars().take(80).collect();
    let bad = |why: &str| Err(format!("the address {shown:?} {why}"));
    if address.len() > 262 || !address.bytes().all(|c| c.is_ascii_graphic()) {
        return bad("is too long or has characters that no address has");
    }
    let Some((host, port)) = address.rsplit_once(':') else {
        return bad("has no port");
    };
    let digits = port.bytes().all(|c| c.is_ascii_digit());
    if !digits || port.parse::<u16>().is_err() || port == "0" {
        return bad("has no port from 1 to 65535");
    }
    let bracketed = host.strip_prefix('[').and_then(|h| h.strip_suffix(']'));
    let host_ok = match bracketed {
        Some(v6) => v6.parse::<std::net::Ipv6Addr>().is_ok(),
        None => !host.is_empty() && !host.contains([':', '[', ']', '/', '@']),
    };
    if !host_ok {
        return bad("has no host (an IPv6 address stands in brackets)");
    }
    Ok(())
}

#[cfg(test)]
mod tests;
