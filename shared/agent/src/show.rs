//! Status for people.

use std::time::Duration;

use site::Printer;
use site::amount::{human_bytes, human_duration, human_rate};
use site::printer::Table;

use crate::VerifiedStatus;
use crate::past::PastStatus;
use crate::status::{Amount, ForecastStatus, PeerStatus, Status};

fn amount(amount: Amount) -> String {
    format!("{} grains ({})", amount.grains, human_bytes(amount.bytes))
}

fn age(now: u64, then: u64) -> String {
    format!("{} ago", human_duration(Duration::from_millis(now.saturating_sub(then))))
}

/// Prints a status.
pub fn status(printer: &Printer, status: &Status) {
    let json = serde_json::to_value(status).unwrap_or_default();
    let mut table = Table::pairs();
    let mut row = |name: &str, value: String| table.row([name.to_owned(), value]);
    row("relationship", format!("{} ({})", status.name, status.role));
    row("state", format!("{}: {}", status.state, status.explanation));
    for volume in &status.volumes {
        let text = format!("{} {} {}", volume.alias, volume.path, human_bytes(volume.bytes));
        row("volume", text);
    }
    match &status.position {
        Some(cut) => {
            let when = age(status.unix_ms.max(cut.unix_ms), cut.unix_ms);
            row("position", format!("cut {} ({}, {when})", cut.cut, cut.reason));
        }
        None => row("position", "none".to_owned()),
    }
    row("dirty", amount(status.dirty));
    if status.suspected.grains > 0 {
        row("of it suspected", amount(status.suspected));
    }
    if status.damaged.grains > 0 {
        row("damaged", format!("{}, will be pulled", amount(status.damaged)));
    }
    if status.not_loaded.grains > 0 {
        row("not loaded yet", amount(status.not_loaded));
    }
    if status.unreadable.grains > 0 {
        let places = status.unreadable_places.join(", ");
        row("unreadable at the source", format!("{}: {places}", amount(status.unreadable)));
    }
    for p in &status.peers {
        row("peer", peer(p, status.unix_ms, status.peers.len() > 1));
    }
    if let Some(proof) = &status.proof {
        let share = proof.share * 100.0;
        row(
            "proven",
            format!("{share:.1} % by digests, {} samples at the last attach", proof.samples),
        );
    }
    if let Some(now) = &status.verifying {
        let (doing, done, total) = (&now.doing, now.done_grains, now.total_grains);
        let read = human_bytes(now.read_bytes);
        row("verify", format!("{doing}: {done} of {total} grains, {read} read"));
    }
    if let Some(found) = &status.verified {
        row("verified", verified(found, status.unix_ms));
    }
    if let Some(job) = &status.job {
        let mut text = format!(
            "{} {}: {} of {} grains, {}",
            job.kind,
            job.stage,
            job.progress.done_grains,
            job.progress.total_grains,
            human_bytes(job.progress.bytes)
        );
        if let Some(error) = &job.error {
            text.push_str(&format!(" ({error})"));
        }
        row("job", text);
    }
    for set in &status.sets {
        let fuzzy = if set.fuzzy { ", fuzzy" } else { "" };
        let lacks = match set.unreadable_grains {
            0 => String::new(),
            grains => format!(", {grains} grains could not be read"),
        };
        row("media set", format!("{} {}{fuzzy}{lacks}", set.set, set.stage));
        for medium in &set.media {
            row("", medium.clone());
        }
        match (&set.fingerprint, &set.loaded_fingerprint) {
            (Some(signed), Some(found)) if signed == found => {
                row("fingerprint", format!("{signed}, as loaded"));
            }
            (Some(signed), Some(found)) => {
                row("fingerprint", format!("{signed} signed, {found} LOADED"));
            }
            (Some(signed), None) => row("fingerprint", signed.clone()),
            _ => {}
        }
    }
    if let Some(kept) = &status.past {
        past(kept, status.unix_ms, &mut row);
    }
    if let Some(taken) = &status.generation {
        let when = age(status.unix_ms.max(taken.unix_ms), taken.unix_ms);
        let cut = &taken.cut;
        row("fingerprint", format!("{} of the cut {cut}, taken {when}", taken.fingerprint));
    }
    for layer in &status.layers {
        row("layer", format!("{} grains, kept for {}", layer.grains, layer.kept_for));
    }
    for what in &status.not_known {
        row("not known", what.clone());
    }
    if status.backlog_bytes > 0 {
        let mut waits = format!("{}, served from there", human_bytes(status.backlog_bytes));
        if status.backlog_lost_bytes > 0 {
            let lost = human_bytes(status.backlog_lost_bytes);
            waits = format!("{waits}; {lost} cannot be read there any more");
        }
        row("in the journal", waits);
    }
    if status.crash_excess_bytes > 0 {
        let excess = human_bytes(status.crash_excess_bytes);
        row("a power cut would add", format!("{excess} to be compared"));
    }
    printer.table(&table, &json);
}

/// How far back one can go, and who looks.
fn past(kept: &PastStatus, now: u64, row: &mut impl FnMut(&str, String)) {
    let text = match (&kept.ended, kept.oldest_unix_ms) {
        (Some(why), _) => format!("NONE: {why}"),
        (None, Some(oldest)) => {
            let since = age(now.max(oldest), oldest);
            format!("{} points, the oldest {since}, {}", kept.points, human_bytes(kept.bytes))
        }
        (None, None) => "no point yet".to_owned(),
    };
    row("history", text);
    for view in &kept.views {
        let shows = view.label.as_ref().unwrap_or(&view.cut);
        let how = if view.writable { "writable" } else { "read-only" };
        let text = match &view.ended {
            Some(why) => format!("{} of {shows}: ENDED, {why}", view.id),
            None => format!("{} of {shows}, {how}, on {}", view.id, view.socket),
        };
        row("view", text);
    }
}

/// The newest verification: how much it proves, how old it is, what differs.
fn verified(found: &VerifiedStatus, now: u64) -> String {
    let share = found.share * 100.0;
    let when = age(now.max(found.unix_ms), found.unix_ms);
    let mut text = format!("{share:.2} % equal by digests at the cut {}, {when}", found.cut);
    if let Some(difference) = found.difference() {
        text.push_str(&format!("; {difference}"));
    }
    if let Some(path) = &found.kept {
        let grains = found.repaired_grains;
        text.push_str(&format!("; {grains} grains repaired, what they were is kept: {path}"));
    }
    text
}

/// When a replica that catches up will be in step.
fn forecast_words(forecast: &ForecastStatus) -> String {
    let (carried, written) =
        (human_rate(forecast.carried_bytes_s), human_rate(forecast.written_bytes_s));
    match forecast.in_step_in_ms {
        Some(ms) => {
            let time = human_duration(Duration::from_millis(ms));
            format!("in step in about {time} (the link carries {carried}, newly written {written})")
        }
        None => format!(
            "WILL NOT COME INTO STEP: newly written {written}, the link carries {carried}; it needs a \
             faster link or fewer writes"
        ),
    }
}

/// One of several says what it lacks itself; of a single one that is what is dirty.
fn peer(peer: &PeerStatus, now: u64, one_of_several: bool) -> String {
    let mut text = peer.fingerprint.clone();
    match (&peer.connected, &peer.remote) {
        (true, Some(remote)) => text.push_str(&format!(", connected ({remote})")),
        _ => text.push_str(", not connected"),
    }
    if let Some(cut) = &peer.acknowledged {
        text.push_str(&format!(", has cut {cut}"));
    }
    if let Some(dirty) = peer.dirty.filter(|_| one_of_several) {
        text.push_str(&format!(", {} dirty for it", amount(dirty)));
    }
    if let Some(mode) = &peer.mode {
        text.push_str(&format!(", {mode}"));
    }
    if let Some(mirror) = peer.mirror.as_ref().filter(|_| peer.connected) {
        let word = if mirror.mirroring { "mirroring" } else { "not streaming" };
        text.push_str(&format!(", {word}, {} not confirmed", human_bytes(mirror.backlog_bytes)));
        if mirror.lag_ms > 0 {
            let lag = human_duration(Duration::from_millis(mirror.lag_ms));
            text.push_str(&format!(" since {lag}"));
        }
    }
    if let Some(since) = peer.alone_since_unix_ms {
        text.push_str(&format!(", writes without it since {}", age(now, since)));
    }
    if let Some(rule) = &peer.rule {
        text.push_str(&format!(", last rule `{rule}`"));
    }
    if let Some(progress) = &peer.catch_up {
        text.push_str(&format!(
            ", catch-up {} of {} grains",
            progress.done_grains, progress.total_grains
        ));
    }
    if let Some(forecast) = &peer.forecast {
        text.push_str(&format!(", {}", forecast_words(forecast)));
    }
    if let Some(wire) = peer.wire.filter(|_| peer.connected) {
        let (sent, came) = (human_bytes(wire.sent_bytes), human_bytes(wire.received_bytes));
        text.push_str(&format!(", link: {sent} sent, {came} received"));
    }
    if let Some(found) = &peer.verified {
        text.push_str(&format!(", verified {}", verified(found, now)));
    }
    if let Some(error) = &peer.last_error {
        text.push_str(&format!(", last error: {error}"));
    }
    text
}
