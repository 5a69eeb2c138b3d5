//! The proxy against an echo server. Times are compared with lower bounds only.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::time::{Duration, Instant};

use super::{Direction, Proxy};

/// A server that sends back what it gets, until the test ends.
fn echo() -> Proxy {
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let target = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        while let Ok((mut stream, _)) = listener.accept() {
            std::thread::spawn(move || {
                let mut buf = vec![0; 65_536];
                while let Ok(count @ 1..) = stream.read(&mut buf) {
                    if stream.write_all(&buf[..count]).is_err() {
                        break;
                    }
                }
            });
        }
    });
    Proxy::start(target)
}

fn connect(proxy: &Proxy) -> TcpStream {
    let stream = TcpStream::connect(proxy.address()).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    stream
}

fn round_trip(stream: &mut TcpStream, len: usize) -> std::io::Result<()> {
    let sent: Vec<u8> = (0..len).map(|i| (i * 7) as u8).collect();
    stream.write_all(&sent)?;
    let mut back = vec![0; len];
    stream.read_exact(&mut back)?;
    assert_eq!(sent, back);
    Ok(())
}

#[test]
fn bytes_pass_unchanged_and_are_counted() {
    let proxy = echo();
    let mut stream = connect(&proxy);
    round_trip(&mut stream, 300_000).unwrap();
    assert_eq!(proxy.bytes(Direction::ToTarget), 300_000);
    assert_eq!(proxy.bytes(Direction::FromTarget), 300_000);
    assert_eq!(proxy.connections(), 1);
}

#[test]
fn a_rate_and_a_delay_take_their_time() {
    let proxy = echo();
    let mut stream = connect(&proxy);
    proxy.set_rate(Some(1_000_000));
    let start = Instant::now();
    round_trip(&mut stream, 200_000).unwrap();
    assert!(start.elapsed() >= Duration::from_millis(180));
    proxy.set_rate(None);
    proxy.set_delay(Duration::from_millis(60));
    let start = Instant::now();
    round_trip(&mut stream, 10).unwrap();
    assert!(start.elapsed() >= Duration::from_millis(120));
}

#[test]
fn a_cut_ends_connections_and_refuses_new_ones_until_it_heals() {
    let proxy = echo();
    let mut stream = connect(&proxy);
    round_trip(&mut stream, 10).unwrap();
    proxy.cut();
    assert!(round_trip(&mut stream, 10).is_err());
    let refused = TcpStream::connect(proxy.address()).is_err()
        || round_trip(&mut connect(&proxy), 10).is_err();
    assert!(refused);
    proxy.heal();
    round_trip(&mut connect(&proxy), 10).unwrap();
    let mut other = connect(&proxy);
    round_trip(&mut other, 10).unwrap();
    proxy.flap();
    assert!(round_trip(&mut other, 10).is_err());
    round_trip(&mut connect(&proxy), 10).unwrap();
}

#[test]
fn a_silent_link_loses_everything_and_says_nothing() {
    for direction in [Direction::ToTarget, Direction::FromTarget] {
        let proxy = echo();
        let mut stream = connect(&proxy);
        round_trip(&mut stream, 10).unwrap();
        proxy.silence(direction);
        stream.set_read_timeout(Some(Duration::from_millis(150))).unwrap();
        let error = round_trip(&mut stream, 10).unwrap_err();
        let waited = [std::io::ErrorKind::WouldBlock, std::io::ErrorKind::TimedOut];
        assert!(waited.contains(&error.kind()), "{error}");
        assert_eq!(proxy.bytes(Direction::FromTarget), 10);
        proxy.heal();
        assert!(round_trip(&mut stream, 10).is_err(), "what was lost stays lost");
        round_trip(&mut connect(&proxy), 10).unwrap();
    }
}

#[test]
fn the_end_of_one_side_reaches_the_other() {
    let proxy = echo();
    let mut stream = connect(&proxy);
    stream.write_all(b"last words").unwrap();
    stream.shutdown(std::net::Shutdown::Write).unwrap();
    let mut back = String::new();
    stream.read_to_string(&mut back).unwrap();
    assert_eq!(back, "last words");
}
