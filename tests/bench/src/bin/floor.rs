//! The floor: an NBD server that does the system calls of a request and nothing else. One thread a
//! connection, no checks, no errors, no tracking: what any server on this machine could at best reach.
//! Never to be used for anything else. Usage: `floor FILE SOCKET`.

use std::fs::File;
use std::io::{Read, Result, Write};
use std::os::unix::fs::FileExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::Arc;

const GO: u32 = 7;
const ACK: u32 = 1;
const INFO: u32 = 3;
const UNSUPPORTED: u32 = 1 << 31 | 1;
const REPLY_MAGIC: [u8; 8] = 0x0003_e889_0455_65a9_u64.to_be_bytes();
const SIMPLE_MAGIC: [u8; 4] = 0x6744_6698_u32.to_be_bytes();
/// Has flags, flush, several connections.
const FLAGS: u16 = 1 | 1 << 2 | 1 << 8;
const HEADER: usize = 28;
/// Requests are taken from the socket as many at a time as are there.
const BUFFER: usize = 4 << 20;

fn number<const N: usize>(bytes: &[u8]) -> [u8; N] {
    let mut out = [0; N];
    out.copy_from_slice(&bytes[..N]);
    out
}

fn option_reply(stream: &mut UnixStream, option: u32, kind: u32, data: &[u8]) -> Result<()> {
    let mut out = REPLY_MAGIC.to_vec();
    for field in [option, kind, data.len() as u32] {
        out.extend(field.to_be_bytes());
    }
    out.extend(data);
    stream.write_all(&out)
}

fn negotiate(stream: &mut UnixStream, size: u64) -> Result<()> {
    stream.write_all(b"NBDMAGICIHAVEOPT\x00\x03")?;
    stream.read_exact(&mut [0; 4])?;
    loop {
        let mut head = [0; 16];
        stream.read_exact(&mut head)?;
        let option = u32::from_be_bytes(number(&head[8..]));
        let mut data = vec![0; u32::from_be_bytes(number(&head[12..])) as usize];
        stream.read_exact(&mut data)?;
        if option != GO {
            option_reply(stream, option, UNSUPPORTED, &[])?;
            continue;
        }
        let mut info = vec![0, 0];
        info.extend(size.to_be_bytes());
        info.extend(FLAGS.to_be_bytes());
        option_reply(stream, option, INFO, &info)?;
        return option_reply(stream, option, ACK, &[]);
    }
}

fn serve(mut stream: UnixStream, file: &File) -> Result<()> {
    negotiate(&mut stream, file.metadata()?.len())?;
    let (mut buffer, mut from, mut to) = (vec![0; BUFFER], 0, 0);
    let mut out: Vec<u8> = Vec::with_capacity(BUFFER);
    loop {
        // Answers go out when no whole request is left in the buffer.
        let waiting = &buffer[from..to];
        let kind = waiting.get(6..8).map(|b| u16::from_be_bytes(number(b)));
        let length = waiting.get(24..28).map_or(0, |b| u32::from_be_bytes(number(b)) as usize);
        let need = HEADER + if kind == Some(1) { length } else { 0 };
        if waiting.len() < need {
            if !out.is_empty() {
                stream.write_all(&out)?;
                out.clear();
            }
            buffer.copy_within(from..to, 0);
            (from, to) = (0, to - from);
            match stream.read(&mut buffer[to..])? {
                0 => return Ok(()),
                n => to += n,
            }
            continue;
        }
        let offset = u64::from_be_bytes(number(&waiting[16..]));
        out.extend(SIMPLE_MAGIC);
        out.extend([0; 4]);
        out.extend(&waiting[8..16]);
        match kind {
            Some(0) => {
                let start = out.len();
                out.resize(start + length, 0);
                file.read_exact_at(&mut out[start..], offset)?;
            }
            Some(1) => file.write_all_at(&waiting[HEADER..need], offset)?,
            Some(3) => file.sync_data()?,
            _ => return Ok(()),
        }
        from += need;
    }
}

fn main() -> Result<()> {
    let arguments: Vec<_> = std::env::args_os().skip(1).collect();
    let [file, socket] = arguments.as_slice() else {
        return Err(std::io::Error::other("usage: floor FILE SOCKET"));
    };
    let file = Arc::new(File::options().read(true).write(true).open(file)?);
    for stream in UnixListener::bind(socket)?.incoming() {
        let (stream, file) = (stream?, file.clone());
        std::thread::spawn(move || serve(stream, &file));
    }
    Ok(())
}
