//! Flags of `serve` that say what a site does as the source.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use disk::Context;
use replication::PaceSettings;
use site::Problem;

use super::{Shared, duration, rate, size};
use crate::hours::Hours;
use crate::problem::{of_wire, refused};
use crate::source::{NbdListen, SourceOptions};

/// See the module's text.
#[derive(Clone, Debug, clap::Args)]
pub struct SourceFlags {
    /// Where applications connect: unix:PATH or tcp:HOST:PORT
    #[arg(long, value_name = "ADDRESS")]
    nbd: Vec<NbdAddress>,
    /// Certificates of the authority that signs clients of NBD over TCP (PEM)
    #[arg(long, value_name = "FILE", requires = "nbd_tls_cert", requires = "nbd_tls_key")]
    nbd_tls_ca: Option<PathBuf>,
    /// Our certificate for NBD over TCP (PEM)
    #[arg(long, value_name = "FILE")]
    nbd_tls_cert: Option<PathBuf>,
    /// Its key (PEM)
    #[arg(long, value_name = "FILE")]
    nbd_tls_key: Option<PathBuf>,
    /// Allow NBD over TCP without TLS, on a loopback address only
    #[arg(long)]
    nbd_plain: bool,
    /// What a power cut may at most cost in data to be compared afterwards: a size, or `exact`
    #[arg(long, value_name = "SIZE", default_value = "64GiB")]
    crash_excess: String,
    /// Memory for what a replica's catch-up must preserve against writes
    #[arg(long, value_name = "SIZE", default_value = "64MiB", value_parser = size)]
    preserve_buffer: u64,
    /// Size of the side file for the same [default: none]
    #[arg(long, value_name = "SIZE", default_value = "0", value_parser = size)]
    preserve_side: u64,
    /// Where side files go [default: the relationship's directory]
    #[arg(long, value_name = "DIR")]
    side_dir: Option<PathBuf>,
    /// How long a writer waits for room to preserve
    #[arg(long, value_name = "TIME", default_value = "2s", value_parser = duration)]
    preserve_wait: Duration,
    /// What dumps, catch-ups and verifications may read here a second, together [default: no limit]
    #[arg(long, value_name = "RATE", value_parser = rate)]
    rate: Option<u64>,
    /// The same in some hours, by the local clock: 08:00-18:00=20MiB/s, 'mon-fri 22:00-06:00=off'. May be given
    /// several times, the first that covers the hour holds
    #[arg(long, value_name = "HOURS=RATE")]
    hours: Vec<Hours>,
    /// Dumps, catch-ups and verifications go slower while requests of applications take twice as long as alone
    #[arg(long)]
    give_way: bool,
    /// While streaming: time from one cut to the next
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = duration)]
    epoch: Duration,
    /// While streaming: bytes that the peer may not have confirmed; beyond, it catches up instead
    #[arg(long, value_name = "SIZE", default_value = "64MiB", value_parser = size)]
    stream_queue: u64,
    /// While streaming: how long the peer may take to confirm a write; beyond, likewise
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = duration)]
    stream_age: Duration,
    /// After an unclean stop, offer the volumes only once the peer has said that it was not promoted
    #[arg(long, value_name = "WHEN", value_enum, default_value = "never")]
    require_peer: RequirePeer,
    /// Say that this side's content is right after a failed sync
    #[arg(long)]
    accept_suspect: bool,
}

/// When a source waits for its peer before it offers its volumes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum RequirePeer {
    /// It does not.
    Never,
    /// At a start after a stop that was not clean.
    AtStart,
}

/// `unix:PATH` or `tcp:HOST:PORT`.
#[derive(Clone, Debug)]
enum NbdAddress {
    Unix(PathBuf),
    Tcp(SocketAddr),
}

impl std::str::FromStr for NbdAddress {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        if let Some(path) = text.strip_prefix("unix:") {
            let path = std::path::absolute(path).map_err(|e| format!("{path}: {e}"))?;
            return Ok(NbdAddress::Unix(path));
        }
        if let Some(address) = text.strip_prefix("tcp:") {
            return address
                .parse()
                .map(NbdAddress::Tcp)
                .map_err(|e| format!("{address}: {e}; write tcp:ADDRESS:PORT"));
        }
        Err("write unix:PATH or tcp:HOST:PORT".to_owned())
    }
}

impl SourceFlags {
    /// The options of the role. Reads the certificates that are named.
    pub async fn options(&self, ctx: &Context, shared: &Shared) -> Result<SourceOptions, Problem> {
        let mut options = SourceOptions {
            listen: shared.listen.clone(),
            nbd: NbdListen { plain: self.nbd_plain, ..NbdListen::default() },
            buffer_bytes: self.preserve_buffer,
            side_bytes: self.preserve_side,
            side_dir: self.side_dir.clone(),
            preserve_wait: self.preserve_wait,
            ..SourceOptions::default()
        };
        options.compress = shared.compress;
        options.settings.pace =
            PaceSettings { rate_bytes: self.rate.unwrap_or(0), gives_way: self.give_way };
        options.hours = self.hours.clone();
        options.stream.epoch = self.epoch.max(Duration::from_secs(1));
        options.stream.queue_bytes = self.stream_queue;
        options.stream.age_limit = self.stream_age;
        options.settings.layer_history_bytes = shared.layer_history;
        options.settings.accept_touched = shared.accept_touched;
        options.settings.accept_suspect = self.accept_suspect;
        options.require_peer = self.require_peer == RequirePeer::AtStart;
        if self.crash_excess == "exact" {
            options.settings.crash_excess_exact = true;
        } else {
            options.settings.crash_excess_bytes =
                size(&self.crash_excess).map_err(|e| refused("usage", e))?;
        }
        for address in &self.nbd {
            match address {
                NbdAddress::Unix(path) => options.nbd.unix = Some(path.clone()),
                NbdAddress::Tcp(address) => options.nbd.tcp = Some(*address),
            }
        }
        options.nbd.tls = self.tls(ctx).await?;
        Ok(options)
    }

    async fn tls(&self, ctx: &Context) -> Result<Option<Arc<rustls::ServerConfig>>, Problem> {
        let (Some(ca), Some(cert), Some(key)) =
            (&self.nbd_tls_ca, &self.nbd_tls_cert, &self.nbd_tls_key)
        else {
            return Ok(None);
        };
        let mut pem = Vec::new();
        for path in [ca, cert, key] {
            let read = ctx.storage.read_all(path, 1 << 20).await;
            pem.push(read.map_err(|e| refused("nbd-tls", format!("{}: {e}", path.display())))?);
        }
        let config = wire::tls::pki_server_config(&pem[0], &pem[1], &pem[2]);
        Ok(Some(config.map_err(|e| of_wire(&e))?))
    }
}
