//! A session's connection: messages over the frames of a link.

use std::cell::Cell;
use std::rc::Rc;

use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::mpsc;
use wire::frame::flags;
use wire::link::{Link, LinkReceiver, LinkSender};
use wire::{Frame, Identity};

use super::message::MESSAGE_KIND;
use super::verify::VERIFY_WAITING;
use super::{Message, Refusal, VerifyMessage};
use crate::{Error, Result};

/// The sending half, with the peer's identity. Cheap to clone.
#[derive(Clone)]
pub struct Connection {
    sender: LinkSender,
    peer: Identity,
    sent_payload_bytes: Rc<Cell<u64>>,
}

/// The receiving half.
pub struct Inbox {
    receiver: LinkReceiver,
    diverted: Option<mpsc::Sender<Diverted>>,
}

/// A message of a verification with its payload.
pub type Diverted = (VerifyMessage, Bytes);

/// Splits a link into its halves.
pub fn open(link: Link) -> (Connection, Inbox) {
    let peer = *link.peer();
    let (sender, receiver) = link.split();
    (
        Connection { sender, peer, sent_payload_bytes: Rc::default() },
        Inbox { receiver, diverted: None },
    )
}

fn link_error(e: wire::Error) -> Error {
    Error::Link(e.to_string())
}

impl Connection {
    /// Who is at the other end.
    pub fn peer(&self) -> &Identity {
        &self.peer
    }

    /// Payload bytes sent so far, before any compression.
    pub fn sent_payload_bytes(&self) -> u64 {
        self.sent_payload_bytes.get()
    }

    /// Sends a message; waits while the link's memory is full.
    pub async fn send(&self, message: &Message) -> Result<()> {
        self.send_with(message, Bytes::new()).await
    }

    /// Sends a message with a payload.
    pub async fn send_with(&self, message: &Message, payload: Bytes) -> Result<()> {
        let control = wire::codec::encode(message).map_err(link_error)?;
        let bytes = payload.len() as u64;
        let (kind, control) = (MESSAGE_KIND, control.into());
        let frame = Frame { kind, flags: flags::COMPRESS, control, payload };
        self.sender.send(frame).await.map_err(link_error)?;
        self.sent_payload_bytes.set(self.sent_payload_bytes.get() + bytes);
        Ok(())
    }

    /// Sends a message whose body goes into the payload.
    pub async fn send_body<T: Serialize>(&self, message: &Message, body: &T) -> Result<()> {
        let payload = wire::codec::encode(body).map_err(link_error)?;
        self.send_with(message, payload.into()).await
    }

    /// Ends the link once what was queued has been delivered.
    pub fn close(&self) {
        self.sender.close(wire::link::Closing::Done);
    }

    /// Refuses in words; the session ends. What cannot be sent any more is only logged.
    pub async fn refuse(&self, code: &str, text: impl Into<String>) {
        let refusal = Refusal { code: code.to_owned(), text: text.into() };
        if let Err(e) = self.send(&Message::Refuse(refusal)).await {
            tracing::debug!(error = %e, "a refusal could not be sent");
        }
        self.close();
    }
}

impl Inbox {
    /// The next message and its payload. A refusal comes as an error, and so does the end of the link.
    pub async fn next(&mut self) -> Result<(Message, Bytes)> {
        let next = self.next_or_end().await?;
        next.ok_or_else(|| link_error(wire::Error::Closed))
    }

    /// As [`Inbox::next`], where the other side may close the link in good order: then `None`.
    pub async fn next_or_end(&mut self) -> Result<Option<(Message, Bytes)>> {
        loop {
            match (self.next_of_all().await?, &self.diverted) {
                (Some((Message::Verify(message), payload)), Some(diverted)) => {
                    let sent = diverted.try_send((message, payload));
                    if matches!(sent, Err(mpsc::error::TrySendError::Full(_))) {
                        let text = "more of a verification than was asked for";
                        return Err(Error::Peer(text.to_owned()));
                    }
                }
                (other, _) => return Ok(other),
            }
        }
    }

    /// From here on messages of a verification come out here, and not by [`Inbox::next`], whoever waits
    /// there for what.
    pub fn divert(&mut self) -> mpsc::Receiver<Diverted> {
        let (send, receive) = mpsc::channel(VERIFY_WAITING);
        self.diverted = Some(send);
        receive
    }

    async fn next_of_all(&mut self) -> Result<Option<(Message, Bytes)>> {
        let frame = match self.receiver.recv().await {
            Ok(frame) => frame,
            Err(wire::Error::Closed) => return Ok(None),
            Err(e) => return Err(link_error(e)),
        };
        if frame.kind != MESSAGE_KIND {
            return Err(Error::Peer(format!("a frame of kind {}", frame.kind)));
        }
        let message: Message = wire::codec::decode(&frame.control, wire::frame::MAX_CONTROL_BYTES)
            .map_err(|e| Error::Peer(e.to_string()))?;
        if let Message::Refuse(Refusal { code, text }) = message {
            return Err(Error::Refused { rule: code, detail: text });
        }
        Ok(Some((message, frame.payload)))
    }
}

/// Decodes a body from a payload.
pub fn body<T: DeserializeOwned>(payload: &[u8]) -> Result<T> {
    wire::codec::decode(payload, wire::frame::MAX_PAYLOAD_BYTES)
        .map_err(|e| Error::Peer(e.to_string()))
}

/// The error for a message that does not belong here.
pub fn unexpected(message: &Message) -> Error {
    let text = format!("{message:?}");
    let name = text.split([' ', '(', '{']).next().unwrap_or_default().to_owned();
    Error::Peer(format!("the message {name} at the wrong time"))
}
