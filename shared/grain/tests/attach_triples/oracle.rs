//! What a verdict must be, judged by what is really at both sites: contents, writes, and cuts with the
//! forgotten ones. It knows no layers' names, sequences or ends but to say why a refusal was right.

use std::fmt;

use grain::attach::{Means, Overwrite, Rule, Side, Verdict};
use grain::lineage::Layer;

use super::site::{Site, Written, bit, maker, members};
use super::space::Off;
use super::steps::{pull, verdict};

/// Whether the layers say what differs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Layers {
    Known,
    Gone,
    /// They are all there, but cuts were forgotten: an epoch is covered by several of them and by none as a
    /// whole, or by one that bears the names of a chain which had forgotten this epoch's.
    Unnamed,
}

/// What came of an attach, as it is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Outcome {
    /// As the rule says.
    Rule(Rule, Layers),
    /// A delta that takes back what a power cut took from the source's base.
    Mends,
    /// Refused as `ahead`, although the source has all of it: it has forgotten the name of the cut.
    NameForgotten,
    /// The same, by a site that had given way to another one and was promoted again, or by who took it from
    /// there: a replica does not keep in mind what peers of its own have.
    NameForgottenAway,
    /// The same, where the machine of one of them was put back to before an acknowledgement.
    NameForgottenThen,
    /// The same, and of all others that both had.
    AllForgotten,
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Outcome::Rule(rule, Layers::Known) => write!(f, "{rule}"),
            Outcome::Rule(rule, Layers::Gone) => write!(f, "{rule}, layers gone"),
            Outcome::Rule(rule, Layers::Unnamed) => write!(f, "{rule}, layers without the names"),
            Outcome::Mends => write!(f, "delta that brings back what a power cut took"),
            Outcome::NameForgotten => write!(f, "ahead, a name forgotten after a failover"),
            Outcome::NameForgottenAway => write!(f, "ahead, a name forgotten after giving way"),
            Outcome::NameForgottenThen => write!(f, "ahead, a name forgotten by an older image"),
            Outcome::AllForgotten => write!(f, "no-ancestor, all names forgotten"),
        }
    }
}

impl fmt::Display for Third {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Third::LessFar(rule) => write!(f, "third site less far than the promoted one: {rule}"),
            Third::Further(rule) => write!(f, "third site further than the promoted one: {rule}"),
        }
    }
}

/// How a replica stands to a site that was promoted while it followed another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Third {
    LessFar(Rule),
    Further(Rule),
}

#[derive(Clone, Copy, Debug)]
pub struct Judged {
    pub outcome: Outcome,
    pub third: Option<Third>,
    /// Whose data is overwritten without a word of the operator.
    pub loser: Option<usize>,
}

/// Asks both sides, and checks what they say.
pub fn judge(a: &Site, b: &Site, off: Off) -> Result<Judged, String> {
    let said = verdict(a, b, off);
    let judged = agrees(a, b, &said, off)
        .map_err(|what| format!("{what}; {said:?}\nmine {a:?}\ntheirs {b:?}"))?;
    if verdict(b, a, off).mirrored() != said {
        return Err(format!("the sides do not agree; {said:?}"));
    }
    Ok(judged)
}

fn agrees(a: &Site, b: &Site, said: &Verdict, off: Off) -> Result<Judged, String> {
    let site = |side| if side == Side::Mine { a } else { b };
    let loser = match said.overwrite {
        Overwrite::ByItself { loser } => Some(site(loser)),
        _ => None,
    };
    let judged = |outcome, third| Judged { outcome, third, loser: loser.map(|site| site.me) };
    let layers = match said.means {
        Means::Compare if layers_are_gone(a, b) => Layers::Gone,
        Means::Compare => Layers::Unnamed,
        _ => Layers::Known,
    };
    if a.names() & b.names() == 0 {
        let empty = a.names() == 0 || b.names() == 0;
        ensure(said.rule == Rule::NoAncestor && loser.is_none(), "they share no cut")?;
        let means = if empty { Means::FullCopyOnRequest } else { Means::Compare };
        ensure(said.means == means, "nothing else is possible between strangers")?;
        let strangers = a.truth.knows & b.truth.knows == 0;
        let failover = was_promoted(a, b) || was_promoted(b, a) || a.left | b.left != 0;
        let excused = strangers || failover || a.put_back || b.put_back;
        ensure(excused || layers_are_gone(a, b), "they shared a cut, and nobody was promoted")?;
        let outcome = match strangers {
            true => Outcome::Rule(said.rule, Layers::Known),
            false => Outcome::AllForgotten,
        };
        return Ok(judged(outcome, None));
    }
    ensure(said.rule != Rule::NoAncestor, "they share a cut")?;
    means(a, b, said, off)?;
    let (outcome, third) = match (a.serves, b.serves) {
        (true, false) => source_and_replica(a, b, said, Side::Theirs, layers)?,
        (false, true) => source_and_replica(b, a, said, Side::Mine, layers)?,
        (false, false) => {
            ensure(said.rule == Rule::NoSource && loser.is_none(), "two replicas")?;
            (Outcome::Rule(said.rule, layers), None)
        }
        (true, true) => {
            two_sources(a, b, said)?;
            (Outcome::Rule(said.rule, layers), None)
        }
    };
    Ok(judged(outcome, third))
}

fn ensure(good: bool, what: &str) -> Result<(), String> {
    if good { Ok(()) } else { Err(what.to_owned()) }
}

/// A delta covers all that differs, whoever wins; a comparison is asked for only where an epoch is unknown.
fn means(a: &Site, b: &Site, said: &Verdict, off: Off) -> Result<(), String> {
    match said.means {
        Means::Delta { .. } => {
            for (winner, loser) in [(a, b), (b, a)] {
                let (pulled, _) = pull(winner, loser, off)?;
                let missed = (winner.truth.content ^ loser.truth.content) & !pulled;
                ensure(missed == 0, &format!("the delta misses {missed:b}"))?;
                let most = said.estimated_grains.unwrap_or(0);
                ensure(most >= u64::from(pulled.count_ones()), "more moves than was said")?;
            }
            Ok(())
        }
        Means::Compare => ensure(an_epoch_is_unknown(a, b), "each epoch is known"),
        Means::Nothing => Ok(()),
        Means::Refuse | Means::FullCopyOnRequest => Err("they are related".to_owned()),
    }
}

/// Whether there is an epoch, between two cuts that a chain names, that no layer covers as a whole under
/// these names or under names of the same chain (rule 1).
fn an_epoch_is_unknown(a: &Site, b: &Site) -> bool {
    let named = a.names() & b.names();
    [a, b].into_iter().any(|site| {
        let newest = site.points.iter().rposition(|point| bit(point.cut) & named != 0);
        let since = &site.points[newest.unwrap_or(0)..];
        since.windows(2).any(|pair| {
            let epoch = pair[1].truth.knows & !pair[0].truth.knows;
            let names = |layer: &Layer<Written>| {
                let (listed, ends) = (&layer.name.names, [layer.name.from, layer.name.to]);
                pair.iter().all(|point| listed.contains(&point.cut))
                    || ends.iter().all(|end| bit(*end) & site.names() != 0)
            };
            let mut layers = a.layers.iter().chain(&b.layers);
            !layers.any(|layer| epoch & !layer.grains.covers == 0 && names(layer))
        })
    })
}

/// Whether some of what only one of them went through is covered by no layer at all.
fn layers_are_gone(a: &Site, b: &Site) -> bool {
    let since = a.truth.knows ^ b.truth.knows;
    let layers = a.layers.iter().chain(&b.layers);
    since & !layers.fold(0, |all, layer| all | layer.grains.covers) != 0
}

fn source_and_replica(
    source: &Site,
    replica: &Site,
    said: &Verdict,
    side: Side,
    layers: Layers,
) -> Result<(Outcome, Option<Third>), String> {
    let (s, r) = (&source.truth, &replica.truth);
    let follows = matches!(said.rule, Rule::InStep | Rule::Delta);
    ensure(follows || said.rule == Rule::Ahead, "a source and a replica")?;
    let overwrite = match said.rule {
        Rule::InStep => said.overwrite == Overwrite::Nobody,
        Rule::Delta => said.overwrite == Overwrite::ByItself { loser: side },
        _ => matches!(said.overwrite, Overwrite::Named { .. }),
    };
    ensure(overwrite, "the wrong one loses")?;
    ensure(said.rule != Rule::InStep || s.content == r.content, "in step, and different")?;
    let (writes, cuts) = (r.seen & !s.seen, r.knows & !s.knows);
    let in_past = writes == 0 && cuts == 0;
    let third = third(source, replica, in_past, said.rule);
    let stands = replica.sequence == 0 && source.peers[replica.me].acknowledged == replica.head();
    if stands && in_past && source.left == 0 {
        ensure(follows && layers == Layers::Known, "a source keeps what its own peer lacks")?;
    }
    match (follows, in_past) {
        (true, true) | (false, false) => Ok((Outcome::Rule(said.rule, layers), third)),
        // Rule 8: what a power cut took from the source's base stands in its layers still.
        (true, false) => {
            let mends = cuts == 0 && writes & !source.lost == 0;
            ensure(mends, "the replica is taken back without a word")?;
            Ok((Outcome::Mends, None))
        }
        (false, true) => {
            let outcome = name_forgotten(source, replica)?;
            Ok((outcome, third))
        }
    }
}

/// `docs/operations/replicas.md`: after a failover the cut of a replica that stood between the promoted one
/// and the one furthest behind may be forgotten; it is refused as `ahead`.
fn name_forgotten(source: &Site, replica: &Site) -> Result<Outcome, String> {
    let head = replica.head().ok_or("an empty replica")?;
    ensure(!source.lineage.contains(head), "the source has the cut, and refuses")?;
    ensure(source.told != Some(head), "the one furthest behind is refused")?;
    if source.left & bit(head) != 0 {
        return Ok(Outcome::NameForgottenAway);
    }
    if source.put_back || replica.put_back {
        return Ok(Outcome::NameForgottenThen);
    }
    ensure(maker(head) != source.me, "the cut of its own peer is forgotten")?;
    let behind = source.told.is_none_or(|cut| bit(cut) & replica.truth.knows != 0);
    ensure(behind, "it is not in between")?;
    Ok(Outcome::NameForgotten)
}

/// Whether a site holds cuts that another one lacks, and that not the source of that one made.
fn was_promoted(site: &Site, to: &Site) -> bool {
    let source = to.head().map(maker);
    members(site.truth.knows & !to.truth.knows).any(|cut| Some(maker(cut)) != source)
}

fn third(source: &Site, replica: &Site, in_past: bool, rule: Rule) -> Option<Third> {
    let promoted = source.promoted.filter(|cut| bit(*cut) & replica.truth.knows == 0)?;
    if replica.gave_way || replica.follows == Some(source.me) {
        return None;
    }
    let before = source.point(promoted)?.truth.knows & !bit(promoted);
    let further = replica.truth.knows & before == before && !in_past;
    match (in_past, further) {
        (true, _) => Some(Third::LessFar(rule)),
        (false, true) => Some(Third::Further(rule)),
        (false, false) => None,
    }
}

fn two_sources(a: &Site, b: &Site, said: &Verdict) -> Result<(), String> {
    let Overwrite::Named { losers, offered } = said.overwrite else {
        return Err("a source is overwritten without a word".to_owned());
    };
    ensure([Side::Mine, Side::Theirs].iter().all(|side| losers.includes(*side)), "both serve")?;
    let compare = said.means == Means::Compare;
    let alone = |site: &Site, other: &Site| {
        let wrote = site.truth.seen & !other.truth.seen != 0;
        site.peers[other.me].alone.is_some() && wrote
    };
    let alone = [alone(a, b), alone(b, a)];
    let both = alone == [true, true];
    ensure(!both || said.rule == Rule::SplitBrain, "both wrote alone")?;
    let gives_up = match offered {
        Some(Side::Mine) => alone[0],
        Some(Side::Theirs) => alone[1],
        None => false,
    };
    ensure(!gives_up, "the one offered as the loser acknowledged alone")?;
    // Where layers are gone, or were ORed in again, a mark counts although nothing is lost by it.
    let marked = [a, b].map(|site| site.peers[if site.me == a.me { b.me } else { a.me }].alone);
    let split = compare || marked.iter().all(Option::is_some);
    ensure(said.rule != Rule::SplitBrain || split, "one of them was never alone")
}

/// After an attach was carried out: both hold the same, and a second one has nothing to do.
pub fn judge_after(
    before: &Site,
    source: &Site,
    replica: &Site,
    by_itself: bool,
    off: Off,
) -> Result<(), String> {
    ensure(source.truth.content == replica.truth.content, "attached, and different")?;
    let (pulled, _) = pull(source, replica, off)?;
    ensure(pulled == 0, "after an attach something is left to pull")?;
    let again = verdict(source, replica, off);
    let nothing = (again.rule, again.overwrite, again.means)
        == (Rule::InStep, Overwrite::Nobody, Means::Nothing);
    ensure(nothing, &format!("a second attach: {again:?}"))?;
    // What starts by itself takes the replica forward: no ring of attaches goes on for ever.
    let (old, new) = (&before.truth, &replica.truth);
    let forward = old.knows & !new.knows == 0
        && (old.knows != new.knows || old.seen & !new.seen == 0 && old.seen != new.seen);
    ensure(!by_itself || forward, "an attach by itself leads nowhere")
}
