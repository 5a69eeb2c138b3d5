//! Media on their way: whole, in parts, damaged, swapped, twice, stale.

use std::path::{Path, PathBuf};
use std::rc::Rc;

use disk::simulated::SplitMix64;

use crate::event;
use crate::plan::Site;
use crate::steps::Shipment;
use crate::world::{MadeSet, World};

/// Ships a set.
pub async fn ship(world: &Rc<World>, how: Shipment, seed: u64) {
    let made = world.made.borrow().clone();
    let chosen = match how {
        Shipment::Stale => made.first(),
        _ => made.last(),
    };
    let Some(set) = chosen else {
        event!(world, "media: nothing to ship");
        return;
    };
    let mut random = SplitMix64::new(seed);
    world.trace.count(match how {
        Shipment::Whole => "media: shipped",
        Shipment::Parts => "media: shipped in parts",
        Shipment::Damaged => "media: damaged on the way",
        Shipment::Swapped => "media: swapped",
        Shipment::Twice => "media: shipped twice",
        Shipment::Stale => "media: stale",
    });
    for (number, medium) in set.media.iter().enumerate() {
        let stays = how == Shipment::Parts && random.below(2) == 0;
        if stays {
            continue;
        }
        let other = made.first().filter(|_| how == Shipment::Swapped && number == 0);
        let from = other.and_then(|other| other.media.first()).unwrap_or(medium);
        carry(world, from, &arrival(medium, ""), how, &mut random);
        if how == Shipment::Twice {
            carry(world, from, &arrival(medium, "copy"), how, &mut random);
        }
    }
    if how == Shipment::Damaged {
        let here: Vec<_> = set.media.iter().map(|medium| arrival(medium, "")).collect();
        crate::check::media::damaged(world, &here).await;
    }
}

/// Brings everything of a set, undamaged.
pub fn bring_all(world: &World, set: &MadeSet) {
    let mut random = SplitMix64::new(0);
    world.arrived.borrow_mut().clear();
    world.node(Site::Replica).machine.unplug("/in");
    for medium in &set.media {
        carry(world, medium, &arrival(medium, ""), Shipment::Whole, &mut random);
    }
}

fn arrival(medium: &Path, suffix: &str) -> PathBuf {
    let name = medium.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    PathBuf::from(format!("/in/{name}{suffix}"))
}

fn carry(world: &World, from: &Path, to: &Path, how: Shipment, random: &mut SplitMix64) {
    let source = &world.node(Site::Source).machine;
    let replica = &world.node(Site::Replica).machine;
    for (path, len) in source.files(from) {
        let Some(name) = path.file_name() else { continue };
        let Ok(content) = source.content(&path) else { continue };
        let mut bytes = content.to_vec();
        if how == Shipment::Damaged && len > 0 {
            match random.below(6) {
                0 => {
                    let at = random.below(len) as usize;
                    bytes[at] ^= 1 << random.below(8);
                }
                1 => bytes.truncate(random.below(len) as usize),
                2 => continue,
                _ => {}
            }
        }
        replica.plug_in(to.join(name), &bytes);
    }
    let mut arrived = world.arrived.borrow_mut();
    if !arrived.contains(&to.to_owned()) {
        arrived.push(to.to_owned());
    }
}
