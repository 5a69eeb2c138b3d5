//! The system's clock and the kernel's random numbers.

use std::time::{SystemTime, UNIX_EPOCH};

use rustix::rand::{GetRandomFlags, getrandom};

use crate::{Clock, Entropy};

/// The wall clock of this machine.
pub struct SystemClock {
    boot_id: [u8; 16],
}

impl SystemClock {
    /// Reads the boot id once. Where the kernel does not tell it, a random one stands in: every
    /// start then looks like one after a power cut, which is the careful reading.
    pub fn new() -> Self {
        let text = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
        let boot_id = parse_uuid(&text).unwrap_or_else(|| {
            tracing::warn!("the kernel tells no boot id; every start will count as a power cut");
            let mut random = [0; 16];
            KernelEntropy.fill(&mut random);
            random
        });
        SystemClock { boot_id }
    }
}

impl Default for SystemClock {
    fn default() -> Self {
        Self::new()
    }
}

impl Clock for SystemClock {
    fn unix_ms(&self) -> u64 {
        // A clock set before 1970 reads as 0.
        SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_millis() as u64)
    }

    fn boot_id(&self) -> [u8; 16] {
        self.boot_id
    }
}

/// `getrandom(2)` at every call.
pub struct KernelEntropy;

impl Entropy for KernelEntropy {
    /// # Panics
    /// When the kernel refuses random bytes: no id and no key may be made then.
    fn fill(&self, buf: &mut [u8]) {
        let mut done = 0;
        while done < buf.len() {
            match getrandom(&mut buf[done..], GetRandomFlags::empty()) {
                Ok(n) => done += n,
                Err(rustix::io::Errno::INTR) => {}
                // invariant: since Linux 5.6 `getrandom` fails only for a bad address, or before the
                // first seeding, where it waits; without it no id and no key may be made.
                Err(error) => panic!("the kernel gives no random bytes: {error}"),
            }
        }
    }
}

/// The 16 bytes of 32 hex digits, dashes and surrounding space ignored.
fn parse_uuid(text: &str) -> Option<[u8; 16]> {
    let mut digits = text.trim().chars().filter(|c| *c != '-').map(|c| c.to_digit(16));
    let mut bytes = [0; 16];
    for byte in &mut bytes {
        *byte = (digits.next()?? << 4 | digits.next()??) as u8;
    }
    digits.next().is_none().then_some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn boot_ids_parse_and_stay() {
        let id = parse_uuid("00112233-4455-6677-8899-aabbccddeeff\n").unwrap();
        assert_eq!(id[..4], [0, 0x11, 0x22, 0x33]);
        assert_eq!(id[15], 0xff);
        for bad in ["", "0011", "00112233-4455-6677-8899-aabbccddeefg", &"0".repeat(33)] {
            assert_eq!(parse_uuid(bad), None, "{bad}");
        }
        assert_eq!(SystemClock::new().boot_id(), SystemClock::new().boot_id());
    }

    #[test]
    fn random_bytes_differ_and_fill_all() {
        let (mut a, mut b) = ([0; 64], [0; 64]);
        KernelEntropy.fill(&mut a);
        KernelEntropy.fill(&mut b);
        assert_ne!(a, b);
        assert_ne!(a[32..], [0; 32]);
    }

    #[test]
    fn the_clock_is_past_2020() {
        assert!(SystemClock::new().unix_ms() > 1_577_836_800_000);
    }
}
