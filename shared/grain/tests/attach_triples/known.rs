//! What is known already: each site under a number, and each question about one or two of them once.
//!
//! What two sites owe each other depends on these two alone, in whatever triple they stand.

use std::collections::HashMap;
use std::rc::Rc;

use grain::CutReason;

use super::oracle::{Judged, judge, judge_after};
use super::site::Site;
use super::space::{Off, Space, Step};
use super::steps::attach;

#[derive(Default)]
pub struct Known {
    pub sites: Vec<Rc<Site>>,
    numbers: HashMap<Rc<Site>, u32>,
    pub judged: HashMap<(u32, u32), Judged>,
    attached: HashMap<(u32, u32, bool), Option<(u32, u32)>>,
    alone: HashMap<(u32, Step), Option<u32>>,
}

impl Known {
    pub fn number(&mut self, site: Site) -> u32 {
        if let Some(number) = self.numbers.get(&site) {
            return *number;
        }
        let (site, number) = (Rc::new(site), self.sites.len() as u32);
        self.sites.push(site.clone());
        self.numbers.insert(site, number);
        number
    }

    pub fn site(&self, number: u32) -> Rc<Site> {
        self.sites[number as usize].clone()
    }

    /// What two sites say to each other, asked from either side.
    pub fn judge(&mut self, a: u32, b: u32, off: Off) -> Result<Judged, String> {
        let (a, b) = (a.min(b), a.max(b));
        if let Some(judged) = self.judged.get(&(a, b)) {
            return Ok(*judged);
        }
        let judged = judge(&self.site(a), &self.site(b), off)?;
        self.judged.insert((a, b), judged);
        Ok(judged)
    }

    pub fn attach(
        &mut self,
        source: u32,
        replica: u32,
        heard: bool,
        space: &Space,
    ) -> Result<Option<(u32, u32)>, String> {
        if let Some(known) = self.attached.get(&(source, replica, heard)) {
            return Ok(*known);
        }
        let (s, r) = (self.site(source), self.site(replica));
        let by_itself = self.judge(source, replica, space.off)?.loser == Some(r.me);
        let after = attach(&s, &r, heard, space).transpose()?;
        if let Some((s, new)) = &after {
            judge_after(&r, s, new, by_itself, space.off)?;
        }
        let after = after.map(|(s, r)| (self.number(s), self.number(r)));
        self.attached.insert((source, replica, heard), after);
        Ok(after)
    }

    /// A step of one site. `None` where it changes nothing or is not possible.
    pub fn alone(&mut self, site: u32, step: Step, space: &Space) -> Result<Option<u32>, String> {
        if let Some(known) = self.alone.get(&(site, step)) {
            return Ok(*known);
        }
        let before = self.site(site);
        let mut after = Site::clone(&before);
        match step {
            Step::Write(_) if after.sequence < space.writes => after.write(),
            Step::Cut(_) => drop(after.cut(CutReason::Stream, Some(before.sequence))),
            Step::Promote(_) if after.head().is_some() => after.promote(space.off),
            Step::PromoteAt(_, place) => after.promote_at(place, space.off)?,
            Step::GiveWay { to, .. } => after.give_way(to),
            Step::Restart { loses, .. } => after.restart(loses, space.off),
            _ => {}
        }
        let id = (after != *before).then(|| self.number(after));
        self.alone.insert((site, step), id);
        Ok(id)
    }
}
