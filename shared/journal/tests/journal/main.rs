//! Tests of the journal on the simulated disk, against a model of the bytes.

#![allow(clippy::unwrap_used)]

mod crash;
mod damage;
mod errors;
mod forged;
mod limits;
mod points;
mod round_trip;
mod stream;
mod together;
mod world;
