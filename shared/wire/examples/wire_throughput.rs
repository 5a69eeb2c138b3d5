//! Measures a link over loopback TLS against the same TLS without frames and queues, both ends in this
//! process, in turns. Believe the ratio: the machine may have other things to do.
//!
//! `cargo run --release -p grainhaul-wire --example wire_throughput [-- GIB [FRAME_KIB [ROUNDS]]]`

use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::{Duration, Instant};

use grain::RelationshipId;
use rustix::time::{ClockId, clock_gettime};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use wire::link::{Closing, Dial, Incoming, LinkConfig, Listen, Listener, Terms, dial};
use wire::{Error, Frame, PeerSet, SiteKeys, tls};

struct Sites {
    primary: Arc<SiteKeys>,
    secondary: Arc<SiteKeys>,
    total_bytes: u64,
    frame_bytes: u64,
}

type Failure = Box<dyn std::error::Error + Send + Sync>;

fn main() -> Result<(), Failure> {
    let mut arguments = std::env::args().skip(1).map(|a| a.parse::<u64>().unwrap_or(0));
    let mut next = |default| arguments.next().filter(|n| *n > 0).unwrap_or(default);
    let (gib, frame_kib, rounds) = (next(4), next(1024), next(3));
    let sites = Arc::new(Sites {
        primary: Arc::new(SiteKeys::generate()?),
        secondary: Arc::new(SiteKeys::generate()?),
        total_bytes: gib << 30,
        frame_bytes: frame_kib << 10,
    });
    println!("{gib} GiB in pieces of {frame_kib} KiB; CPU time is that of both ends together");
    for _ in 0..rounds {
        let (link_seconds, link_cpu) = timed(|| runtime()?.block_on(through_a_link(&sites)))?;
        let (bare_seconds, bare_cpu) = timed(|| through_bare_tls(&sites))?;
        let rate = |seconds: f64| gib as f64 / seconds;
        println!(
            "link {:5.2} GiB/s, {:.2} CPU s/GiB | bare TLS {:5.2} GiB/s, {:.2} CPU s/GiB | CPU ratio {:.2}",
            rate(link_seconds),
            link_cpu / gib as f64,
            rate(bare_seconds),
            bare_cpu / gib as f64,
            link_cpu / bare_cpu
        );
    }
    Ok(())
}

fn runtime() -> Result<tokio::runtime::Runtime, Failure> {
    Ok(tokio::runtime::Builder::new_current_thread().enable_all().build()?)
}

/// Wall time and CPU time of the process, in seconds.
fn timed(run: impl FnOnce() -> Result<(), Failure>) -> Result<(f64, f64), Failure> {
    let cpu = || {
        let time = clock_gettime(ClockId::ProcessCPUTime);
        Duration::new(time.tv_sec as u64, time.tv_nsec as u32).as_secs_f64()
    };
    let (begin, cpu_begin) = (Instant::now(), cpu());
    run()?;
    Ok((begin.elapsed().as_secs_f64(), cpu() - cpu_begin))
}

async fn through_a_link(sites: &Sites) -> Result<(), Failure> {
    let terms = Terms {
        relationship: RelationshipId::new(0, [0; 10]),
        protocol: 1..=1,
        software: "throughput".into(),
    };
    let mut listener = Listener::bind(Listen {
        addresses: vec![([127, 0, 0, 1], 0).into()],
        keys: sites.primary.clone(),
        peers: PeerSet::new([sites.secondary.identity()]),
        terms: terms.clone(),
        config: LinkConfig::default(),
        max_links: 4,
    })?;
    let dialled = dial(Dial {
        addresses: vec![listener.local_addresses()[0].to_string()],
        peer: sites.primary.identity(),
        keys: sites.secondary.clone(),
        terms,
        config: LinkConfig::default(),
    });
    let (dialled, incoming) = tokio::join!(dialled, listener.next());
    let Incoming::Link(accepted) = incoming? else { return Err(Error::Closed.into()) };
    let (sender, _keep) = accepted.split();
    let (_answer, mut receiver) = dialled?.split();
    let payload = bytes::Bytes::from(vec![0x5a; sites.frame_bytes as usize]);
    let send = async {
        for _ in 0..sites.total_bytes / sites.frame_bytes {
            let frame = Frame { kind: 16, payload: payload.clone(), ..Frame::default() };
            sender.send(frame).await?;
        }
        sender.close(Closing::Done);
        Ok::<_, Error>(())
    };
    let receive = async {
        let mut received_bytes = 0;
        while let Ok(frame) = receiver.recv().await {
            received_bytes += frame.payload.len() as u64;
        }
        received_bytes
    };
    let (sent, received_bytes) = tokio::join!(send, receive);
    sent?;
    assert_eq!(received_bytes, sites.total_bytes, "not all of it arrived");
    Ok(())
}

/// One thread writes pieces, one reads into a buffer of the same size.
fn through_bare_tls(sites: &Arc<Sites>) -> Result<(), Failure> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    listener.set_nonblocking(true)?;
    let address = listener.local_addr()?;
    let reading = {
        let sites = sites.clone();
        std::thread::spawn(move || runtime()?.block_on(read_bare(address, &sites)))
    };
    runtime()?.block_on(async {
        let listener = tokio::net::TcpListener::from_std(listener)?;
        let peers = PeerSet::new([sites.secondary.identity()]);
        let config = tls::pinned_server_config(&sites.primary, &peers)?;
        let (tcp, _) = listener.accept().await?;
        tcp.set_nodelay(true)?;
        let mut stream = tokio_rustls::TlsAcceptor::from(config).accept(tcp).await?;
        stream.get_mut().1.set_buffer_limit(Some(1 << 20));
        let piece = vec![0x5a; sites.frame_bytes as usize];
        for _ in 0..sites.total_bytes / sites.frame_bytes {
            stream.write_all(&piece).await?;
        }
        stream.flush().await?;
        stream.shutdown().await?;
        Ok::<_, Failure>(())
    })?;
    reading.join().map_err(|_| Error::Closed)?
}

async fn read_bare(address: SocketAddr, sites: &Sites) -> Result<(), Failure> {
    let config = tls::pinned_client_config(&sites.secondary, sites.primary.identity())?;
    let name = rustls::pki_types::ServerName::try_from("grainhaul")?;
    let tcp = TcpStream::connect(address).await?;
    let mut stream = tokio_rustls::TlsConnector::from(config).connect(name, tcp).await?;
    let mut piece = vec![0; sites.frame_bytes as usize];
    let mut received_bytes = 0;
    loop {
        match stream.read(&mut piece).await? {
            0 => break,
            bytes => received_bytes += bytes as u64,
        }
    }
    assert_eq!(received_bytes, sites.total_bytes, "not all of it arrived");
    Ok(())
}
