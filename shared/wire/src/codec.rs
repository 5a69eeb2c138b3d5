//! The codec of control messages and small stored records: bincode 2, fixed-size integers, little
//! endian. The only module that touches bincode (`docs/decisions/0031`).
//!
//! Promises of [`decode`]: it never reads more than the bound that its caller states, refuses trailing
//! bytes, and allocates in proportion to the bytes that are there, whatever they claim: a length inside
//! the message is charged against a budget of at most four times the message before anything is
//! allocated for it (a `Vec` of structs may reserve up to 1 MiB more, serde's own bound).
//!
//! Not promised: types that recurse, and sequences of zero-sized elements (`Vec<()>`), whose claimed
//! length costs the sender nothing. Message types must not have them.

use bincode::config::{Config, standard};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::Error;

/// No message or record may be longer, whatever the caller's limit: 64 MiB.
pub const MAX_BYTES: usize = 64 << 20;

/// Encodes `value`: fixed-size little-endian integers, lengths as `u64`, enum variants as `u32`.
///
/// Fails when a type refuses to be serialised, or when the result exceeds [`MAX_BYTES`].
pub fn encode<T: Serialize + ?Sized>(value: &T) -> Result<Vec<u8>, Error> {
    let config = standard().with_fixed_int_encoding();
    let bytes =
        bincode::serde::encode_to_vec(value, config).map_err(|e| Error::Encode(e.to_string()))?;
    if bytes.len() > MAX_BYTES {
        return Err(Error::Encode(format!("{} bytes, more than {MAX_BYTES}", bytes.len())));
    }
    Ok(bytes)
}

/// Decodes the whole of `bytes`, which may be at most `limit_bytes` long. Bytes left over are an error.
pub fn decode<T: DeserializeOwned>(bytes: &[u8], limit_bytes: usize) -> Result<T, Error> {
    let limit = limit_bytes.min(MAX_BYTES);
    if bytes.len() > limit {
        let (bytes, limit) = (bytes.len() as u64, limit as u64);
        return Err(Error::TooLong { what: "a message", bytes, limit });
    }
    // bincode takes its limit as a constant; the next larger step keeps a claimed length in
    // proportion to what was really sent.
    match bytes.len() {
        0..=0x400 => with_limit::<T, 0x400>(bytes),
        0x401..=0x1000 => with_limit::<T, 0x1000>(bytes),
        0x1001..=0x4000 => with_limit::<T, 0x4000>(bytes),
        0x4001..=0x1_0000 => with_limit::<T, 0x1_0000>(bytes),
        0x1_0001..=0x4_0000 => with_limit::<T, 0x4_0000>(bytes),
        0x4_0001..=0x10_0000 => with_limit::<T, 0x10_0000>(bytes),
        0x10_0001..=0x40_0000 => with_limit::<T, 0x40_0000>(bytes),
        0x40_0001..=0x100_0000 => with_limit::<T, 0x100_0000>(bytes),
        _ => with_limit::<T, MAX_BYTES>(bytes),
    }
}

fn with_limit<T: DeserializeOwned, const LIMIT: usize>(bytes: &[u8]) -> Result<T, Error> {
    from_slice(bytes, standard().with_fixed_int_encoding().with_limit::<LIMIT>())
}

fn from_slice<T: DeserializeOwned>(bytes: &[u8], config: impl Config) -> Result<T, Error> {
    let fail = |why: String| Error::Message { bytes: bytes.len(), why };
    let (value, used) =
        bincode::serde::decode_from_slice(bytes, config).map_err(|e| fail(e.to_string()))?;
    if used != bytes.len() {
        return Err(fail(format!("{} bytes follow its end at byte {used}", bytes.len() - used)));
    }
    Ok(value)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde::Deserialize;

    use super::*;

    #[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
    enum Sample {
        Ping,
        Named { name: String, numbers: Vec<u64>, tail: Option<Box<(u8, i32)>> },
        Bytes(Vec<u8>, Vec<Vec<String>>),
    }

    fn samples() -> Vec<Sample> {
        let tail = Some(Box::new((7, -3)));
        let named = Sample::Named { name: "grain".into(), numbers: vec![1, u64::MAX], tail };
        vec![Sample::Ping, named, Sample::Bytes(vec![0; 300], vec![vec!["a".into()], vec![]])]
    }

    #[test]
    fn values_round_trip_and_the_layout_is_as_documented() {
        for sample in samples() {
            let bytes = encode(&sample).unwrap();
            assert_eq!(decode::<Sample>(&bytes, 1 << 20).unwrap(), sample);
        }
        // Golden: u32 variant, u64 length, text, u64 length, numbers, option byte, fields.
        let bytes = encode(&samples()[1]).unwrap();
        let golden = "0100000005000000000000006772616\
                      96e02000000000000000100000000000000ffffffffffffffff0107fdffffff";
        assert_eq!(data_encoding::HEXLOWER.encode(&bytes), golden);
    }

    #[test]
    fn too_long_and_trailing_bytes_are_refused() {
        let bytes = encode(&samples()[2]).unwrap();
        let error = decode::<Sample>(&bytes, bytes.len() - 1).unwrap_err();
        assert!(matches!(error, Error::TooLong { .. }), "{error}");
        let mut longer = bytes;
        longer.push(0);
        let error = decode::<Sample>(&longer, 1 << 20).unwrap_err().to_string();
        assert!(error.contains("1 bytes follow its end"), "{error}");
    }

    #[test]
    fn a_claimed_length_allocates_nothing() {
        // Claims a text of 2^40 bytes, then one of just under the static bound.
        for claim in [1u64 << 40, (MAX_BYTES - 64) as u64, u64::MAX] {
            let mut bytes = vec![1, 0, 0, 0];
            bytes.extend(claim.to_le_bytes());
            let error = decode::<Sample>(&bytes, MAX_BYTES).unwrap_err();
            assert!(error.to_string().contains("LimitExceeded"), "{error}");
        }
    }

    proptest! {
        #[test]
        fn random_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            if let Ok(sample) = decode::<Sample>(&bytes, 1 << 20) {
                prop_assert_eq!(encode(&sample).unwrap(), bytes);
            }
        }

        #[test]
        fn mutated_messages_decode_to_what_they_say_or_fail(
            which in 0usize..3, at in any::<prop::sample::Index>(), bit in 0u8..8,
        ) {
            let mut bytes = encode(&samples()[which]).unwrap();
            let at = at.index(bytes.len());
            bytes[at] ^= 1 << bit;
            if let Ok(sample) = decode::<Sample>(&bytes, 1 << 20) {
                prop_assert_eq!(encode(&sample).unwrap(), bytes);
            }
        }
    }
}
