//! The table of the attach over all small lineages on both sides.
//!
//! Every pair of sites from `sites.rs` (chains of up to four cuts from a branching tree, pruned and
//! foreign ones; roles; suspect, relinquished, alone, promoted, inconsistent, fuzzy; sequences; ends and
//! layers known or not) is decided both ways, and compared with `expected.rs`, which says the rules a
//! second time, over plain lists. The verdicts of a smaller choice stand in `table.txt`, so that a
//! change of behaviour shows in review.

mod expected;
mod sites;

use std::collections::BTreeMap;

use grain::attach::{Facts, Losers, Means, Overwrite, Rule, Side, Verdict, decide};

use sites::Site;

#[test]
fn all_pairs_agree_with_the_table() {
    let sites = sites::all();
    let facts: Vec<Facts> = sites.iter().map(Site::facts).collect();
    let mut fired: BTreeMap<Rule, u64> = BTreeMap::new();
    for (i, (a, mine)) in sites.iter().zip(&facts).enumerate() {
        for (b, theirs) in sites.iter().zip(&facts).skip(i) {
            let verdict = decide(mine, theirs);
            *fired.entry(verdict.rule).or_default() += 1;
            let said = check(a, b, &verdict).and_then(|()| {
                let mirrored = decide(theirs, mine).mirrored();
                if mirrored == verdict { Ok(()) } else { Err(format!("mirrored: {mirrored:?}")) }
            });
            if let Err(what) = said {
                panic!("{what}\nmine {a:?}\ntheirs {b:?}\n{verdict:?}");
            }
        }
    }
    // So that a change of the enumeration does not thin it out unnoticed.
    assert_eq!(fired.values().sum::<u64>(), 600_060, "pairs");
    let silent: Vec<_> = Rule::ALL.iter().filter(|rule| !fired.contains_key(rule)).collect();
    assert_eq!(silent, [&Rule::Unrelated], "rules that no pair reaches");
}

fn check(a: &Site, b: &Site, verdict: &Verdict) -> Result<(), String> {
    let applying = expected::applying(a, b);
    if applying != [verdict.rule] {
        return Err(format!("{applying:?} should fire"));
    }
    let known = expected::delta_known(a, b);
    let means = match verdict.rule {
        Rule::Unrelated => verdict.means == Means::Refuse,
        Rule::NoSource | Rule::InStep => verdict.means == Means::Nothing,
        Rule::NoAncestor if a.chain.is_empty() || b.chain.is_empty() => {
            verdict.means == Means::FullCopyOnRequest
        }
        Rule::NoAncestor => verdict.means == Means::Compare,
        _ if known => matches!(verdict.means, Means::Delta { .. }),
        _ => verdict.means == Means::Compare,
    };
    if !means {
        return Err(format!("wrong means, delta known: {known}"));
    }
    safety(a, b, verdict)
}

/// What no verdict may ever do, whatever the rule.
fn safety(a: &Site, b: &Site, verdict: &Verdict) -> Result<(), String> {
    let side = |side| if side == Side::Mine { a } else { b };
    let ok = match verdict.overwrite {
        Overwrite::Nobody => {
            matches!(verdict.means, Means::Nothing | Means::Refuse) && !verdict.starts_by_itself()
        }
        Overwrite::ByItself { loser } => {
            let (loser, winner) = (side(loser), side(loser.other()));
            winner.serves()
                && !winner.suspect
                && !loser.serves()
                && !expected::beyond(winner, loser)
                && verdict.starts_by_itself() == expected::delta_known(a, b)
        }
        Overwrite::Named { losers, offered } => {
            let may_lose = |s, winner: &Site| losers.includes(s) == winner.may_win();
            may_lose(Side::Mine, b)
                && may_lose(Side::Theirs, a)
                && offered.is_none_or(|side| losers.includes(side))
                && !verdict.starts_by_itself()
        }
    };
    let question = verdict.question.is_none() || verdict.rule == Rule::Ahead;
    let estimate = match verdict.means {
        Means::Delta { .. } => verdict.estimated_grains >= Some(a.open().max(b.open())),
        Means::Compare => verdict.estimated_grains.is_none(),
        _ => true,
    };
    match (ok, question, estimate) {
        (true, true, true) => Ok(()),
        wrong => Err(format!("unsafe (overwrite, question, estimate): {wrong:?}")),
    }
}

/// One line for a verdict: the rule, the sides that may lose (`*`: by itself, `?`: offered), the means.
fn line(verdict: &Verdict) -> String {
    let name = |side| if side == Side::Mine { "A" } else { "B" };
    let loser = match verdict.overwrite {
        Overwrite::Nobody => String::new(),
        Overwrite::ByItself { loser } => format!(" {}*", name(loser)),
        Overwrite::Named { losers, offered } => {
            let losers = match losers {
                Losers::Nobody => "-",
                Losers::Mine => "A",
                Losers::Theirs => "B",
                Losers::Either => "A|B",
            };
            format!(
                " {losers}{}",
                offered.map_or(String::new(), |side| format!(" {}?", name(side)))
            )
        }
    };
    let means = match verdict.means {
        Means::Nothing => "nothing",
        Means::Refuse => "refuse",
        Means::Delta { .. } => "delta",
        Means::Compare => "compare",
        Means::FullCopyOnRequest => "full copy",
    };
    format!("{}{loser}, {means}", verdict.rule)
}

#[test]
fn the_table_is_the_committed_one() {
    let mut text = String::new();
    for (title, a, b) in sites::shapes() {
        text += &format!("{title}\n");
        for (first, mine) in sites::standings(&a) {
            for (second, theirs) in sites::standings(&b) {
                let verdict = decide(&mine.facts(), &theirs.facts());
                text += &format!("  A {first:<17} B {second:<17} {}\n", line(&verdict));
            }
        }
    }
    let committed = include_str!("table.txt");
    assert!(text == committed, "tests/attach_table/table.txt should be:\n{text}");
}
