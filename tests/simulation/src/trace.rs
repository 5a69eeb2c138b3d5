//! The trace: a hash over every event of a history in order, the events in words when asked for, and
//! how often each thing happened.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::fmt::{self, Write};

use disk::simulated::Op;
use tokio::time::Instant;

use crate::plan::Site;

/// How often each fault, verdict, overflow, transition and verb outcome happened, by name.
pub type Coverage = BTreeMap<String, u64>;

/// See the module's text.
pub struct Trace {
    hash: Cell<u64>,
    begun: Instant,
    /// Events are printed as they come.
    pub printed: bool,
    coverage: RefCell<BTreeMap<&'static str, u64>>,
    named: RefCell<Coverage>,
}

/// One step of FNV-1a over 64-bit words with a final shift: fast, and enough to tell two histories of
/// one program apart.
fn mix(hash: u64, word: u64) -> u64 {
    let mixed = (hash ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    mixed ^ (mixed >> 29)
}

struct Words(u64);

impl Words {
    fn take(&mut self, text: &str) {
        for piece in text.as_bytes().chunks(8) {
            let mut word = [0; 8];
            word[..piece.len()].copy_from_slice(piece);
            self.0 = mix(self.0, u64::from_le_bytes(word));
        }
    }

    fn take_all(&mut self, words: fmt::Arguments<'_>) {
        if self.write_fmt(words).is_err() {
            self.0 = !self.0;
        }
    }
}

impl Write for Words {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.take(text);
        Ok(())
    }
}

impl Trace {
    /// A trace that begins now.
    pub fn new(seed: u64, printed: bool) -> Trace {
        Trace {
            hash: Cell::new(mix(0xcbf2_9ce4_8422_2325, seed)),
            begun: Instant::now(),
            printed,
            coverage: RefCell::default(),
            named: RefCell::default(),
        }
    }

    fn take(&self, word: u64) {
        self.hash.set(mix(self.hash.get(), word));
    }

    fn now_us(&self) -> u64 {
        self.begun.elapsed().as_micros() as u64
    }

    /// An operation of a machine. Sizes and places on media are left out: the stanzas of a sealed set's
    /// envelope have a length drawn from the kernel, by design of that format.
    pub fn op(&self, site: Site, op: &Op, sized: bool) {
        self.take(self.now_us());
        self.take(site as u64 * 64 + op.kind as u64);
        if sized {
            self.take(op.offset);
            self.take(op.len);
        }
        let mut words = Words(self.hash.get());
        for part in op.path.as_os_str().to_str().into_iter() {
            words.take(part);
        }
        self.hash.set(words.0);
        if self.printed {
            let Op { number, kind, path, offset, len } = op;
            println!(
                "{:>12} {} op {number} {kind:?} {} {offset}+{len}",
                self.now_us(),
                site.name(),
                path.display()
            );
        }
    }

    /// An event in words.
    pub fn note(&self, words: fmt::Arguments<'_>) {
        self.take(self.now_us());
        let mut hashed = Words(self.hash.get());
        hashed.take_all(words);
        self.hash.set(hashed.0);
        if self.printed {
            println!("{:>12} {words}", self.now_us());
        }
    }

    /// Counts an event.
    pub fn count(&self, name: &'static str) {
        *self.coverage.borrow_mut().entry(name).or_default() += 1;
    }

    /// Counts an event whose name is made at run time.
    pub fn count_named(&self, name: String) {
        *self.named.borrow_mut().entry(name).or_default() += 1;
    }

    /// The hash so far.
    pub fn hash(&self) -> u64 {
        self.hash.get()
    }

    /// The counts so far.
    pub fn coverage(&self) -> Coverage {
        let mut all = self.named.borrow().clone();
        for (name, count) in self.coverage.borrow().iter() {
            *all.entry((*name).to_owned()).or_default() += count;
        }
        all
    }
}

/// Counts and notes an event whose words are its name.
#[macro_export]
macro_rules! event {
    ($world:expr, $name:literal) => {{
        $world.trace.count($name);
        $world.trace.note(format_args!($name));
    }};
    ($world:expr, $name:literal, $($words:tt)*) => {{
        $world.trace.count($name);
        $world.trace.note(format_args!("{}: {}", $name, format_args!($($words)*)));
    }};
}
