//! [`Name`]: what a relationship is called at this site.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::{Error, Result};

/// 1 to 64 of `A-Z a-z 0-9 . _ -`, not starting with a dot: safe as the name of a directory, a ticket
/// and in a shell.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Name(String);

impl Name {
    /// As text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Name {
    type Err = Error;

    fn from_str(text: &str) -> Result<Name> {
        let good = |c: u8| c.is_ascii_alphanumeric() || b"._-".contains(&c);
        // A leading dash would read as an option.
        let odd_start = text.starts_with('.') || text.starts_with('-');
        if text.is_empty() || text.len() > 64 || odd_start || !text.bytes().all(good) {
            return Err(Error::Name(text.to_owned()));
        }
        Ok(Name(text.to_owned()))
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl TryFrom<String> for Name {
    type Error = Error;
    fn try_from(text: String) -> Result<Name> {
        text.parse()
    }
}

impl From<Name> for String {
    fn from(name: Name) -> String {
        name.0
    }
}
