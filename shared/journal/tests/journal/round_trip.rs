//! Random histories without faults: what a reader sees is what the model says, at every step.

use std::time::Duration;

use grain::SessionId;
use journal::Error;

use crate::world::{World, run};

/// One random step. Errors for want of room are part of it.
pub async fn step(world: &mut World) -> Result<(), Error> {
    let open: Vec<SessionId> = world.model.sessions.keys().copied().collect();
    let chosen = |world: &mut World| open[world.below(open.len() as u64) as usize];
    match world.below(20) {
        _ if open.is_empty() => {
            world.begin()?;
        }
        0 => {
            world.begin()?;
        }
        1 => world.sync().await?,
        2 | 3 => {
            let mut list = open.clone();
            list.retain(|_| world.below(3) > 0);
            let turn = world.below(list.len().max(1) as u64) as usize;
            list.rotate_left(turn);
            pass_full(world.commit(&list).await.map(drop))?;
        }
        4 => {
            let session = chosen(world);
            pass_full(world.abort(session).await)?;
        }
        5..8 => {
            let max = world.below(40_000);
            world.apply(max).await?;
        }
        _ => {
            let session = chosen(world);
            let (sequence, zero) = (world.below(50), world.below(4) == 0);
            let run = world.random_run(if zero { 40 } else { 6 });
            let done = world.append(session, sequence, run, zero).await;
            if let Err(Error::Full { .. } | Error::TooManyRecords { .. }) = done {
                // What waits to be applied or committed makes room.
                pass_full(world.commit(&open).await.map(drop))?;
                while world.apply(100_000).await? {}
            }
            pass_full(done)?;
        }
    }
    Ok(())
}

fn pass_full(done: Result<(), Error>) -> Result<(), Error> {
    match done {
        Err(Error::Full { .. } | Error::TooManyRecords { .. }) => Ok(()),
        other => other,
    }
}

#[test]
fn readers_see_the_commits() {
    run(async {
        for seed in 0..40 {
            let mut world = World::new(seed);
            if seed % 2 == 1 {
                world.machine.set_latency(Duration::from_micros(10)..Duration::from_millis(2));
            }
            world.make_base().await;
            world.open().await.unwrap();
            for count in 0..400 {
                step(&mut world).await.unwrap();
                if count % 20 == 0 {
                    world.check().await;
                }
                if count % 97 == 96 {
                    world.sync().await.unwrap();
                    let recovered = world.open().await.unwrap();
                    world.settle(&recovered).await;
                }
            }
            while world.apply(50_000).await.unwrap() {}
            world.check().await;
            assert!(world.journal().is_applied());
        }
    });
}
