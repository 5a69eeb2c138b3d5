//! A source and a replica on two simulated machines, linked in memory: the catch-up from end to end.

// In a test, a panic is how it fails.
#![allow(clippy::unwrap_used)]

mod backlog;
mod carry_over;
mod catch_up;
mod chaos;
mod commit;
mod compare;
mod dumps;
mod export;
mod faults;
mod hostile;
mod loads;
mod media;
mod oracle;
mod past;
mod past_drills;
mod past_moving;
mod past_roles;
mod past_zeros;
mod peers;
mod refusals;
mod rig;
mod role_histories;
mod roles;
mod stream;
mod stream_damage;
mod stream_roles;
mod switchover;
mod unreadable;
mod verify;
mod verify_hostile;
mod verify_repair;
