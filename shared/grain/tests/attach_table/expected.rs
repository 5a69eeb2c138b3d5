//! The table of the attach said a second time, over plain lists: each rule's condition by itself, so that
//! it shows that they exclude each other.

use grain::attach::Rule;

use super::sites::{Site, UNKNOWN};

/// The newest cut that stands in both chains.
fn common(a: &Site, b: &Site) -> Option<u8> {
    a.chain.iter().rev().find(|cut| b.chain.contains(cut)).copied()
}

/// The rules that apply once the three that come first do not.
pub fn applying(a: &Site, b: &Site) -> Vec<Rule> {
    let Some(common) = common(a, b) else { return vec![Rule::NoAncestor] };
    if [a, b].iter().any(|site| site.serves() && site.suspect) {
        return vec![Rule::Suspect];
    }
    let mut rules = Vec::new();
    let mut rule = |rule, applies| {
        if applies {
            rules.push(rule);
        }
    };
    rule(Rule::NoSource, !a.serves() && !b.serves());
    for (source, replica) in [(a, b), (b, a)] {
        if source.serves() && !replica.serves() {
            let (beyond, same) = (beyond(source, replica), in_step(source, replica));
            rule(Rule::Ahead, beyond);
            rule(Rule::InStep, !beyond && same);
            rule(Rule::Delta, !beyond && !same);
        }
    }
    let both = a.serves() && b.serves();
    let alone = [a, b].map(|site| site.alone && written_since(site, common));
    let promoted = [a, b].map(|site| site.promoted && site.chain.last() != Some(&common));
    let untouched = [0, 1].map(|site| !alone[site] && !promoted[site]);
    let followed = (promoted[0] && untouched[1]) || (promoted[1] && untouched[0]);
    rule(Rule::SplitBrain, both && alone[0] && alone[1]);
    rule(Rule::Promoted, both && followed);
    rule(Rule::IdlePromotion, both && alone[0] != alone[1] && !followed);
    rule(Rule::Diverged, both && !alone[0] && !alone[1] && !followed);
    rules
}

/// Whether anything was, or may have been, written since a cut of its chain.
fn written_since(site: &Site, cut: u8) -> bool {
    site.sequence > 0 || site.chain.last() != Some(&cut)
}

/// Whether the replica holds something that the source does not know.
pub fn beyond(source: &Site, replica: &Site) -> bool {
    let head = replica.chain[replica.chain.len() - 1];
    let end = match source.chain.iter().position(|cut| *cut == head) {
        None => return true,
        Some(at) if at + 1 == source.chain.len() => Some(source.sequence),
        Some(_) => source.end,
    };
    let fuzzy = replica.fuzzy_end.is_some_and(|end| !source.chain.contains(&end));
    // Where the end is not known, a replica with writes is taken for a fork until proven otherwise.
    fuzzy || (replica.sequence > 0 && end.is_none_or(|end| replica.sequence > end))
}

fn in_step(source: &Site, replica: &Site) -> bool {
    source.chain.last() == replica.chain.last()
        && [source, replica].iter().all(|site| site.sequence == 0 && site.missing == 0)
        && replica.consistent
        && delta_known(source, replica)
        && common(source, replica) == source.chain.last().copied()
}

/// Whether each epoch of both chains since the common cut lies between the ends of some layer.
pub fn delta_known(a: &Site, b: &Site) -> bool {
    let Some(common) = common(a, b) else { return false };
    for (site, other) in [(a, b), (b, a)] {
        if site.fuzzy_end.is_some_and(|end| end == UNKNOWN || !other.chain.contains(&end)) {
            return false;
        }
    }
    let supplied = |chain: &[u8], epoch: usize| {
        [a, b].iter().filter(|site| site.layers).any(|site| {
            site.chain.windows(2).any(|layer| {
                let place = |cut| chain.iter().position(|c| *c == cut);
                match (place(layer[0]), place(layer[1])) {
                    (Some(from), Some(to)) => from <= epoch && epoch < to,
                    _ => false,
                }
            })
        })
    };
    [a, b].iter().all(|site| {
        let start = site.chain.iter().position(|cut| *cut == common).unwrap_or(0);
        (start..site.chain.len() - 1).all(|epoch| supplied(&site.chain, epoch))
    })
}
