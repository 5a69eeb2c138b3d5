//! Links over real sockets and real TLS on the loopback: who gets in, how links end, how much they
//! hold.

use std::net::SocketAddr;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use grain::RelationshipId;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::*;
use crate::frame::{Compress, flags};
use crate::{PeerSet, SiteKeys, tls};

struct Pair {
    primary: Arc<SiteKeys>,
    secondary: Arc<SiteKeys>,
    peers: PeerSet,
    terms: Terms,
    config: LinkConfig,
}

impl Pair {
    fn new() -> Self {
        let site = || Arc::new(SiteKeys::generate().unwrap());
        let (primary, secondary) = (site(), site());
        let peers = PeerSet::new([secondary.identity()]);
        let relationship = RelationshipId::new(1, [1; 10]);
        let terms = Terms { relationship, protocol: 3..=5, software: "test 1.0".into() };
        let config = LinkConfig { compress: Compress::Level(1), ..LinkConfig::default() };
        Pair { primary, secondary, peers, terms, config }
    }

    fn listen(&self) -> Listener {
        Listener::bind(Listen {
            addresses: vec![([127, 0, 0, 1], 0).into()],
            keys: self.primary.clone(),
            peers: self.peers.clone(),
            terms: self.terms.clone(),
            config: self.config.clone(),
            max_links: 2,
        })
        .unwrap()
    }

    fn dial(&self, listener: &Listener) -> Dial {
        Dial {
            addresses: vec![listener.local_addresses()[0].to_string()],
            peer: self.primary.identity(),
            keys: self.secondary.clone(),
            terms: self.terms.clone(),
            config: self.config.clone(),
        }
    }

    /// The primary's link, then the secondary's.
    async fn connect(&self) -> (Link, Link) {
        let mut listener = self.listen();
        let (dialled, incoming) = tokio::join!(dial(self.dial(&listener)), listener.next());
        let dialled = dialled.unwrap();
        let Incoming::Link(accepted) = incoming.unwrap() else { panic!("turned away") };
        (accepted, dialled)
    }

    /// A connection that has greeted and is now ours to misuse.
    async fn raw(&self, listener: &Listener) -> tokio_rustls::TlsStream<TcpStream> {
        let tcp = TcpStream::connect(listener.local_addresses()[0]).await.unwrap();
        let config = tls::pinned_client_config(&self.secondary, self.primary.identity()).unwrap();
        connect::secure_dialled(tcp, config, &self.terms).await.unwrap().0
    }
}

async fn turned(listener: &mut Listener) -> Error {
    match listener.next().await.unwrap() {
        Incoming::Turned { error, .. } => error,
        Incoming::Link(link) => panic!("{link:?} was let in"),
    }
}

async fn link(listener: &mut Listener) -> Link {
    match listener.next().await.unwrap() {
        Incoming::Link(link) => link,
        Incoming::Turned { error, .. } => panic!("{error}"),
    }
}

fn frame(kind: u16, payload: Vec<u8>) -> Frame {
    Frame { kind, flags: 0, control: Bytes::from_static(b"control"), payload: payload.into() }
}

#[tokio::test]
async fn frames_travel_both_ways_and_each_side_knows_the_other() {
    let pair = Pair::new();
    let (accepted, dialled) = pair.connect().await;
    assert_eq!(*accepted.peer(), pair.secondary.identity());
    assert_eq!(*dialled.peer(), pair.primary.identity());
    assert_eq!((dialled.about().protocol, accepted.about().protocol), (5, 5));
    assert_eq!(accepted.about().software, "test 1.0");
    let (to_secondary, mut from_secondary) = accepted.split();
    let (to_primary, mut from_primary) = dialled.split();
    for size in [0, 1, 5_000, 100_000, 8 << 20] {
        let mut sent = frame(100, vec![7; size]);
        sent.flags = flags::COMPRESS | 0x0100;
        to_primary.send(sent.clone()).await.unwrap();
        to_secondary.send(sent.clone()).await.unwrap();
        assert_eq!(from_secondary.recv().await.unwrap(), sent);
        assert_eq!(from_primary.recv().await.unwrap(), sent);
    }
    let counters = to_primary.counters();
    assert!(counters.sent_bytes < 1 << 20, "compressed on the way: {counters:?}");
    assert!(to_primary.send(frame(15, vec![])).await.is_err(), "kinds of the link are not free");
}

#[tokio::test]
async fn a_stranger_is_turned_away_and_both_sides_say_why() {
    let pair = Pair::new();
    let mut listener = pair.listen();
    let stranger = Arc::new(SiteKeys::generate().unwrap());
    let dialled = dial(Dial { keys: stranger.clone(), ..pair.dial(&listener) }).await;
    let error = dialled.unwrap_err();
    assert!(matches!(error, Error::Refused { by_peer: true, code: refusal::KEY, .. }), "{error}");
    let error = turned(&mut listener).await;
    assert!(matches!(error, Error::Stranger(_)), "{error}");
    // The other way round: whoever answers is not whom we want.
    let dialled = dial(Dial { peer: stranger.identity(), ..pair.dial(&listener) }).await;
    let error = dialled.unwrap_err();
    assert!(matches!(error, Error::Stranger(_)), "{error}");
    let error = turned(&mut listener).await;
    assert!(matches!(error, Error::Refused { by_peer: true, code: refusal::KEY, .. }), "{error}");
}

#[tokio::test]
async fn a_removed_peer_does_not_come_back() {
    let pair = Pair::new();
    let mut listener = pair.listen();
    drop(dial(pair.dial(&listener)).await.unwrap());
    drop(link(&mut listener).await);
    pair.peers.remove(&pair.secondary.identity());
    assert!(dial(pair.dial(&listener)).await.is_err());
    assert!(matches!(turned(&mut listener).await, Error::Stranger(_)));
}

#[tokio::test]
async fn another_relationship_and_another_version_are_refused_in_the_same_words() {
    let pair = Pair::new();
    let mut listener = pair.listen();
    let mut check = async |terms: Terms, expected: u16, words: &str| {
        let error = dial(Dial { terms, ..pair.dial(&listener) }).await.unwrap_err();
        let Error::Refused { by_peer: true, code, text } = error else { panic!("{error}") };
        let error = turned(&mut listener).await;
        let Error::Refused { by_peer: false, code: here, text: same } = error else {
            panic!("{error}")
        };
        assert_eq!((code, here), (expected, expected));
        assert_eq!(text, same);
        assert!(text.contains(words), "{text}");
    };
    let other = RelationshipId::new(2, [2; 10]);
    let terms = Terms { relationship: other, ..pair.terms.clone() };
    check(terms, refusal::RELATIONSHIP, &other.to_string()).await;
    let terms = Terms { protocol: 6..=9, ..pair.terms.clone() };
    check(terms, refusal::VERSION, "3 to 5 here, 6 to 9 there").await;
    let terms = Terms { protocol: 1..=2, ..pair.terms.clone() };
    check(terms, refusal::VERSION, "update the older side").await;
}

#[tokio::test]
async fn the_highest_common_version_is_taken() {
    let pair = Pair::new();
    let listener = pair.listen();
    let terms = Terms { protocol: 1..=4, ..pair.terms.clone() };
    let link = dial(Dial { terms, ..pair.dial(&listener) }).await.unwrap();
    assert_eq!(link.about().protocol, 4);
}

#[tokio::test]
async fn another_version_of_the_link_is_refused_in_words() {
    let pair = Pair::new();
    let mut listener = pair.listen();
    let config = tls::pinned_client_config(&pair.secondary, pair.primary.identity()).unwrap();
    let mut config = (*config).clone();
    config.alpn_protocols = vec![b"grainhaul/2".to_vec()];
    let tcp = TcpStream::connect(listener.local_addresses()[0]).await.unwrap();
    let outcome = connect::secure_dialled(tcp, Arc::new(config), &pair.terms).await;
    let error = outcome.map(|_| ()).unwrap_err();
    assert!(matches!(error, Error::Refused { by_peer: true, code: refusal::VERSION, .. }));
    assert!(error.to_string().contains("another version"), "{error}");
    let error = turned(&mut listener).await;
    assert!(matches!(error, Error::Refused { by_peer: false, code: refusal::VERSION, .. }));
}

#[tokio::test]
async fn more_links_than_allowed_are_refused_as_busy() {
    let pair = Pair::new();
    let mut listener = pair.listen();
    let first = dial(pair.dial(&listener)).await.unwrap();
    let second = dial(pair.dial(&listener)).await.unwrap();
    let error = dial(pair.dial(&listener)).await.unwrap_err();
    assert!(matches!(error, Error::Refused { by_peer: true, code: refusal::BUSY, .. }), "{error}");
    assert_eq!(error.class(), grain::ErrorClass::Retry);
    // Each connection is welcomed by a task of its own: the news of it may come in any order.
    let (mut held, mut refused) = (Vec::new(), Vec::new());
    for _ in 0..3 {
        match listener.next().await.unwrap() {
            Incoming::Link(link) => held.push(link),
            Incoming::Turned { error, .. } => refused.push(error),
        }
    }
    assert_eq!((held.len(), refused.len()), (2, 1), "{refused:?}");
    assert!(matches!(refused[0], Error::Refused { code: refusal::BUSY, .. }));
    drop((first, second, held));
}

#[tokio::test]
async fn large_transfers_arrive_whole_in_both_directions() {
    let (accepted, dialled) = Pair::new().connect().await;
    let (to_secondary, mut from_secondary) = accepted.split();
    let (to_primary, mut from_primary) = dialled.split();
    let payload = |n: u32| -> Bytes {
        let mut bytes = vec![0u8; 1 << 20];
        blake3::Hasher::new().update(&n.to_le_bytes()).finalize_xof().fill(&mut bytes);
        bytes.into()
    };
    let send = async |to: LinkSender| {
        for n in 0..96u32 {
            let control = Bytes::copy_from_slice(&n.to_le_bytes());
            to.send(Frame { kind: 20, flags: 0, control, payload: payload(n) }).await.unwrap();
        }
        to.close(Closing::Done);
    };
    let receive = async |from: &mut LinkReceiver, count: u32| {
        for n in 0..count {
            let frame = from.recv().await.unwrap();
            assert_eq!(frame.control[..], n.to_le_bytes());
            assert!(frame.payload == payload(n), "payload {n}");
        }
    };
    // First one way, then both at a time over a second link.
    tokio::join!(send(to_primary), receive(&mut from_secondary, 96));
    assert!(matches!(from_secondary.recv().await, Err(Error::Closed)));
    drop((to_secondary, from_primary.recv().await));
    let (accepted, dialled) = Pair::new().connect().await;
    let (to_secondary, mut from_secondary) = accepted.split();
    let (to_primary, mut from_primary) = dialled.split();
    let send_only = async |to: &LinkSender| {
        for n in 0..96u32 {
            let control = Bytes::copy_from_slice(&n.to_le_bytes());
            to.send(Frame { kind: 20, flags: 0, control, payload: payload(n) }).await.unwrap();
        }
    };
    tokio::join!(
        send_only(&to_primary),
        send_only(&to_secondary),
        receive(&mut from_primary, 96),
        receive(&mut from_secondary, 96)
    );
}

#[tokio::test]
async fn a_stalled_reader_holds_no_more_memory_than_stated() {
    let mut pair = Pair::new();
    pair.config.queue_bytes = 20 << 20;
    pair.config.socket_buffer_bytes = Some(256 << 10);
    let (accepted, dialled) = pair.connect().await;
    let (sender, _keep) = accepted.split();
    let (_answer, mut receiver) = dialled.split();
    let payload = Bytes::from(vec![1u8; 1 << 20]);
    let mut sent = 0usize;
    let send = |sent: usize| {
        let control = Bytes::copy_from_slice(&sent.to_le_bytes());
        sender.send(Frame { kind: 30, flags: 0, control, payload: payload.clone() })
    };
    // Until nothing seems to move any more. Both queues, a batch in TLS and what the kernel holds are
    // far below 64 MiB; that they hold what was promised is tested on a paused clock.
    while tokio::time::timeout(Duration::from_secs(2), send(sent)).await.is_ok() {
        sent += 1;
        assert!(sent <= 64, "{sent} MiB were taken with nobody reading");
    }
    for n in 0..sent {
        assert_eq!(receiver.recv().await.unwrap().control[..], n.to_le_bytes());
    }
    send(sent).await.unwrap();
    assert_eq!(receiver.recv().await.unwrap().control[..], sent.to_le_bytes());
}

#[tokio::test]
async fn a_link_that_is_cut_inside_a_frame_says_so() {
    let pair = Pair::new();
    let mut listener = pair.listen();
    let mut raw = pair.raw(&listener).await;
    let (_sender, mut receiver) = link(&mut listener).await.split();
    let header = crate::frame::Header {
        kind: 40,
        flags: 0,
        control_bytes: 0,
        payload_bytes: 1 << 20,
        raw_bytes: 1 << 20,
    };
    raw.write_all(&header.to_bytes()).await.unwrap();
    raw.write_all(&[0; 100_000]).await.unwrap();
    raw.shutdown().await.unwrap();
    let error = receiver.recv().await.unwrap_err();
    assert!(matches!(&error, Error::Cut(why) if why.contains("inside a frame")), "{error}");
    assert_eq!(error.class(), grain::ErrorClass::Retry);
}

#[tokio::test]
async fn garbage_from_a_pinned_peer_ends_the_link_and_names_the_field() {
    let pair = Pair::new();
    let mut listener = pair.listen();
    let mut raw = pair.raw(&listener).await;
    let (_sender, mut receiver) = link(&mut listener).await.split();
    raw.write_all(&[0xff; 64]).await.unwrap();
    raw.flush().await.unwrap();
    let error = receiver.recv().await.unwrap_err();
    assert!(matches!(error, Error::Frame { field: "magic", .. }), "{error}");
    assert_eq!(error.class(), grain::ErrorClass::Peer);
    // A kind of the link that has no place after the greeting.
    let mut raw = pair.raw(&listener).await;
    let (_sender, mut receiver) = link(&mut listener).await.split();
    let mut bytes = [0u8; 20];
    bytes[..4].copy_from_slice(b"GH\x01\x00");
    raw.write_all(&bytes).await.unwrap();
    raw.flush().await.unwrap();
    assert!(matches!(receiver.recv().await, Err(Error::Protocol(_))));
}

#[tokio::test]
async fn a_silent_peer_is_given_up() {
    let mut pair = Pair::new();
    let (interval, dead_after) = (Duration::from_millis(50), Duration::from_millis(400));
    pair.config.keep_alive = Some(KeepAlive { interval, dead_after });
    let mut listener = pair.listen();
    let raw = pair.raw(&listener).await;
    let (sender, mut receiver) = link(&mut listener).await.split();
    let error = receiver.recv().await.unwrap_err();
    assert!(matches!(error, Error::TimedOut { .. }), "{error}");
    assert!(matches!(sender.ended().await, Error::TimedOut { .. }));
    assert!(matches!(sender.send(frame(20, vec![])).await, Err(Error::TimedOut { .. })));
    drop(raw);
}

#[tokio::test]
async fn closing_delivers_what_was_queued_and_the_reason() {
    let (accepted, dialled) = Pair::new().connect().await;
    let (sender, mut own) = accepted.split();
    let (answer, mut receiver) = dialled.split();
    for n in 0..20u8 {
        sender.send(frame(50, vec![n; 300_000])).await.unwrap();
    }
    sender.close(Closing::Refused { code: 107, text: "split-brain\u{1b}[2J".into() });
    for n in 0..20u8 {
        assert_eq!(receiver.recv().await.unwrap().payload[0], n);
    }
    for _ in 0..2 {
        let error = receiver.recv().await.unwrap_err();
        let Error::Refused { by_peer: true, code: 107, text } = error else { panic!("{error}") };
        assert_eq!(text, "split-brain [2J", "no control characters from outside");
    }
    let error = own.recv().await.unwrap_err();
    assert!(matches!(error, Error::Refused { by_peer: false, code: 107, .. }), "{error}");
    assert!(matches!(sender.ended().await, Error::Refused { by_peer: false, .. }));
    assert!(matches!(answer.ended().await, Error::Refused { by_peer: true, .. }));
    assert!(answer.send(frame(50, vec![])).await.is_err());
}

#[tokio::test]
async fn dropping_both_halves_closes_the_link() {
    let (accepted, dialled) = Pair::new().connect().await;
    let (sender, receiver) = accepted.split();
    sender.send(frame(60, vec![1])).await.unwrap();
    drop((sender, receiver));
    let (_answer, mut receiver) = dialled.split();
    assert_eq!(receiver.recv().await.unwrap().payload[..], [1]);
    assert!(matches!(receiver.recv().await, Err(Error::Closed)));
}

#[tokio::test]
async fn each_address_is_tried_and_all_failures_are_told() {
    let pair = Pair::new();
    let mut listener = pair.listen();
    let good = listener.local_addresses()[0].to_string();
    // A port that was free a moment ago.
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let addresses = vec!["no address".into(), closed.to_string(), good];
    let dialled = dial(Dial { addresses: addresses.clone(), ..pair.dial(&listener) }).await;
    assert_eq!(*dialled.unwrap().peer(), pair.primary.identity());
    drop(link(&mut listener).await);
    let addresses = addresses[..2].to_vec();
    let error = dial(Dial { addresses, ..pair.dial(&listener) }).await.unwrap_err();
    let Error::Unreachable { tried } = &error else { panic!("{error}") };
    assert_eq!(tried.len(), 2);
    assert!(tried[1].starts_with(&closed.to_string()), "{error}");
}

#[tokio::test]
async fn a_visitor_that_says_nothing_is_sent_away_without_a_byte() {
    let mut pair = Pair::new();
    pair.config.handshake_timeout = Duration::from_millis(200);
    let mut listener = pair.listen();
    let mut visitor = TcpStream::connect(listener.local_addresses()[0]).await.unwrap();
    assert!(matches!(turned(&mut listener).await, Error::TimedOut { .. }));
    assert_eq!(answer(&mut visitor).await, b"");
}

#[tokio::test]
async fn the_newest_visitors_beyond_the_limit_are_dropped_and_the_door_still_works() {
    let mut pair = Pair::new();
    pair.config.handshake_timeout = Duration::from_secs(600);
    let mut listener = pair.listen();
    let mut visitors = Vec::new();
    for _ in 0..40 {
        visitors.push(TcpStream::connect(listener.local_addresses()[0]).await.unwrap());
    }
    for _ in 0..8 {
        let error = turned(&mut listener).await;
        assert!(matches!(error, Error::TooManyVisitors { limit: 32 }), "{error}");
    }
    for mut visitor in visitors.split_off(32) {
        assert_eq!(answer(&mut visitor).await, b"", "not a byte for a visitor");
    }
    drop(visitors);
    for _ in 0..32 {
        let error = turned(&mut listener).await;
        assert!(matches!(error, Error::Cut(_)), "{error}");
    }
    assert!(dial(pair.dial(&listener)).await.is_ok());
}

/// Everything that comes until the other side hangs up.
async fn answer(stream: &mut TcpStream) -> Vec<u8> {
    let mut all = Vec::new();
    // A reset is an answer of no bytes, too.
    drop(stream.read_to_end(&mut all).await);
    all
}

#[tokio::test]
async fn what_does_not_speak_our_protocol_gets_an_alert_or_nothing() {
    let pair = Pair::new();
    let mut listener = pair.listen();
    let mut visitor = TcpStream::connect(listener.local_addresses()[0]).await.unwrap();
    visitor.write_all(b"GET / HTTP/1.0\r\n\r\n").await.unwrap();
    let said = answer(&mut visitor).await;
    // A TLS record of type alert (21), and nothing more.
    assert!(said.is_empty() || (said[0] == 21 && said.len() == 7), "{said:?}");
    assert!(matches!(turned(&mut listener).await, Error::Protocol(_)));
}

fn openssl(address: SocketAddr, arguments: &[&str]) -> (String, String) {
    let child = Command::new("openssl")
        .args(["s_client", "-connect", &address.to_string(), "-quiet", "-no_ign_eof"])
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let mut child = child.expect("this test needs openssl: apt-get install openssl");
    drop(std::io::Write::write_all(&mut child.stdin.take().unwrap(), b"hello\n"));
    let output = child.wait_with_output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    (text(output.stdout), text(output.stderr))
}

#[tokio::test]
async fn openssl_s_client_gets_nothing() {
    let pair = Pair::new();
    let mut listener = pair.listen();
    let address = listener.local_addresses()[0];
    let run = |arguments: &'static [&'static str]| {
        tokio::task::spawn_blocking(move || openssl(address, arguments))
    };
    // Without our protocol's name: not even a certificate.
    let (said, log) = run(&["-tls1_3"]).await.unwrap();
    assert_eq!(said, "");
    assert!(!log.contains("CN = grainhaul") && !log.contains("CN=grainhaul"), "{log}");
    assert!(matches!(turned(&mut listener).await, Error::Stranger(_)));
    // With the name, and no certificate; then with an older TLS.
    let (said, _) = run(&["-tls1_3", "-alpn", "grainhaul/1"]).await.unwrap();
    assert_eq!(said, "");
    assert!(matches!(turned(&mut listener).await, Error::Stranger(_)));
    let (said, log) = run(&["-tls1_2", "-alpn", "grainhaul/1"]).await.unwrap();
    assert_eq!(said, "");
    assert!(log.contains("alert"), "{log}");
    assert!(matches!(turned(&mut listener).await, Error::Protocol(_)));
}
