//! `state.json` on disk: written to a new file, synced, renamed, the directory synced; read back only
//! when its checksum fits.
//!
//! The file is JSON, which people can look at: `{"checksum": "...", "state": {...}}`, the checksum being
//! the BLAKE3 of the exact text of the value of `state`. A state that does not check stops the agent;
//! it is never guessed.

use std::cell::RefCell;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use disk::Context;

use super::{LayerRef, STATE_VERSION, State};
use crate::group_commit::GroupCommit;
use crate::{Error, Result};

/// More than any state needs.
const MAX_BYTES: u64 = 64 << 20;

const BEFORE_CHECKSUM: &str = "{\"checksum\":\"";
const CHECKSUM_CHARS: usize = 2 * blake3::OUT_LEN;
const BEFORE_STATE: &str = "\",\"state\":";

/// Encodes a state as the file holds it.
pub fn encode(state: &State) -> Result<Vec<u8>> {
    let bug = |e: serde_json::Error| Error::State(format!("state cannot be written: {e}"));
    // Written in one go, and on one line: it is written several times a second, and
    // half of an indented one is blanks.
    let mut bytes = Vec::with_capacity(4096);
    bytes.extend_from_slice(BEFORE_CHECKSUM.as_bytes());
    bytes.resize(BEFORE_CHECKSUM.len() + CHECKSUM_CHARS, b'0');
    bytes.extend_from_slice(BEFORE_STATE.as_bytes());
    let start = bytes.len();
    serde_json::to_writer(&mut bytes, state).map_err(bug)?;
    let checksum = blake3::hash(&bytes[start..]).to_hex();
    bytes[BEFORE_CHECKSUM.len()..][..CHECKSUM_CHARS].copy_from_slice(checksum.as_bytes());
    bytes.extend_from_slice(b"}\n");
    Ok(bytes)
}

/// Decodes what [`encode`] wrote; the error says what does not fit.
pub fn decode(bytes: &[u8]) -> Result<State, String> {
    let text = std::str::from_utf8(bytes).map_err(|e| format!("not text: {e}"))?;
    // Only what `encode` writes passes: a flipped space between the fields is damage, too.
    let text = text.strip_suffix("}\n").ok_or("its last line is incomplete")?;
    let parts = text.strip_prefix(BEFORE_CHECKSUM).and_then(|rest| rest.split_once(BEFORE_STATE));
    let (checksum, content) = parts.ok_or("not a state file")?;
    if blake3::hash(content.as_bytes()).to_hex().as_str() != checksum {
        return Err("its checksum does not fit its content".to_owned());
    }
    let state: State =
        serde_json::from_str(content).map_err(|e| format!("its content is not understood: {e}"))?;
    if state.version != STATE_VERSION {
        return Err(format!("it has format {}, this program reads {STATE_VERSION}", state.version));
    }
    state.geometry.validate().map_err(|e| format!("geometry: {e}"))?;
    if state.volumes.len() != state.geometry.volumes.len() {
        return Err("it has not one path for each volume".to_owned());
    }
    Ok(state)
}

/// The state in memory and its file. Cheap to clone.
#[derive(Clone)]
pub struct StateStore {
    state: Rc<RefCell<State>>,
    /// The free files in the record that is on disk.
    recorded_free: Rc<RefCell<Vec<LayerRef>>>,
    saver: GroupCommit,
    path: PathBuf,
}

impl StateStore {
    /// The file's name inside a relationship's directory.
    pub const FILE: &'static str = "state.json";

    /// Writes the first state into an existing directory that has none.
    pub async fn create(ctx: &Context, dir: &Path, state: State) -> Result<StateStore> {
        let path = dir.join(Self::FILE);
        let there = ctx.storage.exists(&path).await.map_err(Error::io("look at", &path))?;
        if there.is_some() {
            return Err(Error::State(format!("{} exists already", path.display())));
        }
        let store = StateStore::new(ctx, path, state, Vec::new());
        store.save().await?;
        Ok(store)
    }

    /// Reads the state of a directory.
    pub async fn open(ctx: &Context, dir: &Path) -> Result<StateStore> {
        let path = dir.join(Self::FILE);
        let bytes =
            ctx.storage.read_all(&path, MAX_BYTES).await.map_err(Error::io("read", &path))?;
        let state = decode(&bytes).map_err(|detail| Error::corrupt(&path, detail))?;
        let recorded_free = state.layers.free.clone();
        Ok(StateStore::new(ctx, path, state, recorded_free))
    }

    fn new(ctx: &Context, path: PathBuf, state: State, recorded_free: Vec<LayerRef>) -> Self {
        let state = Rc::new(RefCell::new(state));
        let recorded_free = Rc::new(RefCell::new(recorded_free));
        let (ctx, file, shared) = (ctx.clone(), path.clone(), state.clone());
        let recorded = recorded_free.clone();
        let saver = GroupCommit::new(move || {
            let (ctx, file, recorded) = (ctx.clone(), file.clone(), recorded.clone());
            let bytes = encode(&shared.borrow());
            let free = shared.borrow().layers.free.clone();
            Box::pin(async move {
                // While it is not known which record is on disk, only what is free in both counts.
                recorded.borrow_mut().retain(|f| free.contains(f));
                let bytes = bytes?;
                let replaced = ctx.storage.replace(&file, bytes.into()).await;
                replaced.map_err(Error::io("write", &file))?;
                *recorded.borrow_mut() = free;
                Ok(())
            })
        });
        StateStore { state, recorded_free, saver, path }
    }

    /// The files that are free by the record on disk.
    pub(crate) fn recorded_free(&self) -> Vec<LayerRef> {
        self.recorded_free.borrow().clone()
    }

    /// Looks at the state.
    pub fn with<T>(&self, look: impl FnOnce(&State) -> T) -> T {
        look(&self.state.borrow())
    }

    /// Changes the state in memory; it counts only after [`StateStore::save`].
    pub fn change<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        change(&mut self.state.borrow_mut())
    }

    /// Makes all changes made before the call durable.
    pub fn save(&self) -> impl Future<Output = Result<()>> + 'static {
        self.saver.join()
    }

    /// Changes and saves.
    pub async fn update<T>(&self, change: impl FnOnce(&mut State) -> T) -> Result<T> {
        let value = self.change(change);
        self.save().await?;
        Ok(value)
    }

    /// Where the file is.
    pub fn path(&self) -> &Path {
        &self.path
    }
}
