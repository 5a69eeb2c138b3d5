//! The contract of `File` and `Storage`, held by the real and the simulated disk alike: the same
//! random operations give the same answers.

// A failed unwrap is how these tests fail.
#![allow(clippy::unwrap_used)]

use std::io;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use disk::{Context, File, FileKind, OpenMode};
use proptest::prelude::*;

/// Something that a caller may do with three files and a directory.
#[derive(Clone, Debug)]
enum Act {
    Create(usize),
    Write { file: usize, at: u64, len: usize, value: u8, durable: bool },
    WriteNow { file: usize, at: u64, len: usize, value: u8 },
    Read { file: usize, at: u64, len: usize },
    Zero { file: usize, at: u64, len: u64, punch: bool },
    SetLen { file: usize, len: u64 },
    Allocate { file: usize, at: u64, len: u64 },
    Sync(usize),
    Rename(usize, usize),
    Remove(usize),
    Replace(usize, u8),
    RemoveDir,
    CreateDir,
    List,
}

const SPAN: u64 = 20_000;

fn acts() -> impl Strategy<Value = Vec<Act>> {
    let (file, at, len) = (0..3usize, 0..SPAN, 1..9_000u64);
    let place = (file.clone(), at, len);
    let act = prop_oneof![
        file.clone().prop_map(Act::Create),
        (place.clone(), any::<u8>(), any::<bool>()).prop_map(
            |((file, at, len), value, durable)| {
                Act::Write { file, at, len: len as usize, value, durable }
            }
        ),
        (place.clone(), any::<u8>()).prop_map(|((file, at, len), value)| Act::WriteNow {
            file,
            at,
            len: len as usize,
            value
        }),
        place.clone().prop_map(|(file, at, len)| Act::Read { file, at, len: len as usize }),
        (place.clone(), any::<bool>()).prop_map(|((file, at, len), punch)| Act::Zero {
            file,
            at,
            len,
            punch
        }),
        (file.clone(), 0..SPAN).prop_map(|(file, len)| Act::SetLen { file, len }),
        place.prop_map(|(file, at, len)| Act::Allocate { file, at, len }),
        file.clone().prop_map(Act::Sync),
        (file.clone(), file.clone()).prop_map(|(from, to)| Act::Rename(from, to)),
        file.clone().prop_map(Act::Remove),
        (file, any::<u8>()).prop_map(|(file, value)| Act::Replace(file, value)),
        Just(Act::RemoveDir),
        Just(Act::CreateDir),
        Just(Act::List),
    ];
    proptest::collection::vec(act, 1..40)
}

/// What an act answered, without what may differ (messages, error numbers).
type Answer = Result<Vec<u8>, io::ErrorKind>;

/// One machine with its open files.
struct Side {
    ctx: Context,
    dir: PathBuf,
    open: [Option<Rc<dyn File>>; 3],
}

impl Side {
    fn path(&self, file: usize) -> PathBuf {
        self.dir.join(format!("d/file-{file}"))
    }

    async fn act(&mut self, act: &Act) -> io::Result<Vec<u8>> {
        let storage = self.ctx.storage.clone();
        let held = |file: &usize| self.open[*file].clone().ok_or(io::ErrorKind::NotConnected);
        match act {
            Act::Create(file) => {
                let made = storage.open(&self.path(*file), OpenMode::CreateNew).await?;
                self.open[*file] = Some(made);
            }
            Act::Write { file, at, len, value, durable } => {
                let (file, data) = (held(file)?, vec![*value; *len].into());
                match durable {
                    true => file.write_durable(*at, data).await?,
                    false => file.write_at(*at, data).await?,
                }
            }
            Act::WriteNow { file, at, len, value } => {
                let (file, data) = (held(file)?, vec![*value; *len]);
                if !file.write_now(&data, *at)? {
                    file.write_at(*at, data.into()).await?;
                }
            }
            Act::Read { file, at, len } => {
                let (file, mut data) = (held(file)?, vec![0; *len]);
                if file.read_now(&mut data, *at)? {
                    return Ok(data);
                }
                return file.read_at(*at, *len).await;
            }
            Act::Zero { file, at, len, punch } => held(file)?.zero(*at, *len, *punch).await?,
            Act::SetLen { file, len } => held(file)?.set_len(*len).await?,
            Act::Allocate { file, at, len } => held(file)?.allocate(*at, *len).await?,
            Act::Sync(file) => held(file)?.sync_data().await?,
            Act::Rename(from, to) => storage.rename(&self.path(*from), &self.path(*to)).await?,
            Act::Remove(file) => storage.remove(&self.path(*file)).await?,
            Act::Replace(file, value) => {
                storage.replace(&self.path(*file), vec![*value; 100].into()).await?;
            }
            Act::RemoveDir => storage.remove_dir(&self.dir.join("d")).await?,
            Act::CreateDir => storage.create_dir(&self.dir.join("d")).await?,
            Act::List => {
                let entries = storage.list(&self.dir.join("d")).await?;
                return Ok(format!("{entries:?}").into_bytes());
            }
        }
        Ok(Vec::new())
    }

    /// What can be seen at the end: names, lengths, contents, and whether holes read as zeros.
    async fn seen(&self) -> Vec<Answer> {
        let mut seen = Vec::new();
        for file in 0..3 {
            let all = self.ctx.storage.read_all(&self.path(file), 1 << 20).await;
            seen.push(all.map_err(|e| e.kind()));
            let Some(open) = &self.open[file] else { continue };
            let len = open.len().unwrap();
            let content = open.read_at(0, len as usize).await.unwrap();
            let mut at = 0;
            for extent in open.extents(0, len, 100).await.unwrap() {
                assert_eq!(extent.offset, at);
                at += extent.len;
                let part = &content[extent.offset as usize..at as usize];
                assert!(extent.data || part.iter().all(|byte| *byte == 0));
            }
            assert_eq!(at, len);
            seen.push(Ok(content));
        }
        seen
    }
}

async fn compare(acts: Vec<Act>) {
    let dir = tempfile::tempdir().unwrap();
    let real = dir.path().canonicalize().unwrap();
    let machine = disk::simulated::SimMachine::new(5);
    machine.context().storage.create_dir(Path::new("/d")).await.unwrap();
    let mut sides = [(disk::real::context(), real), (machine.context(), PathBuf::from("/"))]
        .map(|(ctx, dir)| Side { ctx, dir, open: [None, None, None] });
    for side in &mut sides {
        side.ctx.storage.create_dir(&side.dir.join("d")).await.unwrap();
        side.act(&Act::Create(0)).await.unwrap();
        side.act(&Act::Create(1)).await.unwrap();
    }
    for act in &acts {
        let [real, simulated] = &mut sides;
        let real = real.act(act).await.map_err(|e| e.kind());
        let simulated = simulated.act(act).await.map_err(|e| e.kind());
        assert!(real == simulated, "{act:?}: {real:?} and {simulated:?}");
    }
    let [real, simulated] = &sides;
    assert!(real.seen().await == simulated.seen().await, "what is seen at the end differs");
    let at = |side: &Side| side.dir.join("d");
    for side in &sides {
        let kind = side.ctx.storage.exists(&at(side)).await.unwrap();
        assert!(kind.is_none_or(|kind| kind == FileKind::Directory));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, failure_persistence: None, ..Default::default() })]
    #[test]
    fn real_and_simulated_disk_answer_alike(acts in acts()) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        tokio::task::LocalSet::new().block_on(&runtime, compare(acts));
    }
}
