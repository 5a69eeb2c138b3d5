//! Dialling the source again and again, with growing pauses.

use std::rc::Rc;
use std::time::Duration;

use replication::protocol::{self, Connection, Inbox};
use replication::replica::{FollowEnd, ask, follow};
use site::{Exit, Problem};
use wire::link::{Dial, LinkConfig, Terms, dial};

use super::ReplicaAgent;
use crate::problem::{of_replication, of_wire, refused};
use crate::source::{PROTOCOL, software};
use crate::verdict::explain;

const FIRST_PAUSE: Duration = Duration::from_secs(1);

impl ReplicaAgent {
    /// Follows until in step (`once`), or for ever. A refusal ends `once`; otherwise it is tried again
    /// later, for the operator may change what it was about.
    pub(super) async fn follow_forever(self: &Rc<Self>) -> Result<(), Problem> {
        let mut pause = FIRST_PAUSE;
        loop {
            if self.loading.get() {
                self.wake.notified().await;
                continue;
            }
            let problem = tokio::select! {
                biased;
                () = self.load_wanted() => continue,
                outcome = self.session() => match outcome {
                    Ok(FollowEnd::InStep(cut)) => {
                        self.events.note(format!("in step at the cut {}", cut.short()));
                        return Ok(());
                    }
                    Err(problem) => problem,
                },
            };
            *self.connected.borrow_mut() = None;
            self.events.note(problem.what.clone());
            let final_now = self.options.follow.once && !is_passing(&problem);
            *self.last_error.borrow_mut() = Some(problem.clone());
            if final_now {
                return Err(problem);
            }
            pause =
                if self.moved() { FIRST_PAUSE } else { (pause * 2).min(self.options.max_pause) };
            let spread = u32::from(self.ctx.random::<1>()[0] % 64);
            tokio::select! {
                biased;
                () = self.wake.notified() => {}
                () = tokio::time::sleep(pause + pause * spread / 256) => {}
            }
        }
    }

    /// Whether anything arrived since the last look: then the link is worth trying at once.
    fn moved(&self) -> bool {
        let bytes = self.replica.progress().received_bytes.get();
        self.load.borrow_mut().note_received(bytes)
    }

    async fn load_wanted(&self) {
        while !self.loading.get() {
            self.wake.notified().await;
        }
    }

    /// Dials the source and asks for the verdict; nothing moves.
    pub async fn ask(self: &Rc<Self>) -> Result<(), Problem> {
        let (connection, inbox) = self.dial().await?;
        let asked = ask(&self.replica, connection, inbox).await;
        *self.verdict.borrow_mut() = Some(asked.map_err(|e| of_replication(&e))?);
        Ok(())
    }

    async fn dial(&self) -> Result<(Connection, Inbox), Problem> {
        let (source, addresses, relationship) = self.replica.store().with(|s| {
            let replica = s.replica.clone().unwrap_or_default();
            (replica.source, replica.addresses, s.relationship)
        });
        if addresses.is_empty() {
            return Err(refused("no-address", "nothing says where the source listens")
                .todo("Give --source HOST:PORT."));
        }
        let link = dial(Dial {
            addresses,
            peer: source.parse().map_err(|e| of_wire(&e))?,
            keys: self.relationship.keys.clone(),
            terms: Terms { relationship, protocol: PROTOCOL..=PROTOCOL, software: software() },
            config: LinkConfig::default(),
        })
        .await
        .map_err(|e| of_wire(&e))?;
        self.events.note(format!("connected to {}", link.about().remote));
        *self.connected.borrow_mut() = Some(link.about().remote.clone());
        Ok(protocol::open(link))
    }

    async fn session(self: &Rc<Self>) -> Result<FollowEnd, Problem> {
        let (connection, inbox) = self.dial().await?;
        let shown = |verdict: &grain::attach::Verdict| {
            let words = explain(verdict, self.replica.volumes().geometry());
            words.iter().for_each(|line| self.events.note(line.clone()));
            if let Some(shown) = self.shown.borrow().as_ref() {
                shown(&words);
            }
            *self.verdict.borrow_mut() = Some(verdict.clone());
        };
        let settings = self.options.follow.clone();
        follow(&self.replica, connection, inbox, &settings, shown)
            .await
            .map_err(|e| of_replication(&e))
    }
}

/// Whether trying again may help without anybody doing anything.
fn is_passing(problem: &Problem) -> bool {
    problem.exit == Exit::RETRY
}
