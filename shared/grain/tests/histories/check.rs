//! What must be true after every step.
//!
//! * I1: a grain that differs between two sites is in the delta that the rules compute.
//! * I2: a replica holds what its position claims.
//! * I3: a delta that starts by itself never takes a replica back to before something that it has.
//! * I5: in a history without disasters the delta is always known and never refused.
//! * V: the verdict of the attach says the same, and the same to both sides.

use grain::attach::{self, CopyFacts, Facts, MissingGrains, OpenWithin, PartialFacts, Verdict};
use grain::attach::{Means, Question, Rule};
use grain::lineage::{Layer, open_layer_within};
use grain::{Geometry, GrainSize, RelationshipId, SessionId, VolumeShape};

use super::site::{GRAINS, Mask, Role, Site};
use super::world::{Off, World};

impl World {
    pub fn check(&self) -> Result<(), String> {
        let running = self.running();
        for a in &running {
            for b in running.iter().filter(|b| *b != a) {
                self.check_pair(*a, *b)?;
            }
            self.check_claim(&self.sites[*a])?;
        }
        Ok(())
    }

    fn check_pair(&self, a: usize, b: usize) -> Result<(), String> {
        let (from, to) = (&self.sites[a], &self.sites[b]);
        let names = format!("{} -> {}", from.name, to.name);
        let need = self.need(a, b);
        if let Ok(delta) = &need {
            let mut held = to.content();
            let carried = to.partial.filter(|p| !p.direct && from.past.lineage.contains(p.cut));
            if let Some(partial) = carried {
                held = super::site::mix(held, partial.values, partial.got);
            }
            let missed = |g: &usize| from.content()[*g] != held[*g] && !delta.pull.has(*g);
            if let Some(grain) = (0..GRAINS).find(missed) {
                return Err(format!("I1 {names}: the delta misses grain {grain}"));
            }
        }
        if self.off == Off::Nothing {
            self.check_verdict(a, b, &names)?;
        }
        if from.role != Role::Source || to.role != Role::Replica {
            return Ok(());
        }
        let in_past = self.in_past(a, b);
        // Where the end of an epoch is unknown, a subset is the best that can be asked: the same grains
        // may have been written, to other content. Rule 8 accepts that, and so does this check.
        let residual =
            to.past.sequence > 0 && !matches!(self.off, Off::Sequences | Off::OpenLayers);
        let reversal = !residual && !self.precedes(to.node, from.node);
        if need.is_ok() && to.is_whole() && in_past && reversal {
            return Err(format!("I3 {names}: a plain delta would take the replica back"));
        }
        if self.tame && from.peers.ever.contains(&b) && (need.is_err() || !in_past) {
            return Err(format!("I5 {names}: refused, need {need:?}, in past {in_past}"));
        }
        Ok(())
    }

    fn check_claim(&self, site: &Site) -> Result<(), String> {
        if site.role != Role::Replica || !site.is_whole() {
            return Ok(());
        }
        let Some(position) = site.position() else {
            return Err(format!("I2 {}: a replica without a position", site.name));
        };
        let claimed = self.contents.get(&(position.cut, position.sequence));
        match claimed.is_some_and(|(values, _)| *values == site.durable) {
            true => Ok(()),
            false => Err(format!("I2 {}: is not what {position:?} claims", site.name)),
        }
    }

    fn check_verdict(&self, a: usize, b: usize, names: &str) -> Result<(), String> {
        let (from, to) = (&self.sites[a], &self.sites[b]);
        let (mut mine, theirs) = (facts(from), facts(to));
        let mut verdict = attach::decide(&mine, &theirs);
        if let Some(Question::OpenLayer { position, .. }) = verdict.question
            && from.role == Role::Source
        {
            let past = &from.past;
            let within =
                open_layer_within(position.cut, &to.past.open, &past.lineage, &past.layers);
            mine.open_within = Some(OpenWithin { position, within });
            verdict = attach::decide(&mine, &theirs);
        }
        if attach::decide(&theirs, &mine).mirrored() != verdict {
            return Err(format!("V {names}: the sides do not agree on {verdict:?}"));
        }
        if from.role == Role::Source && to.role == Role::Replica {
            self.check_pull(a, b, &verdict).map_err(|what| format!("V {names}: {what}"))?;
        }
        Ok(())
    }

    fn check_pull(&self, a: usize, b: usize, verdict: &Verdict) -> Result<(), String> {
        let (need, in_past) = (self.need(a, b), self.in_past(a, b));
        let fuzzy = matches!(need, Err(grain::lineage::NoDelta::FuzzyEndUnknown(_)));
        let follows = matches!(verdict.rule, Rule::Delta | Rule::InStep);
        let related = verdict.rule != Rule::NoAncestor;
        if related && follows != (in_past && !fuzzy) {
            return Err(format!("in past {in_past}, fuzzy {fuzzy}, but {verdict:?}"));
        }
        let same = match (&need, verdict.means) {
            (Ok(delta), Means::Delta { carries }) => {
                let carries = carries == delta.carries || !follows;
                let bound = verdict.estimated_grains >= Some(delta.pull.count().0) || !follows;
                carries && bound
            }
            (Ok(delta), Means::Nothing) => delta.pull == Mask(0),
            (Err(_), means) => !matches!(means, Means::Delta { .. } | Means::Nothing),
            (Ok(_), _) => false,
        };
        if same { Ok(()) } else { Err(format!("{need:?}, but {verdict:?}")) }
    }
}

/// What a site would tell at an attach.
fn facts(site: &Site) -> Facts {
    let volumes = vec![VolumeShape { alias: "disk".into(), bytes: GRAINS as u64 * 4096 }];
    let count =
        |layer: &Layer<Mask>| Layer { name: layer.name.clone(), grains: layer.grains.count() };
    Facts {
        relationship: RelationshipId::from_bytes([1; 16]),
        geometry: Geometry { grain: GrainSize::MIN, volumes },
        role: match site.role {
            Role::Source => attach::Role::Source,
            _ => attach::Role::Replica,
        },
        suspect: false,
        relinquished: false,
        promoted: None,
        alone: None,
        lineage: site.past.lineage.clone(),
        sequence: site.past.sequence,
        layers: site.past.layers.iter().map(count).collect(),
        open_grains: Mask(site.past.open.0 | site.past.direct.0).count().0,
        copy: CopyFacts {
            consistent: site.is_whole(),
            missing: MissingGrains { damaged: site.missing.count().0, not_loaded: 0 },
            partial: site.partial.map(|partial| PartialFacts {
                session: SessionId::from_bytes([1; 16]),
                cut: partial.cut,
                remaining: partial.remaining.count().0,
                direct: partial.direct,
            }),
            fuzzy_end: site.fuzzy_end,
        },
        open_within: None,
    }
}
