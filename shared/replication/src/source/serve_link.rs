//! One session of a replica at the source: attach, samples, catch-ups, acknowledgements.
//!
//! The replica leads; this side answers. A session ends with an error that says why, and leaves
//! nothing behind but what was acknowledged.

mod sampling;
mod streaming;

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use bytes::Bytes;
use grain::attach::{
    Facts, Losers, Means, OpenWithin, Overwrite, Role, Rule, Side, Verdict, decide,
};
use grain::{CutId, CutReason, GrainSet, SessionId};

use super::Source;
use super::agree::{Agreed, Claims};
use super::deliver::Delivery;
use super::links::{Place, Slot};
use super::stream::{StreamSettings, StreamShown};
use super::verify::Examining;
use crate::protocol::{
    Attached, Connection, Inbox, Message, SetInbox, SetName, Want, asked, attach, send_set,
    take_streamed, unexpected,
};
use crate::session::{CopySession, Ended, OnWrite, Options, Overflow, SideFile};
use crate::state::Mode;
use crate::{Error, Result};
use streaming::Begun;

/// Bounds of a session towards a replica.
#[derive(Clone, Debug)]
pub struct ServeSettings {
    /// Bytes of preserved grains in memory at most.
    pub buffer_bytes: u64,
    /// Bytes of the side file; 0 for none.
    pub side_bytes: u64,
    /// Where the side file goes.
    pub side_dir: std::path::PathBuf,
    /// How long a writer waits for room to preserve.
    pub preserve_wait: std::time::Duration,
    /// Bounds of a stream.
    pub stream: StreamSettings,
}

/// What the operator sees of a running session.
#[derive(Debug, Default)]
pub struct LinkProgress {
    /// Grains of the present catch-up.
    pub total_grains: Cell<u64>,
    /// Grains sent of it, those that were the same included.
    pub sent_grains: Cell<u64>,
    /// Payload bytes sent in this session.
    pub sent_bytes: Cell<u64>,
    /// Of the present catch-up: grains that could not be read here.
    pub unreadable: RefCell<GrainSet>,
    /// The verdict.
    pub verdict: RefCell<Option<Verdict>>,
    /// The stream.
    pub stream: StreamShown,
    /// Its verification.
    pub verify: super::verify::LinkVerify,
}

/// Serves one replica until the link ends.
pub async fn serve_link(
    source: &Rc<Source>,
    connection: Connection,
    mut inbox: Inbox,
    settings: &ServeSettings,
    progress: &Rc<LinkProgress>,
) -> Result<()> {
    let identity = connection.peer().to_string();
    if !source.store().with(|s| s.peers.iter().any(|p| p.identity == identity)) {
        connection.refuse("unrelated", "this identity is not a peer of the relationship").await;
        return Err(Error::Peer("an identity that is not a peer".to_owned()));
    }
    let slot = Rc::new(Slot::default());
    let work = serve(source, &connection, &identity, &mut inbox, settings, progress, &slot);
    let outcome = tokio::select! {
        biased;
        () = slot.superseded() => {
            Err(Error::Link("a newer session of the same replica took its place".to_owned()))
        }
        outcome = work => outcome,
    };
    match &outcome {
        Err(Error::Peer(text)) => connection.refuse("protocol", text).await,
        // What is still being sent for this session must not keep the link alive.
        _ => connection.close(),
    }
    outcome
}

async fn serve(
    source: &Rc<Source>,
    connection: &Connection,
    identity: &str,
    inbox: &mut Inbox,
    settings: &ServeSettings,
    progress: &Rc<LinkProgress>,
    slot: &Rc<Slot>,
) -> Result<()> {
    let mut mine = source.facts(identity);
    let Attached { theirs, mut verdict } = attach(connection, inbox, &mine).await?;
    if let Some(position) = asked(&verdict, Side::Theirs) {
        let streamed = take_streamed(inbox, source.volumes().geometry()).await?;
        let within = source.knows_epoch(position.cut, &streamed).await?;
        connection.send(&Message::Within { within }).await?;
        mine.open_within = Some(OpenWithin { position, within });
        verdict = decide(&mine, &theirs);
    }
    *progress.verdict.borrow_mut() = Some(verdict.clone());
    tracing::info!(rule = %verdict.rule, means = ?verdict.means,
        grains = ?verdict.estimated_grains, "attach");
    if theirs.role == Role::Source {
        source.learn(&verdict);
        let detail = format!("both sites are sources: {:?}", verdict.reasons);
        return Err(Error::Refused { rule: verdict.rule.to_string(), detail });
    }
    let (connection, identity) = (connection.clone(), identity.to_owned());
    let mut examining = Examining::begin(source, &connection, inbox, progress);
    let place = None;
    let session = ServedSession {
        source,
        connection,
        identity,
        theirs,
        verdict,
        settings,
        progress,
        slot,
        place,
        told_mode: None,
    };
    tokio::select! {
        biased;
        broken = examining.failure() => Err(broken),
        outcome = session.run(inbox) => outcome,
    }
}

struct ServedSession<'a> {
    source: &'a Rc<Source>,
    connection: Connection,
    identity: String,
    theirs: Facts,
    verdict: Verdict,
    settings: &'a ServeSettings,
    progress: &'a Rc<LinkProgress>,
    slot: &'a Rc<Slot>,
    /// Held from the first catch-up on.
    place: Option<Place>,
    /// How it is kept, as far as the replica was told.
    told_mode: Option<Mode>,
}

/// A copy session that writers respect; let go when it is dropped, however its owner ends.
pub(super) struct Installed {
    pub(super) source: Rc<Source>,
    pub(super) session: Rc<CopySession>,
}

impl Drop for Installed {
    fn drop(&mut self) {
        self.session.end(Ended::Cancelled);
        self.source.remove_session(&self.session);
    }
}

impl ServedSession<'_> {
    async fn run(mut self, inbox: &mut Inbox) -> Result<()> {
        let mut sets = self.inbox_of_sets();
        let (mut told, mut hurried) = (false, false);
        loop {
            let next = tokio::select! {
                biased;
                next = inbox.next_or_end() => next?,
                () = self.asked_to_hand_over(told) => {
                    told = true;
                    self.connection.send(&Message::Handover).await?;
                    continue;
                }
                () = self.source.bookmark_due(&self.identity), if !hurried => {
                    hurried = true;
                    self.connection.send(&Message::Hurry).await?;
                    continue;
                }
                () = self.mode_is_new() => {
                    self.told_mode = Some(self.source.mode_of(&self.identity));
                    self.connection.send(&Message::Hurry).await?;
                    continue;
                }
            };
            // Between two catch-ups a replica may go: it has what it came for.
            let Some((message, payload)) = next else { return Ok(()) };
            match message {
                Message::Set { name } => {
                    let known = match name {
                        SetName::Layer(at) => (at as usize) < self.theirs.layers.len(),
                        SetName::Direct | SetName::Missing | SetName::Remaining => true,
                        _ => false,
                    };
                    if !known {
                        return Err(Error::Peer(format!("the set {name:?} is not its to send")));
                    }
                    sets.take(name, &payload, self.source.volumes().geometry())?;
                }
                Message::Check { samples } => self.check(samples).await?,
                Message::Checked { compared, different } => {
                    self.checked(compared, &different).await?;
                }
                Message::Begin { want } => {
                    let taken = std::mem::replace(&mut sets, self.inbox_of_sets());
                    if self.place.is_none() {
                        let links = &self.source.links;
                        self.place = Some(links.take(&self.identity, self.slot).await);
                    }
                    if self.begin(want, Claims::new(taken), inbox).await? {
                        return Ok(());
                    }
                    (told, hurried) = (false, false);
                }
                other => return Err(unexpected(&other)),
            }
        }
    }

    fn inbox_of_sets(&self) -> SetInbox {
        SetInbox::new(self.source.volumes().geometry())
    }

    fn may_begin(&self, want: Want) -> Result<()> {
        let refused =
            |detail: String| Err(Error::Refused { rule: self.verdict.rule.to_string(), detail });
        match (want, self.verdict.overwrite, self.verdict.means) {
            (Want::Delta, Overwrite::ByItself { .. }, Means::Delta { .. } | Means::Nothing) => {
                Ok(())
            }
            (Want::Compare, Overwrite::ByItself { .. }, _) => Ok(()),
            // Its operator's word, given there.
            (Want::Rejoin, Overwrite::ByItself { .. }, Means::Delta { .. } | Means::Nothing) => {
                Ok(())
            }
            (Want::Rejoin, Overwrite::Named { losers, .. }, Means::Delta { .. })
                if self.gives_way(losers) =>
            {
                Ok(())
            }
            _ if self.verdict.rule == Rule::InStep => Ok(()),
            // The replica's operator asked for the comparison, which names the replica as the loser.
            // Not where this source does not trust its own base: that is said here.
            (Want::Compare, Overwrite::Named { losers, .. }, _) if self.gives_way(losers) => Ok(()),
            _ => refused(format!("this needs an operator's word: {:?}", self.verdict.reasons)),
        }
    }

    fn gives_way(&self, losers: Losers) -> bool {
        losers.includes(Side::Theirs)
            && self.theirs.role == Role::Replica
            && self.verdict.rule != Rule::Suspect
    }

    /// Waits until the role is to go to this replica, and it has not been told yet.
    async fn asked_to_hand_over(&self, told: bool) {
        loop {
            let asked = self.source.switchover_asked.notified();
            if !told && self.source.switchover_to(&self.identity).is_some() {
                return;
            }
            asked.await;
        }
    }

    /// One catch-up. True when the role has gone to the replica with it.
    async fn begin(&mut self, want: Want, claims: Claims, inbox: &mut Inbox) -> Result<bool> {
        if let Err(e) = self.may_begin(want) {
            self.connection.refuse(self.verdict.rule.name(), e.to_string()).await;
            return Err(e);
        }
        let streams = self.wants_stream();
        let nothing = want == Want::Delta
            && !streams
            && !self.source.is_bookmark_due(&self.identity)
            && self.theirs.lineage.head().map(|c| c.id) == self.source.head()
            && self.source.open_layer().is_empty()
            && claims.is_whole()
            && self.theirs.copy.partial.is_none()
            && self.theirs.copy.fuzzy_end.is_none();
        if let (true, Some(cut)) = (nothing, self.source.head()) {
            self.connection.send(&Message::NothingNew { cut }).await?;
            return self.settle(inbox, cut, None).await;
        }
        self.forget_published().await?;
        let side = self.side_path();
        let mut catch_up = self.prepare(want, claims, streams).await?;
        let (cut, begun) = (catch_up.cut, catch_up.begun.take());
        let outcome = self.deliver(catch_up, inbox).await;
        if self.settings.side_bytes > 0
            && let Err(e) = self.source.context().storage.remove(&side).await
        {
            tracing::warn!(path = %side.display(), error = %e, "the side file stays");
        }
        outcome?;
        self.settle(inbox, cut, begun).await
    }

    /// Of the cuts that were published to this replica only those count that it names: the one that it
    /// holds, and the one of its broken session. Without this they would pile up, each held, as long as
    /// no catch-up comes to its end.
    async fn forget_published(&self) -> Result<()> {
        let held = self.theirs.lineage.head().map(|c| c.id);
        let broken = self.theirs.copy.partial.map(|p| p.cut);
        self.source.store().change(|s| {
            for peer in s.peers.iter_mut().filter(|p| p.identity == self.identity) {
                peer.published.retain(|cut| Some(*cut) == held || Some(*cut) == broken);
            }
        });
        Ok(())
    }

    /// One for each replica: what a crash left of it is replaced.
    fn side_path(&self) -> std::path::PathBuf {
        let name = blake3::hash(self.identity.as_bytes()).to_hex();
        self.settings.side_dir.join(format!("link-{}.side", name.get(..16).unwrap_or("peer")))
    }

    /// The cut, the delta at it, and the copy session over it.
    async fn prepare(&self, want: Want, claims: Claims, streams: bool) -> Result<CatchUp> {
        let side = match self.settings.side_bytes {
            0 => None,
            bytes => Some(SideFile::create(self.source.context(), self.side_path(), bytes).await?),
        };
        let options = Options {
            on_write: OnWrite::Preserve,
            buffer_bytes: self.settings.buffer_bytes,
            side,
            wait: self.settings.preserve_wait,
            overflow: Overflow::Partial,
            fuzzy: false,
        };
        let one = self.source.lock_cuts().await;
        let agreed = match want {
            Want::Delta | Want::Rejoin => {
                Agreed::from_delta(self.source, &self.theirs, claims).await?
            }
            Want::Compare => Agreed::everything(self.source, &self.theirs),
        };
        let mut made = None;
        let bookmark = self.source.take_bookmark(&self.identity);
        let reason = bookmark.as_ref().map_or(CutReason::Cycle, |_| CutReason::Bookmark);
        let pause = self.source.cut_locked(&one, reason, |cut, open| {
            let mut agreed = agreed;
            agreed.pull.union_with(open);
            agreed.record.union_with(open);
            let volumes = self.source.volumes().clone();
            let session = CopySession::new(cut, agreed.pull.clone(), volumes, options);
            // Let go again if the cut cannot be published.
            let installed = Installed { source: self.source.clone(), session: session.clone() };
            let bytes = agreed.pull.bytes(self.source.volumes().geometry());
            let begun = (streams && bytes <= self.settings.stream.from_bytes)
                .then(|| self.begin_stream(cut));
            made = Some((agreed, installed, begun));
            vec![session]
        });
        let pause = pause.await?;
        let (agreed, installed, begun) =
            made.ok_or_else(|| Error::State("the cut was not installed".to_owned()))?;
        let cut = pause.cut.id;
        if let Some(bookmark) = bookmark {
            bookmark.made(cut);
        }
        self.source
            .store()
            .update(|s| {
                for peer in s.peers.iter_mut().filter(|p| p.identity == self.identity) {
                    peer.published.push(cut);
                }
            })
            .await?;
        Ok(CatchUp { cut, unix_ms: pause.cut.unix_ms, agreed, installed, want, begun })
    }

    async fn deliver(&self, catch_up: CatchUp, inbox: &mut Inbox) -> Result<()> {
        let CatchUp { cut, unix_ms, agreed, installed, want, .. } = catch_up;
        let id = SessionId::new(self.source.context().unix_ms(), self.source.context().random());
        let (lineage, label) =
            self.source.store().with(|s| (s.lineage.up_to(cut), s.label_of(cut)));
        let lineage = lineage.ok_or(Error::UnknownCut(cut))?;
        let (since, carries) = (agreed.since, agreed.carries);
        let start = Message::CatchUp { session: id, cut, since, carries, unix_ms, label };
        self.connection.send_body(&start, &lineage).await?;
        self.progress.total_grains.set(agreed.pull.len());
        self.progress.sent_grains.set(0);
        self.progress.unreadable.borrow_mut().clear();
        let suspected = match want {
            Want::Compare => agreed.pull.clone(),
            Want::Delta | Want::Rejoin => {
                let mut suspected = self.source.suspected();
                suspected.intersect_with(&agreed.pull);
                suspected
            }
        };
        send_set(&self.connection, SetName::Pull, &agreed.pull).await?;
        send_set(&self.connection, SetName::Record, &agreed.record).await?;
        send_set(&self.connection, SetName::Suspected, &suspected).await?;
        self.connection.send(&Message::Go).await?;
        drop(agreed);
        let delivery = Delivery::new(
            self.source.context().clone(),
            self.source.volumes().clone(),
            installed.session.clone(),
            self.connection.clone(),
            self.progress.clone(),
            self.source.pace().clone(),
        );
        let outcome = delivery.run(inbox).await;
        drop(installed);
        if let Err(e) = &outcome
            && !matches!(e, Error::Link(_) | Error::Peer(_))
        {
            // What was sent is still under way, and stays useful: the replica closes when it has it.
            while inbox.next().await.is_ok() {}
        }
        outcome
    }

    /// Waits for the commit of `cut` and lets go what it frees, or decides a switchover; then streams, where
    /// a stream was begun at the cut and has not overflowed meanwhile.
    async fn settle(
        &mut self,
        inbox: &mut Inbox,
        cut: CutId,
        begun: Option<Begun>,
    ) -> Result<bool> {
        match inbox.next().await? {
            (Message::Committed { cut: done }, _) if done == cut => {}
            (other, _) => return Err(unexpected(&other)),
        }
        let begun = begun.filter(|begun| !begun.stream.overflowed());
        if let Some(begun) = &begun {
            self.source.come_into_force(&begun.stream);
        }
        self.source.acknowledged(&self.identity, cut).await?;
        if let Some(asked) = self.source.switchover_to(&self.identity)
            && self.source.decide_switchover(&asked, cut).await?
        {
            self.connection.send(&Message::Relinquished { cut }).await?;
            return Ok(true);
        }
        // From here on the replica is at the cut: the facts of the next round.
        if let Some(lineage) = self.source.store().with(|s| s.lineage.up_to(cut)) {
            self.theirs.lineage = lineage;
        }
        self.theirs.sequence = 0;
        self.theirs.layers.clear();
        self.theirs.copy = Default::default();
        self.theirs.copy.consistent = true;
        let mine = self.source.facts(&self.identity);
        self.verdict = decide(&mine, &self.theirs);
        let dirty = self.source.written_since(cut).await?;
        let remaining_bytes = dirty.bytes(self.source.volumes().geometry());
        let floor = self.source.peer_floor();
        let mode = self.source.mode_of(&self.identity);
        self.told_mode = Some(mode);
        let settled = Message::Settled { floor, remaining: dirty.len(), remaining_bytes, mode };
        self.connection.send(&settled).await?;
        if mode.streams() {
            match begun {
                Some(begun) => self.stream(inbox, begun).await?,
                None => self.connection.send(&Message::Streamless).await?,
            }
        }
        Ok(false)
    }
}

struct CatchUp {
    cut: CutId,
    unix_ms: u64,
    agreed: Agreed,
    installed: Installed,
    want: Want,
    begun: Option<Begun>,
}

/// BLAKE3 of a payload, in the pool when it is large.
pub(crate) async fn digest(ctx: &disk::Context, bytes: &Bytes) -> [u8; 32] {
    if bytes.len() <= 16 << 10 {
        return *blake3::hash(bytes).as_bytes();
    }
    let bytes = bytes.clone();
    ctx.offload(move || *blake3::hash(&bytes).as_bytes()).await
}
