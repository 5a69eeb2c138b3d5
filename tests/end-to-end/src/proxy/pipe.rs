//! One direction of one connection.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::{Direction, LOOK, Switches};

/// Bytes read at a time; the smallest step of a rate limit.
const PIECE: usize = 16 << 10;
/// Pieces under way: a megabyte at most, as a link has it.
const UNDER_WAY: usize = 64;

pub(super) struct Pipe {
    pub direction: Direction,
    pub from: TcpStream,
    pub to: TcpStream,
    pub generation: u64,
    pub switches: Arc<Switches>,
}

/// Bytes, and when they are to arrive.
type Piece = (Instant, Vec<u8>);

impl Pipe {
    /// Starts the reading and the writing thread.
    pub(super) fn start(self) -> [JoinHandle<()>; 2] {
        let (send, receive) = sync_channel(UNDER_WAY);
        let pipe = Arc::new(self);
        let reader = pipe.clone();
        [
            std::thread::spawn(move || reader.read(&send)),
            std::thread::spawn(move || pipe.write(&receive)),
        ]
    }

    fn dead(&self) -> bool {
        self.switches.generation.load(Ordering::SeqCst) != self.generation
    }

    fn read(&self, send: &SyncSender<Piece>) {
        let mut from = &self.from;
        let mut buf = vec![0; PIECE];
        // So that a cut is noticed even if the shutdown of the socket was missed.
        if from.set_read_timeout(Some(LOOK * 10)).is_err() {
            return;
        }
        while !self.dead() {
            match from.read(&mut buf) {
                Ok(0) => return,
                Ok(count) => {
                    let delay = self.switches.delay_us.load(Ordering::SeqCst);
                    let due = Instant::now() + Duration::from_micros(delay);
                    if send.send((due, buf[..count].to_vec())).is_err() {
                        return;
                    }
                }
                Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(_) => return,
            }
        }
    }

    fn write(&self, receive: &Receiver<Piece>) {
        let mut to = &self.to;
        while !self.dead() {
            match receive.recv_timeout(LOOK) {
                Ok((due, bytes)) => {
                    if !self.wait_until(due) || !self.pace(bytes.len()) {
                        break;
                    }
                    if self.switches.silent(self.direction) {
                        continue;
                    }
                    // Counted before: who has read them must find them counted.
                    let passed = self.switches.passed(self.direction);
                    passed.fetch_add(bytes.len() as u64, Ordering::SeqCst);
                    if to.write_all(&bytes).is_err() {
                        break;
                    }
                }
                Err(RecvTimeoutError::Timeout) => {}
                // The other side has said all; a silent link does not even pass that on.
                Err(RecvTimeoutError::Disconnected) => {
                    if !self.switches.silent(self.direction) {
                        drop(to.shutdown(Shutdown::Write));
                        return;
                    }
                    std::thread::sleep(LOOK);
                }
            }
        }
        // Cut, or nobody takes it any more: both sides see it.
        drop(self.to.shutdown(Shutdown::Both));
        drop(self.from.shutdown(Shutdown::Both));
    }

    /// False when the connection died meanwhile.
    fn wait_until(&self, due: Instant) -> bool {
        while !self.dead() {
            match due.checked_duration_since(Instant::now()) {
                Some(left) if !left.is_zero() => std::thread::sleep(left.min(LOOK)),
                _ => return true,
            }
        }
        false
    }

    /// Takes as long as the rate says for so many bytes; a change of the rate counts at once.
    fn pace(&self, bytes: usize) -> bool {
        let mut left = bytes as f64;
        let mut last = Instant::now();
        while !self.dead() {
            let rate = self.switches.rate.load(Ordering::SeqCst);
            if rate == 0 {
                return true;
            }
            let step = Duration::from_secs_f64((left / rate as f64).min(LOOK.as_secs_f64()));
            std::thread::sleep(step);
            let now = Instant::now();
            left -= (now - last).as_secs_f64() * rate as f64;
            last = now;
            if left <= 0.0 {
                return true;
            }
        }
        false
    }
}
