//! The marker file: what has to be run to thaw, for a start that finds it. It is ours, and yet read as if a
//! stranger had written it: what it says is run with our rights.

use std::io;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::Hook;

/// What stands in the marker.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Marker {
    /// Ends the freeze.
    pub thaw: Hook,
    /// How long it may take.
    pub timeout_ms: u64,
    /// As hex; a file system does not stay frozen over a boot.
    pub boot_id: String,
}

impl Marker {
    /// The bytes of the file.
    ///
    /// # Errors
    /// When a path is no text.
    pub fn encode(&self) -> io::Result<Vec<u8>> {
        Ok(serde_json::to_vec(self)?)
    }

    /// Reads the bytes of the file. A hook that the options would refuse is refused here, too.
    ///
    /// # Errors
    /// When it is no marker.
    pub fn decode(bytes: &[u8]) -> io::Result<Marker> {
        let marker: Marker = serde_json::from_slice(bytes)?;
        match Hook::parse(&marker.thaw.text()) {
            Ok(hook) if hook == marker.thaw => Ok(marker),
            _ => Err(io::Error::new(io::ErrorKind::InvalidData, "it names no thaw hook")),
        }
    }

    /// How long the thaw may take: what the marker says, between a second and an hour.
    pub fn limit(&self) -> Duration {
        Duration::from_millis(self.timeout_ms.clamp(1_000, 3_600_000))
    }

    /// What `/bin/sh` is given to thaw.
    pub fn command(&self) -> String {
        self.thaw.thaw_command()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_options_refuse_is_refused_in_a_marker() {
        let marker = |thaw: &str| format!(r#"{{"thaw":{thaw},"timeout_ms":0,"boot_id":"00"}}"#);
        let read = |thaw: &str| Marker::decode(marker(thaw).as_bytes());
        let good = read(r#"{"fs-freeze":"/srv/it's"}"#).unwrap();
        assert!(good.command().contains(r"--unfreeze '/srv/it'\''s'"), "{}", good.command());
        assert_eq!(good.limit(), Duration::from_secs(1));
        assert_eq!(Marker::decode(&good.encode().unwrap()).unwrap(), good);
        assert_eq!(read(r#"{"shell":"true"}"#).unwrap().command(), "true");
        for bad in [
            r#"{"fs-freeze":"--help"}"#,
            r#"{"fs-freeze":""}"#,
            r#"{"shell":" "}"#,
            r#"{"shell":"fsfreeze:/srv"}"#,
            r#"{"other":"x"}"#,
        ] {
            assert!(read(bad).is_err(), "{bad}");
        }
    }
}
