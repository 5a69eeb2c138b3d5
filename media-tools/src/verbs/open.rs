//! Opening a set: directories, and what may unlock them.

use std::path::{Path, PathBuf};
use std::rc::Rc;

use media::KeySource;
use site::{Exit, Problem};
use wire::{EscrowKey, Passphrase, SiteKeys};

use super::Context;

/// The media, and keys.
#[derive(clap::Args)]
pub struct SetArguments {
    /// Directories of the media
    #[arg(required = true, value_name = "DIR")]
    pub dirs: Vec<PathBuf>,
    /// A key file: of a site (site.key) or of `keygen` [default: this site's key, if there is one]
    #[arg(long, value_name = "FILE")]
    pub key: Option<PathBuf>,
    /// A file whose first line is the passphrase of the set
    #[arg(long, value_name = "FILE")]
    pub passphrase_file: Option<PathBuf>,
}

fn failed(path: &Path, why: impl std::fmt::Display) -> Problem {
    Problem::new("key", format!("{}: {why}", path.display()), Exit::OPERATOR)
        .safe("The media were only read.")
}

impl SetArguments {
    /// The directories, absolute.
    pub fn dirs(&self) -> Result<Vec<PathBuf>, Problem> {
        self.dirs.iter().map(|dir| std::path::absolute(dir).map_err(|e| failed(dir, e))).collect()
    }

    /// Everything that may unlock the set.
    pub async fn keys(&self, verb: &Context) -> Result<Vec<KeySource>, Problem> {
        let mut keys = Vec::new();
        if let Some(path) = &self.key {
            keys.push(self.key_file(verb, path).await?);
        } else if let Ok(state) = verb.global.state_dir() {
            let path = state.site_key();
            if path.exists() {
                keys.push(self.key_file(verb, &path).await?);
            }
        }
        if let Some(path) = &self.passphrase_file {
            let text = read(verb, path).await?;
            let text = String::from_utf8(text).map_err(|_| failed(path, "not text"))?;
            let line = text.lines().next().unwrap_or_default();
            let passphrase = Passphrase::new(line.to_owned()).map_err(|e| failed(path, e))?;
            keys.push(KeySource::Passphrase(passphrase));
        }
        Ok(keys)
    }

    async fn key_file(&self, verb: &Context, path: &Path) -> Result<KeySource, Problem> {
        let bytes = read(verb, path).await?;
        match SiteKeys::from_file_bytes(&bytes) {
            Ok(keys) => Ok(KeySource::Site(Rc::new(keys))),
            Err(as_site) => match EscrowKey::from_file_bytes(&bytes) {
                Ok(key) => Ok(KeySource::Escrow(Rc::new(key))),
                Err(_) => Err(failed(path, as_site)),
            },
        }
    }
}

async fn read(verb: &Context, path: &Path) -> Result<Vec<u8>, Problem> {
    let absolute = std::path::absolute(path).map_err(|e| failed(path, e))?;
    verb.ctx.storage.read_all(&absolute, 64 << 10).await.map_err(|e| failed(path, e))
}
