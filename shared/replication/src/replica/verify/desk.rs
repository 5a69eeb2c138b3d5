//! Where a session's messages of a verification arrive at the replica: begins what the operator of either
//! site asked for, and tells the source what came of it.

use std::rc::Rc;

use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;

use super::VerifyRequest;
use super::examination::Examination;
use crate::protocol::{
    Connection, Diverted, Inbox, Message, Refusal, Report, VERIFY_WAITING, VerifyMessage,
};
use crate::replica::Replica;
use crate::state::Verified;
use crate::{Error, Result};

/// Attends to one session until it is dropped; a verification under way ends with it.
pub(in crate::replica) struct Desk {
    replica: Rc<Replica>,
    task: JoinHandle<()>,
    failed: oneshot::Receiver<Error>,
}

impl Drop for Desk {
    fn drop(&mut self) {
        self.task.abort();
        let verification = &self.replica.verification;
        verification.attended.set(false);
        // Also where whoever follows is dropped in the middle.
        self.replica.in_step.set(false);
        verification.admitted.take();
        let text = "the session ended before the verification did; nothing was changed by it";
        verification.end(Err(Error::Link(text.to_owned())));
    }
}

impl Desk {
    /// Takes over the messages of verifications that come in by `inbox`.
    pub(in crate::replica) fn open(
        replica: &Rc<Replica>,
        connection: &Connection,
        inbox: &mut Inbox,
    ) -> Desk {
        let mut diverted = inbox.divert();
        replica.verification.attended.set(true);
        let (held, connection) = (replica.clone(), connection.clone());
        let (tell, failed) = oneshot::channel();
        let task = tokio::task::spawn_local(async move {
            match attend(&held, &connection, &mut diverted).await {
                // The link goes, and whoever follows comes to its end: nothing is dropped in the middle.
                Err(Error::Peer(text)) => {
                    drop(tell.send(Error::Peer(text.clone())));
                    connection.refuse("protocol", text).await;
                }
                // The link: whoever follows says so.
                ended => tracing::debug!(?ended, "no more verifications in this session"),
            }
        });
        Desk { replica: replica.clone(), task, failed }
    }

    /// How the source broke the protocol, if it did: that is why the session ended.
    pub(in crate::replica) fn broken(&mut self) -> Option<Error> {
        self.failed.try_recv().ok()
    }
}

async fn attend(
    replica: &Rc<Replica>,
    connection: &Connection,
    diverted: &mut mpsc::Receiver<Diverted>,
) -> Result<()> {
    let idle = &mut None;
    loop {
        tokio::select! {
            biased;
            next = diverted.recv() => match next {
                None => return Ok(()),
                Some(message) => hear(replica, connection, message, idle).await?,
            },
            () = replica.verification.begin.notified() => {
                let admitted = replica.verification.admitted.take();
                let Some((request, asked)) = admitted else { continue };
                let outcome = verify(replica, connection, diverted, request).await;
                if let Err(error) = &outcome {
                    tracing::warn!(%error, "the verification ended without a result");
                }
                replica.verification.end(outcome.clone());
                match outcome {
                    Err(e @ (Error::Peer(_) | Error::Link(_))) => return Err(e),
                    other => tell(connection, asked, other).await?,
                }
            }
        }
    }
}

/// One verification; what the source's operator says is heard meanwhile.
async fn verify(
    replica: &Rc<Replica>,
    connection: &Connection,
    diverted: &mut mpsc::Receiver<Diverted>,
    request: VerifyRequest,
) -> Result<Verified> {
    let (answers, taken) = mpsc::channel(VERIFY_WAITING);
    let answers = &mut Some(answers);
    let examination = Examination::new(replica, connection, taken, request).run();
    tokio::pin!(examination);
    loop {
        tokio::select! {
            biased;
            () = replica.verification.stopped() => {
                // Wherever it was: the source need not look after it any longer.
                let pass = replica.verification.passes.get();
                connection.send(&Message::Verify(VerifyMessage::Done { pass })).await?;
                return Err(Error::Cancelled);
            }
            next = diverted.recv() => match next {
                None => return Err(Error::Link("the session ended".to_owned())),
                Some(message) => hear(replica, connection, message, answers).await?,
            },
            outcome = &mut examination => return outcome,
        }
    }
}

/// A message of the source: its operator's word, or an answer to the verification that runs, if one does.
async fn hear(
    replica: &Rc<Replica>,
    connection: &Connection,
    (message, payload): Diverted,
    answers: &mut Option<mpsc::Sender<Diverted>>,
) -> Result<()> {
    match message {
        VerifyMessage::Asked { number, rate_bytes, repair } => {
            let request = VerifyRequest { rate_bytes, repair };
            match replica.admit_verify(request, Some(number)) {
                Ok(_) => Ok(()),
                Err(e) => tell(connection, Some(number), Err(e)).await,
            }
        }
        VerifyMessage::Stop => {
            replica.stop_verify();
            Ok(())
        }
        VerifyMessage::Ready { .. }
        | VerifyMessage::Compared { .. }
        | VerifyMessage::Failed { .. } => {
            // Without one, it is of a verification that ended.
            let Some(answers) = answers else { return Ok(()) };
            answers.try_send((message, payload)).map_err(|_| {
                Error::Peer("more answers of a verification than were asked for".to_owned())
            })
        }
        other => Err(Error::Peer(format!("{other:?} is not its to say"))),
    }
}

async fn tell(
    connection: &Connection,
    asked: Option<u32>,
    outcome: Result<Verified>,
) -> Result<()> {
    let refusal = |e: Error| Refusal { code: "replica".to_owned(), text: e.to_string() };
    let report: Report = outcome.map_err(refusal);
    connection.send_body(&Message::Verify(VerifyMessage::Report { asked }), &report).await
}
