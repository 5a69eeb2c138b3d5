//! The first exchange of a session: facts, echoes, verdict. The same on both sides.

use grain::attach::{Facts, Verdict, decide};

use super::{Connection, Inbox, Message, body, unexpected};
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
    connection.send_body(&Message::Facts, mine).await?;
    let (message, payload) = inbox.next().await?;
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
