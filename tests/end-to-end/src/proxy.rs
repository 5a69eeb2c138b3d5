//! A TCP proxy that makes a good link bad: slow, far, cut, or dead without a word. Everything can be
//! switched while it runs.
//!
//! Threads, two for each direction of a connection: one reads and notes when each piece is due, one
//! waits and writes. So a delay does not limit the rate, and what is under way when the link dies is
//! lost as on a real one.

mod pipe;
#[cfg(test)]
mod tests;

use std::io;
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use pipe::Pipe;

/// How often switches are looked at.
const LOOK: Duration = Duration::from_millis(10);

/// One way through the proxy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// From who connects to the target.
    ToTarget,
    /// From the target to who connects.
    FromTarget,
}

/// What can be switched.
#[derive(Default)]
struct Switches {
    /// Bytes a second in each direction of each connection; 0 for no limit.
    rate: AtomicU64,
    /// Microseconds one way.
    delay_us: AtomicU64,
    /// No connection lives, new ones are refused.
    cut: AtomicBool,
    /// Nothing passes any more to the target; connections stay open.
    silent_to: AtomicBool,
    /// Nothing passes any more from the target.
    silent_from: AtomicBool,
    closing: AtomicBool,
    to_target: AtomicU64,
    from_target: AtomicU64,
    accepted: AtomicU64,
    /// Counts cuts: a connection of an older generation is dead.
    generation: AtomicU64,
    open: Mutex<Vec<TcpStream>>,
}

impl Switches {
    fn open(&self) -> MutexGuard<'_, Vec<TcpStream>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn close_all(&self) {
        self.generation.fetch_add(1, Ordering::SeqCst);
        for stream in self.open().drain(..) {
            // It may be closed already.
            drop(stream.shutdown(Shutdown::Both));
        }
    }

    fn silent(&self, direction: Direction) -> bool {
        match direction {
            Direction::ToTarget => self.silent_to.load(Ordering::SeqCst),
            Direction::FromTarget => self.silent_from.load(Ordering::SeqCst),
        }
    }

    fn passed(&self, direction: Direction) -> &AtomicU64 {
        match direction {
            Direction::ToTarget => &self.to_target,
            Direction::FromTarget => &self.from_target,
        }
    }
}

/// A running proxy. Dropping it cuts everything.
pub struct Proxy {
    address: SocketAddr,
    switches: Arc<Switches>,
    thread: Option<JoinHandle<()>>,
}

impl Proxy {
    /// Listens on a free port of the loopback and passes on to `target`.
    ///
    /// # Panics
    /// When it cannot listen.
    pub fn start(target: SocketAddr) -> Proxy {
        let listen = || -> io::Result<(TcpListener, SocketAddr)> {
            let listener = TcpListener::bind(("127.0.0.1", 0))?;
            listener.set_nonblocking(true)?;
            let address = listener.local_addr()?;
            Ok((listener, address))
        };
        let (listener, address) = listen().unwrap_or_else(|e| panic!("proxy: {e}"));
        let switches = Arc::new(Switches::default());
        let shared = switches.clone();
        let thread = std::thread::spawn(move || accept(&listener, target, &shared));
        Proxy { address, switches, thread: Some(thread) }
    }

    /// Where to connect to.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Limits each direction of each connection to so many bytes a second; `None` for no limit.
    pub fn set_rate(&self, bytes_per_second: Option<u64>) {
        self.switches.rate.store(bytes_per_second.unwrap_or(0), Ordering::SeqCst);
    }

    /// Delays what passes, in each direction, by this much.
    pub fn set_delay(&self, one_way: Duration) {
        self.switches.delay_us.store(one_way.as_micros() as u64, Ordering::SeqCst);
    }

    /// Closes every connection, and every new one at once, until [`Proxy::heal`].
    pub fn cut(&self) {
        self.switches.cut.store(true, Ordering::SeqCst);
        self.switches.close_all();
    }

    /// Closes every connection; new ones are welcome.
    pub fn flap(&self) {
        self.switches.close_all();
    }

    /// Lets nothing pass in this direction any more, and says nothing: connections stay open, as when a
    /// cable is pulled or a firewall forgets. What is sent meanwhile is lost for good.
    pub fn silence(&self, direction: Direction) {
        match direction {
            Direction::ToTarget => self.switches.silent_to.store(true, Ordering::SeqCst),
            Direction::FromTarget => self.switches.silent_from.store(true, Ordering::SeqCst),
        }
    }

    /// Ends a cut and a silence. Connections that were silenced have lost bytes, so they are closed.
    pub fn heal(&self) {
        let silent = [&self.switches.silent_to, &self.switches.silent_from]
            .map(|switch| switch.swap(false, Ordering::SeqCst));
        if silent.contains(&true) {
            self.switches.close_all();
        }
        self.switches.cut.store(false, Ordering::SeqCst);
    }

    /// Bytes passed on in this direction, over all connections.
    pub fn bytes(&self, direction: Direction) -> u64 {
        self.switches.passed(direction).load(Ordering::SeqCst)
    }

    /// Connections taken so far.
    pub fn connections(&self) -> u64 {
        self.switches.accepted.load(Ordering::SeqCst)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.switches.closing.store(true, Ordering::SeqCst);
        self.cut();
        if let Some(thread) = self.thread.take() {
            // A panic of the thread has been printed.
            drop(thread.join());
        }
    }
}

fn accept(listener: &TcpListener, target: SocketAddr, switches: &Arc<Switches>) {
    let mut pipes: Vec<JoinHandle<()>> = Vec::new();
    while !switches.closing.load(Ordering::SeqCst) {
        let Ok((client, _)) = listener.accept() else {
            std::thread::sleep(LOOK);
            continue;
        };
        if switches.cut.load(Ordering::SeqCst) {
            continue;
        }
        // A target that does not answer is for the client a connection that ends at once.
        if let Ok(threads) = connect(client, target, switches) {
            switches.accepted.fetch_add(1, Ordering::SeqCst);
            pipes.extend(threads);
        }
        pipes.retain(|thread| !thread.is_finished());
    }
    switches.close_all();
    for thread in pipes {
        drop(thread.join());
    }
}

fn connect(
    client: TcpStream,
    target: SocketAddr,
    switches: &Arc<Switches>,
) -> io::Result<Vec<JoinHandle<()>>> {
    let generation = switches.generation.load(Ordering::SeqCst);
    let server = TcpStream::connect_timeout(&target, Duration::from_secs(5))?;
    for stream in [&client, &server] {
        stream.set_nonblocking(false)?;
        stream.set_nodelay(true)?;
        switches.open().push(stream.try_clone()?);
    }
    let pipe = |direction, from: &TcpStream, to: &TcpStream| -> io::Result<Pipe> {
        let (from, to) = (from.try_clone()?, to.try_clone()?);
        Ok(Pipe { direction, from, to, generation, switches: switches.clone() })
    };
    let there = pipe(Direction::ToTarget, &client, &server)?;
    let back = pipe(Direction::FromTarget, &server, &client)?;
    Ok(there.start().into_iter().chain(back.start()).collect())
}
