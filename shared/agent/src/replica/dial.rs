//! Dialling the source again and again, with growing pauses.

use std::rc::Rc;
use std::time::Duration;

use replication::protocol::{self, Connection, Inbox};
use replication::replica::{FollowEnd, ask, follow};
use serde_json::{Value, json};
use site::{Exit, Problem};
use tokio::sync::Mutex;
use wire::link::{Dial, Incoming, Link, Listen, Listener, Terms, dial};

use super::ReplicaAgent;
use crate::FollowArguments;
use crate::problem::{of_relationship, of_replication, of_wire, refused};
use crate::serve::RoleEnd;
use crate::source::{PROTOCOL, link_config, software};
use crate::verdict::explain;

const FIRST_PAUSE: Duration = Duration::from_secs(1);

impl ReplicaAgent {
    /// Follows until in step (`once`), or for ever. A refusal ends `once`; otherwise it is tried again
    /// later, for the operator may change what it was about.
    pub(super) async fn follow_forever(self: &Rc<Self>) -> Result<RoleEnd, Problem> {
        let mut pause = FIRST_PAUSE;
        loop {
            if self.loading.get() {
                self.wake.notified().await;
                continue;
            }
            let problem = tokio::select! {
                biased;
                () = self.load_wanted() => {
                    self.session_was_dropped();
                    continue;
                }
                () = self.source_changed.notified() => {
                    self.session_was_dropped();
                    pause = FIRST_PAUSE;
                    continue;
                }
                outcome = self.session() => match outcome {
                    Ok(FollowEnd::InStep(cut)) => {
                        self.events.note(format!("in step at the cut {}", cut.short()));
                        return Ok(RoleEnd::Stopped);
                    }
                    Ok(FollowEnd::Relinquished(cut)) => {
                        self.events.note(format!("the role is ours, from the cut {} on", cut.short()));
                        match self.replica.promote(false).await {
                            Ok(_) => return Ok(RoleEnd::RoleChanged),
                            // The word stands in the other site's facts, and is heard again.
                            Err(e) => of_replication(&e),
                        }
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

    /// What is shown of a session does not outlive it.
    fn session_was_dropped(&self) {
        self.replica.is_left();
        *self.connected.borrow_mut() = None;
        *self.meter.borrow_mut() = None;
    }

    /// Pulls from another source from here on. The session that there is ends.
    pub(super) async fn follow(
        self: &Rc<Self>,
        arguments: FollowArguments,
    ) -> Result<Value, Problem> {
        let store = self.replica.store();
        let before = store.with(|s| (s.peers.clone(), s.replica.clone()));
        let followed = store.change(|s| arguments.apply(s, &self.relationship.keys))?;
        let answer = json!({ "source": followed.source.fingerprint() });
        if !followed.changed {
            return Ok(answer);
        }
        if let Err(e) = store.save().await {
            // Until the record is there, it follows whom it followed.
            store.change(|s| (s.peers, s.replica) = before);
            return Err(of_replication(&e));
        }
        self.replica.distrust_source();
        *self.verdict.borrow_mut() = None;
        let peers = self.relationship.peers().map_err(|e| of_relationship(&e))?;
        self.allowed.replace(peers);
        if store.with(|s| s.replica.as_ref().is_some_and(|replica| !replica.addresses.is_empty())) {
            // It is dialled from here on.
            self.door.borrow_mut().take();
        }
        self.events.note(format!("follows {} from here on", followed.source.fingerprint()));
        self.source_changed.notify_one();
        self.wake.notify_one();
        Ok(answer)
    }

    /// Forgets a site that this one once followed.
    pub(super) async fn forget_peer(&self, peer: &str) -> Result<Value, Problem> {
        let store = self.replica.store();
        let identity = store.with(|s| crate::peer::meant(s, peer))?;
        store.change(|s| s.remove_peer(&identity)).map_err(|e| of_replication(&e))?;
        store.save().await.map_err(|e| of_replication(&e))?;
        if let Ok(pinned) = identity.parse() {
            self.allowed.remove(&pinned);
        }
        Ok(crate::peer::answer_removed(&identity))
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

    async fn connect(&self) -> Result<(Connection, Inbox), Problem> {
        let door = self.door.borrow().clone();
        match door {
            Some(door) => self.welcome(&door).await,
            None => self.dial().await,
        }
    }

    /// Opens the door for a source that dials in, where this site knows no address of it.
    pub(super) fn open_door(&self) -> Result<(), Problem> {
        let (relationship, addresses) = self.replica.store().with(|s| {
            (s.relationship, s.replica.as_ref().map_or(0, |replica| replica.addresses.len()))
        });
        if addresses > 0 || self.options.listen.is_empty() {
            return Ok(());
        }
        let peers = self.relationship.peers().map_err(|e| of_relationship(&e))?;
        self.allowed.replace(peers);
        let listener = Listener::bind(Listen {
            addresses: self.options.listen.clone(),
            keys: self.relationship.keys.clone(),
            peers: self.allowed.clone(),
            terms: Terms { relationship, protocol: PROTOCOL..=PROTOCOL, software: software() },
            config: link_config(self.options.compress),
            max_links: 2,
        })
        .map_err(|e| of_wire(&e))?;
        *self.door.borrow_mut() = Some(Rc::new(Mutex::new(listener)));
        Ok(())
    }

    async fn welcome(&self, door: &Mutex<Listener>) -> Result<(Connection, Inbox), Problem> {
        let source = self.replica.store().with(|s| s.replica.clone().unwrap_or_default().source);
        let mut door = door.lock().await;
        loop {
            match door.next().await.map_err(|e| of_wire(&e))? {
                Incoming::Link(link) if link.peer().to_string() == source => {
                    self.events.note(format!("the source connected from {}", link.about().remote));
                    return Ok(self.take(link));
                }
                Incoming::Link(link) => {
                    let remote = link.about().remote.clone();
                    self.events
                        .note(format!("{remote} is a peer, and not the source followed here"));
                }
                Incoming::Turned { remote, error } => {
                    self.events.note(format!("{remote} was not let in: {error}"));
                }
            }
        }
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
            config: link_config(self.options.compress),
        })
        .await
        .map_err(|e| of_wire(&e))?;
        self.events.note(format!("connected to {}", link.about().remote));
        Ok(self.take(link))
    }

    fn take(&self, link: Link) -> (Connection, Inbox) {
        *self.connected.borrow_mut() = Some(link.about().remote.clone());
        *self.meter.borrow_mut() = Some(link.meter());
        protocol::open(link)
    }

    async fn session(self: &Rc<Self>) -> Result<FollowEnd, Problem> {
        let (connection, inbox) = self.connect().await?;
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
