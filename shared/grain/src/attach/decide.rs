//! The ordered table: from both sides' facts to one verdict.
//!
//! The first rule that applies fires. Nothing here depends on who is first: swapping the sides gives
//! the mirrored verdict, which the tests check over all small lineages.

use super::{Facts, Losers, Means, Overwrite, Question, Reason, Rule, Side, Verdict};
use crate::lineage::{
    CutReason, Membership, NoDelta, delta, membership, newest_common_cut, supplying_layers,
};
use crate::{CutId, Position};

/// The verdict on two sites, as the owner of `mine` sees it. Both facts have passed
/// [`Facts::validate`]; otherwise the verdict may be nonsense, but is given all the same.
pub fn decide(mine: &Facts, theirs: &Facts) -> Verdict {
    let mut attach = Attach { mine, theirs, reasons: Vec::new() };
    let mut verdict = attach.verdict();
    verdict.reasons = attach.reasons;
    verdict.reasons.sort_unstable();
    verdict
}

struct Attach<'a> {
    mine: &'a Facts,
    theirs: &'a Facts,
    reasons: Vec<Reason>,
}

const SIDES: [Side; 2] = [Side::Mine, Side::Theirs];

impl Attach<'_> {
    fn of(&self, side: Side) -> &Facts {
        match side {
            Side::Mine => self.mine,
            Side::Theirs => self.theirs,
        }
    }

    fn verdict(&mut self) -> Verdict {
        if !self.related() {
            return Verdict::new(Rule::Unrelated, None);
        }
        let Some(common) = newest_common_cut(&self.mine.lineage, &self.theirs.lineage) else {
            return self.no_ancestor();
        };
        let serving = SIDES.map(|side| self.of(side).serves());
        let suspects = SIDES.map(|side| self.of(side).serves() && self.of(side).suspect);
        self.whole();
        match (serving, suspects) {
            (_, [true, _] | [_, true]) => {
                let sides = SIDES.into_iter().zip(suspects).filter(|(_, suspect)| *suspect);
                self.reasons.extend(sides.map(|(side, _)| Reason::Suspect(side)));
                self.named(Rule::Suspect, common, None)
            }
            ([false, false], _) => self.no_source(common),
            ([true, false], _) => self.source_and_replica(common, Side::Mine),
            ([false, true], _) => self.source_and_replica(common, Side::Theirs),
            ([true, true], _) => self.two_sources(common),
        }
    }

    fn related(&mut self) -> bool {
        let (mine, theirs) = (self.mine, self.theirs);
        let checks = [
            (mine.relationship == theirs.relationship, Reason::OtherRelationship),
            (mine.geometry.grain == theirs.geometry.grain, Reason::OtherGrainSize),
            (mine.geometry.volumes == theirs.geometry.volumes, Reason::OtherVolumes),
        ];
        self.reasons.extend(checks.iter().filter(|(same, _)| !same).map(|(_, reason)| *reason));
        self.reasons.is_empty()
    }

    /// What either side lacks; said with every verdict on related sites.
    fn whole(&mut self) {
        for side in SIDES {
            let facts = self.of(side);
            let (copy, serves) = (facts.copy, facts.serves());
            if !copy.consistent && !serves {
                self.reasons.push(Reason::Inconsistent(side));
            }
            if copy.missing.total() > 0 {
                let missing = copy.missing;
                self.reasons.push(Reason::Missing(side, missing.damaged, missing.not_loaded));
            }
        }
    }

    fn no_ancestor(&mut self) -> Verdict {
        self.reasons.push(Reason::NoCommonCut);
        let empty = SIDES.map(|side| self.of(side).is_empty());
        let sides = SIDES.into_iter().zip(empty).filter(|(_, empty)| *empty);
        self.reasons.extend(sides.map(|(side, _)| Reason::Empty(side)));
        let mut verdict = Verdict::new(Rule::NoAncestor, None);
        verdict.overwrite = Overwrite::Named { losers: self.losers(), offered: None };
        (verdict.means, verdict.estimated_grains) = match empty {
            [false, false] => (Means::Compare, None),
            _ => (Means::FullCopyOnRequest, Some(self.mine.geometry.total_grains())),
        };
        verdict
    }

    fn no_source(&mut self, common: CutId) -> Verdict {
        let given_up = SIDES.into_iter().filter(|side| self.of(*side).relinquished);
        let given_up: Vec<Reason> = given_up.map(Reason::Relinquished).collect();
        self.reasons.extend(given_up);
        let mut verdict = Verdict::new(Rule::NoSource, Some(common));
        verdict.means = Means::Nothing;
        verdict
    }

    fn source_and_replica(&mut self, common: CutId, source: Side) -> Verdict {
        let replica = source.other();
        let (beyond, question) = self.beyond(source);
        if beyond {
            self.tail(replica, common);
            let mut verdict = self.named(Rule::Ahead, common, None);
            verdict.question = question;
            return verdict;
        }
        let mut verdict = Verdict::new(Rule::Delta, Some(common));
        verdict.overwrite = Overwrite::ByItself { loser: replica };
        (verdict.means, verdict.estimated_grains) = self.means(source, true);
        let same = self.of(source).position() == self.of(replica).position();
        let idle = self.of(replica).copy.partial.is_none() && self.of(replica).copy.consistent;
        if same && idle && verdict.estimated_grains == Some(0) {
            verdict.rule = Rule::InStep;
            verdict.overwrite = Overwrite::Nobody;
            verdict.means = Means::Nothing;
        }
        verdict
    }

    /// Whether the replica holds something that the source does not know (rules 7, 8).
    fn beyond(&mut self, source: Side) -> (bool, Option<Question>) {
        let replica = source.other();
        let (s, r) = (self.of(source), self.of(replica));
        let fuzzy = r.copy.fuzzy_end.filter(|end| !s.lineage.contains(*end));
        let Some(position) = r.position() else { return (true, None) };
        let (found, question) = match membership(position, &s.lineage, s.sequence) {
            Membership::Member => (None, None),
            Membership::UnknownCut => (Some(Reason::UnknownCut(replica, position.cut)), None),
            Membership::SequenceBeyond { end } => {
                (Some(Reason::SequenceBeyond(replica, position, end)), None)
            }
            Membership::EndUnknown => end_unknown(s, replica, position),
        };
        self.reasons.extend(found);
        self.reasons.extend(fuzzy.map(|end| Reason::FuzzyEndUnknown(replica, end)));
        (found.is_some() || fuzzy.is_some(), question.filter(|_| fuzzy.is_none()))
    }

    fn two_sources(&mut self, common: CutId) -> Verdict {
        let alone = SIDES.map(|side| self.alone(side, common));
        let promoted = SIDES.map(|side| self.promoted(side, common));
        let (rule, offered) = match (alone, promoted) {
            ([true, true], _) => (Rule::SplitBrain, None),
            ([_, false], [true, false]) => (Rule::Promoted, Some(Side::Theirs)),
            ([false, _], [false, true]) => (Rule::Promoted, Some(Side::Mine)),
            ([true, false], _) => (Rule::IdlePromotion, Some(Side::Theirs)),
            ([false, true], _) => (Rule::IdlePromotion, Some(Side::Mine)),
            _ => (Rule::Diverged, None),
        };
        SIDES.into_iter().for_each(|side| self.tail(side, common));
        self.named(rule, common, offered)
    }

    /// Whether a source acknowledged writes alone since the common cut. A mark stands until a later cut
    /// has committed at the peer and this side has heard of it; so it counts unless nothing at all was
    /// written since the common cut.
    fn alone(&mut self, side: Side, common: CutId) -> bool {
        let Some(mark) = self.of(side).alone else { return false };
        if self.of(side).written_since(common) == Some(0) {
            return false;
        }
        self.reasons.push(Reason::Alone(side, mark.since, mark.unix_ms));
        true
    }

    /// Whether a source was promoted, and the other side does not know that cut.
    fn promoted(&mut self, side: Side, common: CutId) -> bool {
        let facts = self.of(side);
        let recent = facts.lineage.cuts().iter().rev().take_while(|cut| cut.id != common);
        let recorded = facts.promoted.filter(|cut| {
            facts.lineage.index_of(*cut).is_none_or(|at| Some(at) > facts.lineage.index_of(common))
        });
        let seen = recent.filter(|cut| cut.reason == CutReason::Promote).map(|cut| cut.id).last();
        let Some(cut) = seen.or(recorded) else { return false };
        self.reasons.push(Reason::Promoted(side, cut));
        true
    }

    fn tail(&mut self, side: Side, common: CutId) {
        self.reasons.push(Reason::Tail(side, self.of(side).written_since(common)));
    }

    /// A verdict that waits for the operator to name the loser.
    fn named(&mut self, rule: Rule, common: CutId, offered: Option<Side>) -> Verdict {
        let mut verdict = Verdict::new(rule, Some(common));
        let losers = self.losers();
        let offered = offered.filter(|side| losers.includes(*side));
        verdict.overwrite = Overwrite::Named { losers, offered };
        // Whoever wins, the delta is the same, but for a broken session, which the next attach sees.
        (verdict.means, verdict.estimated_grains) = self.means(Side::Mine, false);
        verdict
    }

    fn losers(&self) -> Losers {
        Losers::new(self.theirs.may_win(), self.mine.may_win())
    }

    /// How the loser would become what the winner is, and the most grains that would move.
    fn means(&mut self, source: Side, carry: bool) -> (Means, Option<u64>) {
        let (s, r) = (self.of(source), self.of(source.other()));
        let (s_counts, r_counts) = (s.counts(), r.counts());
        let (s_holding, mut r_holding) = (s.holding(&s_counts), r.holding(&r_counts));
        if !carry {
            r_holding.partial = None;
        }
        let partial = r.copy.partial;
        let total = self.mine.geometry.total_grains();
        match delta(&s_holding, &r_holding) {
            Ok(delta) => {
                let partial = partial.filter(|partial| delta.carries == Some(partial.session));
                let carried = partial.map(|p| Reason::CarriesOver(p.session, p.remaining));
                self.reasons.extend(carried);
                (Means::Delta { carries: delta.carries }, Some(delta.pull.0.min(total)))
            }
            Err(NoDelta::Unknown(gap)) => {
                self.reasons.push(Reason::EpochUnknown(gap));
                (Means::Compare, None)
            }
            Err(NoDelta::FuzzyEndUnknown(_) | NoDelta::NoCommonCut) => (Means::Compare, None),
        }
    }
}

fn end_unknown(
    source: &Facts,
    replica: Side,
    position: Position,
) -> (Option<Reason>, Option<Question>) {
    match source.open_within.filter(|answer| answer.position == position) {
        Some(answer) if answer.within => (None, None),
        Some(_) => (Some(Reason::Forked(replica, position)), None),
        None => {
            let question = Question::OpenLayer { replica, position };
            (Some(Reason::EndUnknown(replica, position)), Some(question))
        }
    }
}

impl Facts {
    /// The most grains that this side wrote since a cut of its chain; `None` when a layer is gone.
    fn written_since(&self, cut: CutId) -> Option<u64> {
        let names = self.layers.iter().map(|layer| &layer.name);
        let used = supplying_layers(&self.lineage, cut, names).ok()?;
        let closed = used.into_iter().filter_map(|index| self.layers.get(index));
        let closed = closed.fold(0, |sum: u64, layer| sum.saturating_add(layer.grains.0));
        Some(closed.saturating_add(self.open_grains.max(self.sequence.min(1))))
    }
}

impl Verdict {
    /// Nobody overwrites anybody, and nothing moves.
    fn new(rule: Rule, common: Option<CutId>) -> Verdict {
        Verdict {
            rule,
            common,
            overwrite: Overwrite::Nobody,
            means: Means::Refuse,
            estimated_grains: Some(0),
            reasons: Vec::new(),
            question: None,
        }
    }
}
