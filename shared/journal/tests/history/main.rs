//! Tests of the undo log on the simulated disk, against a model of the bytes.

#![allow(clippy::unwrap_used)]

mod crash;
mod damage;
mod errors;
mod round_trip;
mod rules;
mod world;
