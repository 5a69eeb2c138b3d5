//! All histories of three sites up to a number of steps.
//!
//! The walk is breadth first, and goes on from a triple of sites once, by whatever way it came there.

use std::collections::{BTreeMap, HashMap};
use std::fmt;

use super::known::Known;
use super::oracle::{Outcome, Third};
use super::site::{LETTERS, SITES, Site};
use super::space::{Beginning, Space, Step};
use super::steps::receive;

/// An image of a machine: of which one, and what it held.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Image {
    NotYet,
    Of(usize, u32),
    Used,
}

/// Three sites, by the numbers under which they are known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Triple {
    sites: [u32; SITES],
    image: Image,
}

/// What was walked.
#[derive(Debug, Default)]
pub struct Walked {
    pub triples: usize,
    pub sites: usize,
    pub lineages: usize,
    pub pairs: usize,
    pub attaches: u64,
    /// Triples by the cuts in their longest chain.
    pub longest: BTreeMap<usize, u64>,
    pub outcomes: BTreeMap<Outcome, u64>,
    pub thirds: BTreeMap<Third, u64>,
}

pub struct Walk {
    space: Space,
    known: Known,
    /// Each triple with the one before it and the step between.
    triples: Vec<(Triple, usize, Option<Step>)>,
    places: HashMap<Triple, usize>,
    walked: Walked,
}

impl Walk {
    /// Walks the whole space; the first thing that is wrong, with its history.
    pub fn all(space: Space) -> Result<Walked, String> {
        let mut walk = Walk::new(space);
        let beginning = walk.beginning();
        walk.reach(beginning, usize::MAX, None)?;
        let mut from = 0;
        for _ in 0..space.steps {
            let to = walk.triples.len();
            for place in from..to {
                walk.go_on(place)?;
            }
            from = to;
        }
        let known = &walk.known;
        let mut lineages: Vec<_> = known.sites.iter().map(|s| (s.truth.knows, s.names())).collect();
        lineages.sort_unstable();
        lineages.dedup();
        walk.walked.lineages = lineages.len();
        walk.walked.triples = walk.triples.len();
        (walk.walked.sites, walk.walked.pairs) = (known.sites.len(), known.judged.len());
        Ok(walk.walked)
    }

    /// A source, a replica that was seeded from it, and a third site.
    fn beginning(&mut self) -> Triple {
        let mut a = Site::source(0, &[1, 2]);
        let b = Site::seeded(1, &mut a);
        let c = match self.space.third {
            Beginning::Seeded => Site::seeded(2, &mut a),
            Beginning::Empty => Site::empty(2),
            Beginning::Stranger => Site::source(2, &[0]),
        };
        let sites = [a, b, c].map(|site| self.known.number(site));
        Triple { sites, image: Image::NotYet }
    }

    /// One history: the sites that it leads to. Each of its steps has to be possible.
    pub fn play(space: Space, steps: &[Step]) -> Result<[Site; SITES], String> {
        let mut walk = Walk::new(space);
        let mut triple = walk.beginning();
        walk.reach(triple, usize::MAX, None)?;
        for step in steps {
            let place = walk.triples.len() - 1;
            let next = walk.take(triple, *step)?;
            triple = next.ok_or_else(|| walk.story(place, Some(*step), "not possible"))?;
            walk.reach(triple, place, Some(*step))?;
        }
        Ok(triple.sites.map(|site| Site::clone(&walk.known.site(site))))
    }

    fn new(space: Space) -> Walk {
        Walk {
            space,
            known: Known::default(),
            triples: Vec::new(),
            places: HashMap::new(),
            walked: Walked::default(),
        }
    }

    /// Comes to a triple: if it is a new one, each of its pairs is asked.
    fn reach(&mut self, triple: Triple, from: usize, step: Option<Step>) -> Result<(), String> {
        if self.places.contains_key(&triple) {
            return Ok(());
        }
        self.places.insert(triple, self.triples.len());
        self.triples.push((triple, from, step));
        for (a, b) in [(0, 1), (0, 2), (1, 2)] {
            let judged = self.known.judge(triple.sites[a], triple.sites[b], self.space.off);
            let judged = judged.map_err(|what| self.story(from, step, &what))?;
            *self.walked.outcomes.entry(judged.outcome).or_default() += 1;
            if let Some(third) = judged.third {
                *self.walked.thirds.entry(third).or_default() += 1;
            }
        }
        let cuts = |id: u32| self.known.sites[id as usize].lineage.cuts().len();
        let longest = triple.sites.into_iter().map(cuts).max().unwrap_or(0);
        *self.walked.longest.entry(longest).or_default() += 1;
        self.settles(triple, 0).map_err(|what| self.story(from, step, &what))
    }

    /// Whatever attaches by itself, in whatever order, comes to an end.
    fn settles(&mut self, triple: Triple, attaches: usize) -> Result<(), String> {
        if attaches > 2 * SITES {
            return Err("attaches go on and on".to_owned());
        }
        for source in 0..SITES {
            for replica in 0..SITES {
                if source == replica || !self.by_itself(triple, source, replica)? {
                    continue;
                }
                let ids = (triple.sites[source], triple.sites[replica]);
                let after = self.known.attach(ids.0, ids.1, true, &self.space)?;
                let mut next = triple;
                let Some((s, r)) = after else { continue };
                (next.sites[source], next.sites[replica]) = (s, r);
                self.settles(next, attaches + 1)?;
            }
        }
        Ok(())
    }

    fn by_itself(&mut self, triple: Triple, source: usize, replica: usize) -> Result<bool, String> {
        let (s, r) = (triple.sites[source], triple.sites[replica]);
        Ok(self.known.judge(s, r, self.space.off)?.loser == Some(replica))
    }

    fn go_on(&mut self, place: usize) -> Result<(), String> {
        let (triple, ..) = self.triples[place];
        for step in self.steps(&triple) {
            let next = self.take(triple, step);
            let next = next.map_err(|what| self.story(place, Some(step), &what))?;
            let Some(next) = next else { continue };
            let cuts = |id: u32| self.known.sites[id as usize].lineage.cuts().len();
            if next.sites.into_iter().all(|id| cuts(id) <= self.space.cuts) {
                self.reach(next, place, Some(step))?;
            }
        }
        Ok(())
    }

    /// The steps that may be possible.
    fn steps(&self, triple: &Triple) -> Vec<Step> {
        let mut steps = Vec::new();
        for site in 0..SITES {
            let s = &self.known.sites[triple.sites[site] as usize];
            match s.serves {
                true => {
                    steps.extend([Step::Write(site), Step::Cut(site)]);
                    let others = (0..SITES).filter(|to| *to != site && s.peers[*to].known);
                    steps.extend(others.map(|to| Step::GiveWay { site, to }));
                    if self.space.disasters {
                        steps.extend([false, true].map(|loses| Step::Restart { site, loses }));
                    }
                }
                false => {
                    steps.push(Step::Promote(site));
                    if self.space.earlier {
                        let points = s.earlier_points().into_iter();
                        steps.extend(points.map(|(place, _)| Step::PromoteAt(site, place)));
                    }
                    if self.streams_to(triple, site).is_some() {
                        steps.extend([Step::Receive(site), Step::LinkLost(site)]);
                    }
                }
            }
            if self.space.disasters && triple.image == Image::NotYet {
                steps.push(Step::Snapshot(site));
            }
            for replica in (0..SITES).filter(|replica| *replica != site && s.serves) {
                steps.push(Step::Attach { source: site, replica, heard: true });
                if self.space.words_lost {
                    steps.push(Step::Attach { source: site, replica, heard: false });
                }
            }
        }
        if let Image::Of(..) = triple.image {
            steps.push(Step::PutBack);
        }
        steps
    }

    fn take(&mut self, triple: Triple, step: Step) -> Result<Option<Triple>, String> {
        let mut next = triple;
        match step {
            Step::Attach { source, replica, heard } => {
                let (s, r) = (triple.sites[source], triple.sites[replica]);
                let Some(after) = self.known.attach(s, r, heard, &self.space)? else {
                    return Ok(None);
                };
                self.walked.attaches += 1;
                self.unlink(&mut next, replica);
                (next.sites[source], next.sites[replica]) = after;
            }
            Step::Receive(replica) => {
                let Some(source) = self.streams_to(&triple, replica) else { return Ok(None) };
                let sites =
                    [source, replica].map(|site| &self.known.sites[triple.sites[site] as usize]);
                let Some((s, r)) = receive(sites[0], sites[1]) else { return Ok(None) };
                next.sites[source] = self.known.number(s);
                next.sites[replica] = self.known.number(r);
            }
            Step::LinkLost(replica) => self.unlink(&mut next, replica),
            Step::Snapshot(site) => next.image = Image::Of(site, triple.sites[site]),
            Step::PutBack => {
                let Image::Of(site, image) = triple.image else { return Ok(None) };
                let mut old = Site::clone(&self.known.sites[image as usize]);
                // Names come from outside of the machine.
                old.made = self.known.sites[triple.sites[site] as usize].made;
                old.put_back = true;
                old.restart(false, self.space.off);
                next.sites[site] = self.known.number(old);
                next.image = Image::Used;
                self.unlink(&mut next, site);
            }
            Step::Write(site)
            | Step::Cut(site)
            | Step::Promote(site)
            | Step::PromoteAt(site, _)
            | Step::GiveWay { site, .. }
            | Step::Restart { site, .. } => {
                let id = self.known.alone(triple.sites[site], step, &self.space)?;
                let Some(id) = id else { return Ok(None) };
                next.sites[site] = id;
                if matches!(step, Step::Promote(_) | Step::PromoteAt(..)) {
                    self.unlink(&mut next, site);
                }
            }
        }
        Ok(Some(next))
    }

    /// From whom a replica streams.
    fn streams_to(&self, triple: &Triple, replica: usize) -> Option<usize> {
        (0..SITES).find(|source| {
            let source = &self.known.sites[triple.sites[*source] as usize];
            source.peers[replica].streams
        })
    }

    /// Ends the stream to a replica, if there is one.
    fn unlink(&mut self, triple: &mut Triple, replica: usize) {
        while let Some(source) = self.streams_to(triple, replica) {
            let mut site = Site::clone(&self.known.site(triple.sites[source]));
            site.peers[replica].streams = false;
            triple.sites[source] = self.known.number(site);
        }
    }

    /// How it came to what is wrong.
    fn story(&self, place: usize, step: Option<Step>, what: &str) -> String {
        let mut steps: Vec<Step> = step.into_iter().collect();
        let mut at = place;
        while let Some((_, before, step)) = self.triples.get(at) {
            steps.extend(*step);
            at = *before;
        }
        steps.reverse();
        format!("{what}\nafter {steps:?} ({LETTERS:?} are 0, 1, 2)")
    }
}

impl fmt::Display for Walked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Walked { triples, pairs, sites, lineages, attaches, .. } = self;
        writeln!(f, "{triples} triples of {sites} sites with {lineages} lineages; {pairs} pairs")?;
        writeln!(f, "  {attaches} attaches carried out")?;
        for (cuts, triples) in &self.longest {
            writeln!(f, "  {triples} with {cuts} cuts in the longest chain")?;
        }
        for (outcome, count) in &self.outcomes {
            writeln!(f, "  {count} {outcome}")?;
        }
        for (third, count) in &self.thirds {
            writeln!(f, "  {count} {third}")?;
        }
        Ok(())
    }
}
