//! Makes a failing plan smaller: steps are left out, many at first and then one by one, as long as the
//! same checker still cries out.

use std::collections::BTreeSet;

use crate::plan::Plan;
use crate::run::play;

/// The smallest plan found that fails with the same checker.
pub fn shrink(plan: &Plan, checker: &str) -> Plan {
    let mut best = plan.clone();
    let mut size = best.steps.len().div_ceil(2).max(1);
    loop {
        let mut smaller = false;
        let mut at = 0;
        while at < best.steps.len() {
            let gone: BTreeSet<u32> =
                best.steps.iter().skip(at).take(size).map(|step| step.number).collect();
            let tried = best.without(&gone);
            let fails = play(&tried, false).violation.is_some_and(|v| v.checker == checker);
            if fails {
                (best, smaller) = (tried, true);
            } else {
                at += size;
            }
        }
        if size == 1 && !smaller {
            return best;
        }
        size = size.div_ceil(2).max(1);
        if size == 1 && !smaller && best.steps.is_empty() {
            return best;
        }
    }
}
