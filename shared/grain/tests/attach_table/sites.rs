//! The sites that are paired: every small lineage in every standing.

use grain::attach::{AloneMark, CopyFacts, Facts, MissingGrains, Role};
use grain::lineage::{Count, Cut, CutReason, Layer, LayerName};
use grain::{CutId, Geometry, GrainSize, Lineage, RelationshipId, VolumeShape};

/// Chains from the tree 1 (2 (4 (7 8) 5 (9)) 3 (6 (10))); pruned ones; one of another tree; none.
const CHAINS: [&[u8]; 14] = [
    &[],
    &[1],
    &[1, 2],
    &[1, 3],
    &[1, 2, 4],
    &[1, 2, 5],
    &[1, 3, 6],
    &[1, 2, 4, 7],
    &[1, 2, 4, 8],
    &[1, 2, 5, 9],
    &[1, 3, 6, 10],
    &[1, 4],
    &[2, 4, 7],
    &[20, 21],
];

/// A cut that only a fuzzy seed names.
pub const UNKNOWN: u8 = 99;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Site {
    pub chain: Vec<u8>,
    pub source: bool,
    pub suspect: bool,
    pub relinquished: bool,
    pub alone: bool,
    /// Promoted with the cut at its head.
    pub promoted: bool,
    pub consistent: bool,
    pub fuzzy_end: Option<u8>,
    pub missing: u64,
    /// Each write in the open epoch touched a grain of its own.
    pub sequence: u64,
    /// The recorded end of every closed epoch.
    pub end: Option<u64>,
    /// Whether it has the layers of its chain, each of one grain.
    pub layers: bool,
}

pub fn id(n: u8) -> CutId {
    CutId::from_bytes([n; 16])
}

impl Site {
    fn new(chain: &[u8]) -> Site {
        Site {
            chain: chain.to_vec(),
            source: false,
            suspect: false,
            relinquished: false,
            alone: false,
            promoted: false,
            consistent: !chain.is_empty(),
            fuzzy_end: None,
            missing: 0,
            sequence: 0,
            end: Some(5),
            layers: true,
        }
    }

    fn source(chain: &[u8]) -> Site {
        Site { source: true, ..Site::new(chain) }
    }

    pub fn serves(&self) -> bool {
        self.source && !self.relinquished
    }

    pub fn may_win(&self) -> bool {
        let whole = self.consistent && self.missing == 0 && self.fuzzy_end.is_none();
        !self.chain.is_empty() && (self.serves() || whole)
    }

    pub fn open(&self) -> u64 {
        self.sequence
    }

    fn lineage(&self) -> Lineage {
        let mut lineage = Lineage::new();
        for cut in &self.chain {
            let parent = lineage.head().map(|cut| cut.id);
            let cut = Cut { id: id(*cut), parent, unix_ms: 0, reason: CutReason::Cycle };
            lineage.push(cut, self.end).expect("a chain");
        }
        lineage
    }

    pub fn facts(&self) -> Facts {
        let volumes = vec![VolumeShape { alias: "disk".into(), bytes: 100 * 4096 }];
        let pairs = self.chain.windows(2).filter(|_| self.layers);
        let name = |pair: &[u8]| LayerName::new(id(pair[0]), id(pair[1]));
        let mark = self.chain.first().map(|cut| AloneMark {
            since: id(*cut),
            acknowledged: None,
            unix_ms: 0,
        });
        let facts = Facts {
            relationship: RelationshipId::from_bytes([1; 16]),
            geometry: Geometry { grain: GrainSize::MIN, volumes },
            role: if self.source { Role::Source } else { Role::Replica },
            suspect: self.suspect,
            relinquished: self.relinquished,
            promoted: self.chain.last().filter(|_| self.promoted).map(|cut| id(*cut)),
            alone: mark.filter(|_| self.alone),
            lineage: self.lineage(),
            sequence: self.sequence,
            layers: pairs.map(|p| Layer { name: name(p), grains: Count(1) }).collect(),
            open_grains: self.open(),
            copy: CopyFacts {
                consistent: self.consistent,
                missing: MissingGrains { damaged: 0, not_loaded: self.missing },
                partial: None,
                fuzzy_end: self.fuzzy_end.map(id),
            },
            open_within: None,
        };
        facts.validate().expect("facts that can be");
        facts
    }
}

/// Every standing of a site with this chain that the rules tell apart.
fn in_every_standing(chain: &[u8]) -> Vec<Site> {
    let replica = Site::new(chain);
    if chain.is_empty() {
        return vec![replica];
    }
    let mut sites = vec![
        Site { consistent: false, missing: 7, ..replica.clone() },
        Site { consistent: false, fuzzy_end: Some(chain[0]), ..replica.clone() },
        Site { consistent: false, fuzzy_end: Some(UNKNOWN), ..replica.clone() },
        replica,
        Site { relinquished: true, ..Site::source(chain) },
        Site { relinquished: true, alone: true, ..Site::source(chain) },
    ];
    for n in 0..8 {
        let (suspect, alone, promoted) = (n & 1 > 0, n & 2 > 0, n & 4 > 0);
        sites.push(Site { suspect, alone, promoted, ..Site::source(chain) });
    }
    sites
}

/// All sites.
pub fn all() -> Vec<Site> {
    let mut sites = Vec::new();
    for site in CHAINS.iter().flat_map(|chain| in_every_standing(chain)) {
        for (end, layers) in [(Some(2), true), (Some(5), false), (None, true)] {
            sites.push(Site { end, layers, ..site.clone() });
            if !site.chain.is_empty() {
                sites.push(Site { end, layers, sequence: 3, ..site.clone() });
            }
        }
    }
    sites.sort_by_key(|site| format!("{site:?}"));
    sites.dedup();
    sites
}

/// How two chains can lie to each other.
pub fn shapes() -> [(&'static str, Site, Site); 5] {
    let site = Site::new;
    [
        ("the same head", site(&[1, 2]), site(&[1, 2])),
        ("B is in the past of A", site(&[1, 2, 4]), site(&[1, 2])),
        ("a fork", site(&[1, 2, 4]), site(&[1, 3])),
        ("a fork, layers gone", Site { layers: false, ..site(&[1, 2, 4]) }, site(&[1, 3])),
        ("nothing in common", site(&[1, 2]), site(&[20, 21])),
    ]
}

/// The standings of the committed table.
pub fn standings(site: &Site) -> Vec<(&'static str, Site)> {
    let source = Site { source: true, ..site.clone() };
    let alone = Site { alone: true, sequence: 1, ..source.clone() };
    vec![
        ("source", source.clone()),
        ("alone", alone.clone()),
        ("promoted", Site { promoted: true, ..source.clone() }),
        ("promoted, alone", Site { promoted: true, ..alone }),
        ("suspect", Site { suspect: true, ..source.clone() }),
        ("relinquished", Site { relinquished: true, ..source }),
        ("replica", site.clone()),
        ("loading replica", Site { consistent: false, missing: 2, ..site.clone() }),
    ]
}
