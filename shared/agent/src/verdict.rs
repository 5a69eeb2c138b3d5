//! A verdict in words: rule, reason, what will move.

use grain::Geometry;
use grain::attach::{Means, Overwrite, Reason, Rule, Side, Verdict};

/// The verdict as lines for people, seen from this side.
pub fn explain(verdict: &Verdict, geometry: &Geometry) -> Vec<String> {
    let mut lines = vec![format!("rule: {}", verdict.rule)];
    lines.extend(verdict.reasons.iter().map(|reason| format!("reason: {}", reason_words(reason))));
    lines.push(format!("what may happen: {}", overwrite_words(verdict.overwrite)));
    let means = means_words(verdict.means);
    lines.push(match verdict.estimated_grains {
        Some(grains) => format!(
            "how: {means}, at most {grains} grains ({} bytes)",
            grains.saturating_mul(geometry.grain.bytes()).min(geometry.total_bytes())
        ),
        None => format!("how: {means}"),
    });
    if let Some(advice) = advice(verdict.rule) {
        lines.push(format!("what to do: {advice}"));
    }
    lines
}

/// What the operator can do about a rule.
pub(crate) fn advice(rule: Rule) -> Option<&'static str> {
    match rule {
        Rule::InStep | Rule::Delta => None,
        Rule::Unrelated => Some(
            "check that both sites were made with the same ticket and volumes of the same size",
        ),
        Rule::NoAncestor => Some(
            "load a media set, or `secondary-agent serve NAME --compare` to adopt what is there",
        ),
        Rule::Suspect => Some(
            "look at the source's disk; `primary-agent serve NAME --accept-suspect` says that its \
             content is right",
        ),
        Rule::NoSource => Some("one of the sites has to be the source"),
        Rule::Ahead => Some(
            "the replica holds more than the source: look at both before one is overwritten; \
             `secondary-agent serve NAME --compare` names the replica as the loser",
        ),
        Rule::SplitBrain | Rule::Promoted | Rule::IdlePromotion | Rule::Diverged => {
            Some("both sites are sources: `rejoin` at the one that is to give way")
        }
    }
}

fn side(side: Side) -> &'static str {
    match side {
        Side::Mine => "this site",
        Side::Theirs => "the other site",
    }
}

fn overwrite_words(overwrite: Overwrite) -> String {
    match overwrite {
        Overwrite::Nobody => "nobody overwrites anybody".to_owned(),
        Overwrite::ByItself { loser } => {
            format!("{} is brought up to the other by itself", side(loser))
        }
        Overwrite::Named { offered: Some(offered), .. } => {
            format!("only after the operator named the loser; {} loses least", side(offered))
        }
        Overwrite::Named { offered: None, .. } => {
            "only after the operator named the loser".to_owned()
        }
    }
}

fn means_words(means: Means) -> &'static str {
    match means {
        Means::Nothing => "nothing has to move",
        Means::Refuse => "nothing moves",
        Means::Delta { carries: Some(_) } => {
            "the delta, going on with what an earlier session brought"
        }
        Means::Delta { carries: None } => "the delta",
        Means::Compare => "a comparison by digests, on request",
        Means::FullCopyOnRequest => "a full copy, on request",
    }
}

fn reason_words(reason: &Reason) -> String {
    use Reason::*;
    match *reason {
        OtherRelationship => "the relationship ids differ".to_owned(),
        OtherGrainSize => "the grain sizes differ".to_owned(),
        OtherVolumes => "the volumes differ in number, name or size".to_owned(),
        Empty(s) => format!("{} holds nothing", side(s)),
        NoCommonCut => "the sites share no cut".to_owned(),
        Suspect(s) => format!("{} does not trust its own disk", side(s)),
        Relinquished(s) => format!("{} has given up its role", side(s)),
        UnknownCut(s, cut) => {
            format!("{} holds the cut {} which the other does not know", side(s), cut.short())
        }
        SequenceBeyond(s, ..) => format!("{} is beyond what the other recorded", side(s)),
        EndUnknown(s, _) => format!("how far the epoch of {} went is not known", side(s)),
        Forked(s, _) => format!("{} wrote what the other never did", side(s)),
        FuzzyEndUnknown(s, cut) => format!(
            "{} is a fuzzy seed up to the cut {}, which the other does not know",
            side(s),
            cut.short()
        ),
        Promoted(s, _) => format!("{} was promoted", side(s)),
        Alone(s, ..) => format!("{} has acknowledged writes alone", side(s)),
        Tail(s, Some(grains)) => {
            format!("{} wrote at most {grains} grains since the common cut", side(s))
        }
        Tail(s, None) => {
            format!("how much {} wrote since the common cut cannot be counted", side(s))
        }
        Inconsistent(s) => format!("the copy of {} is no usable point in time", side(s)),
        Missing(s, damaged, not_loaded) => {
            format!("{} lacks grains: {damaged} damaged, {not_loaded} not loaded yet", side(s))
        }
        EpochUnknown(_) => "no site knows what was written in one of the epochs since".to_owned(),
        CarriesOver(_, remaining) => {
            format!("an earlier session goes on, of which {remaining} grains had not arrived")
        }
    }
}
