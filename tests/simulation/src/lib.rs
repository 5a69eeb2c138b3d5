//! The deterministic simulator: both sites, their applications, media and link in one thread on a
//! paused clock, everything failing by plan, and an oracle that knows every write.
//!
//! The very code that ships runs here; what is simulated is the machine below it (`disk::simulated`) and
//! the cable (`wire::link::memory_pair`). The same seed gives the same history, event by event. What may
//! fail where stands at the top of [`faults`]; the promises that are checked stand in [`check`], one file
//! each.

pub mod cells;
pub mod check;
pub mod coverage;
pub mod crash_points;
pub mod errors_at_n;
pub mod faults;
pub mod keeping;
pub mod life;
pub mod node;
pub mod oracle;
pub mod plan;
pub mod process;
pub mod remembering;
pub mod run;
pub mod script;
pub mod shape;
pub mod shrink;
pub mod steps;
pub mod trace;
pub mod verbs;
pub mod weather;
pub mod workload;
pub mod world;
