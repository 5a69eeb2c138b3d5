//! The first exchange of a session: facts, echoes, verdict. The same on both sides.

use grain::attach::{Facts, OpenWithin, Question, Side, Verdict, decide};
use grain::{Geometry, GrainSet, Position};

use super::{Connection, Inbox, Message, SetInbox, SetName, body, send_set, unexpected};
use crate::{Error, Result};

/// What came of the first exchange.
#[derive(Clone, Debug)]
pub struct Attached {
    /// What the peer told.
    pub theirs: Facts,
    /// What the rules say, seen from here.
    pub verdict: Verdict,
}

/// Exchanges facts and decides. Both sides come to the same verdict, for it is a pure function of
/// facts that each has heard echoed.
pub async fn attach(connection: &Connection, inbox: &mut Inbox, mine: &Facts) -> Result<Attached> {
    let sent = connection.send_body(&Message::Facts, mine).await;
    // Whoever refuses closes the link at once: its words may be here already.
    let (message, payload) = inbox.next().await?;
    sent?;
    if message != Message::Facts {
        return Err(unexpected(&message));
    }
    let theirs: Facts = body(&payload)?;
    theirs.validate().map_err(|e| Error::Peer(e.to_string()))?;
    let hash = |facts: &Facts| facts.hash().map_err(|e| Error::Peer(e.to_string()));
    connection.send(&Message::Echo { hash: hash(&theirs)? }).await?;
    match inbox.next().await? {
        (Message::Echo { hash: heard }, _) if heard == hash(mine)? => {}
        (Message::Echo { .. }, _) => {
            return Err(Error::Peer("it heard other facts than were sent".to_owned()));
        }
        (other, _) => return Err(unexpected(&other)),
    }
    let verdict = decide(mine, &theirs);
    Ok(Attached { theirs, verdict })
}

/// The question of a verdict about a replica, if there is one: the position asked about.
pub fn asked(verdict: &Verdict, of: Side) -> Option<Position> {
    let Question::OpenLayer { replica, position } = verdict.question?;
    (replica == of).then_some(position)
}

/// Answers the question of a verdict at the replica: what its stream brought goes to the source, which
/// looks whether it knows all of it (rule 8). Gives the verdict that follows.
pub async fn answer_as_replica(
    connection: &Connection,
    inbox: &mut Inbox,
    mine: &Facts,
    theirs: &mut Facts,
    position: Position,
    streamed: &GrainSet,
) -> Result<Verdict> {
    send_set(connection, SetName::Streamed, streamed).await?;
    match inbox.next().await? {
        (Message::Within { within }, _) => {
            theirs.open_within = Some(OpenWithin { position, within });
            Ok(decide(mine, theirs))
        }
        (other, _) => Err(unexpected(&other)),
    }
}

/// Takes what a replica's stream brought it, in answer to the question of a verdict.
pub async fn take_streamed(inbox: &mut Inbox, geometry: &Geometry) -> Result<GrainSet> {
    let mut sets = SetInbox::new(geometry);
    loop {
        match inbox.next().await? {
            (Message::Set { name: SetName::Streamed }, payload) => {
                sets.take(SetName::Streamed, &payload, geometry)?;
            }
            (other, _) => return Err(unexpected(&other)),
        }
        if let Some(streamed) = sets.remove(SetName::Streamed) {
            return Ok(streamed);
        }
    }
}
