//! `init` at both ends.

use std::path::PathBuf;

use disk::Context;
use grain::{Geometry, GrainSize, Lineage, RelationshipId, VolumeShape};
use replication::map::Layout;
use replication::state::{
    LayerTable, Peer, ReplicaState, Role, RunRecord, STATE_VERSION, State, StateStore,
};
use replication::volumes::measure;
use site::location::{Name, StateDir};
use wire::{Identity, Ticket, TicketContent};

use super::{RelationshipError, load_or_make_keys};

/// A full layer stays at or below this, unless the operator chose a smaller grain.
const LAYER_BYTES: u64 = 64 << 20;

/// A volume as given on the command line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VolumeArgument {
    /// Its alias; from the file's name when not given.
    pub alias: Option<String>,
    /// Where it is.
    pub path: PathBuf,
}

impl std::str::FromStr for VolumeArgument {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let (alias, path) = match text.split_once('=') {
            Some((alias, path)) if !alias.contains('/') => (Some(alias.to_owned()), path),
            _ => (None, text),
        };
        if path.is_empty() {
            return Err("a volume is [ALIAS=]PATH".to_owned());
        }
        Ok(VolumeArgument { alias, path: PathBuf::from(path) })
    }
}

impl VolumeArgument {
    fn alias(&self) -> String {
        let from_path = || {
            let name = self.path.file_stem().map(|n| n.to_string_lossy().into_owned());
            name.unwrap_or_default()
        };
        self.alias.clone().unwrap_or_else(from_path)
    }
}

/// What `primary-agent init` is told.
#[derive(Clone, Debug)]
pub struct InitSource {
    /// Name of the relationship.
    pub name: Name,
    /// Its volumes.
    pub volumes: Vec<VolumeArgument>,
    /// The peers' identities.
    pub peers: Vec<Identity>,
    /// The grain, if it was chosen.
    pub grain: Option<GrainSize>,
    /// Where the source will listen, for the ticket.
    pub addresses: Vec<String>,
}

/// What `secondary-agent init` is told.
#[derive(Clone, Debug)]
pub struct InitReplica {
    /// Name of the relationship here.
    pub name: Name,
    /// The source's ticket.
    pub ticket: Ticket,
    /// The volumes, in the order of the ticket or by alias.
    pub volumes: Vec<VolumeArgument>,
    /// Other addresses than the ticket's.
    pub addresses: Vec<String>,
}

/// What `init` made.
#[derive(Clone, Debug)]
pub struct Initialised {
    /// Its id.
    pub relationship: RelationshipId,
    /// Its geometry.
    pub geometry: Geometry,
    /// The ticket, at a source.
    pub ticket: Option<Ticket>,
}

/// The smallest grain, from 64 KiB up, at which a full layer stays at or below 64 MiB.
pub fn default_grain(volume_bytes: &[u64]) -> GrainSize {
    let mut grain = GrainSize::DEFAULT;
    while grain < GrainSize::MAX {
        let layout = Layout::new(volume_bytes.iter().map(|b| grain.count_for(*b)));
        if layout.file_bytes() <= LAYER_BYTES {
            break;
        }
        match GrainSize::from_bytes(grain.bytes() * 2) {
            Ok(next) => grain = next,
            Err(_) => break,
        }
    }
    grain
}

/// Makes a relationship at its source. What is there already is not touched.
pub async fn init_source(
    ctx: &Context,
    state: &StateDir,
    what: InitSource,
) -> Result<Initialised, RelationshipError> {
    let keys = load_or_make_keys(ctx, state).await?;
    let (shapes, paths) = measure_all(ctx, &what.volumes).await?;
    let sizes: Vec<u64> = shapes.iter().map(|s| s.bytes).collect();
    let grain = what.grain.unwrap_or_else(|| default_grain(&sizes));
    let geometry = Geometry { grain, volumes: shapes };
    geometry.validate().map_err(|e| RelationshipError::Usage(e.to_string()))?;
    let relationship = RelationshipId::new(ctx.unix_ms(), ctx.random());
    let content = TicketContent {
        relationship,
        name: what.name.to_string(),
        geometry: geometry.clone(),
        addresses: what.addresses,
        primary: keys.identity(),
    };
    let ticket = Ticket::sign(content, &keys)?;
    let peer = |identity: &Identity| Peer::new(identity.to_string());
    let peers = what.peers.iter().map(peer).collect();
    let first = first_state(relationship, &what.name, &geometry, paths, Role::Source, peers);
    create(ctx, state, &what.name, first).await?;
    Ok(Initialised { relationship, geometry, ticket: Some(ticket) })
}

/// Makes a relationship at its replica, from the source's ticket.
pub async fn init_replica(
    ctx: &Context,
    state: &StateDir,
    what: InitReplica,
) -> Result<Initialised, RelationshipError> {
    load_or_make_keys(ctx, state).await?;
    let content = what.ticket.content();
    let geometry = content.geometry.clone();
    let paths = match_volumes(ctx, &geometry, &what.volumes).await?;
    let source = content.primary.to_string();
    let peers = vec![Peer::new(source.clone())];
    let relationship = content.relationship;
    let mut first = first_state(relationship, &what.name, &geometry, paths, Role::Replica, peers);
    let addresses =
        if what.addresses.is_empty() { content.addresses.clone() } else { what.addresses };
    first.replica = Some(ReplicaState { source, addresses, ..ReplicaState::default() });
    create(ctx, state, &what.name, first).await?;
    Ok(Initialised { relationship, geometry, ticket: None })
}

fn first_state(
    relationship: RelationshipId,
    name: &Name,
    geometry: &Geometry,
    volumes: Vec<PathBuf>,
    role: Role,
    peers: Vec<Peer>,
) -> State {
    State {
        version: STATE_VERSION,
        relationship,
        name: name.to_string(),
        geometry: geometry.clone(),
        volumes,
        role,
        lineage: Lineage::new(),
        synced: None,
        layers: LayerTable::default(),
        peers,
        sets: Vec::new(),
        suspect: None,
        run: RunRecord::default(),
        replica: None,
        promoted: None,
        bookmarks: Vec::new(),
        backlog: None,
    }
}

async fn create(
    ctx: &Context,
    state: &StateDir,
    name: &Name,
    first: State,
) -> Result<(), RelationshipError> {
    let dir = state.relationship(name);
    let path = dir.state_file();
    let there = ctx.storage.exists(&path).await;
    if there.map_err(RelationshipError::io("look at", &path))?.is_some() {
        return Err(RelationshipError::Exists(name.to_string()));
    }
    dir.prepare()?;
    StateStore::create(ctx, dir.path(), first).await?;
    // Every directory that may have been made on the way is durable, too.
    for above in dir.path().ancestors().skip(1) {
        ctx.storage.sync_dir(above).await.map_err(RelationshipError::io("sync", above))?;
        if above == state.root() {
            break;
        }
    }
    Ok(())
}

async fn measure_all(
    ctx: &Context,
    volumes: &[VolumeArgument],
) -> Result<(Vec<VolumeShape>, Vec<PathBuf>), RelationshipError> {
    let mut shapes = Vec::new();
    let mut paths = Vec::new();
    for volume in volumes {
        let found = ctx.storage.canonical(&volume.path).await;
        let path = found.map_err(RelationshipError::io("find", &volume.path))?;
        if paths.contains(&path) {
            return Err(RelationshipError::Usage(format!(
                "{} is given twice",
                volume.path.display()
            )));
        }
        shapes.push(VolumeShape { alias: volume.alias(), bytes: measure(ctx, &path).await? });
        paths.push(path);
    }
    Ok((shapes, paths))
}

/// Finds the path of each volume of the ticket: by alias where one is given, else by place.
async fn match_volumes(
    ctx: &Context,
    geometry: &Geometry,
    given: &[VolumeArgument],
) -> Result<Vec<PathBuf>, RelationshipError> {
    if given.len() != geometry.volumes.len() {
        let names: Vec<_> = geometry.volumes.iter().map(|v| v.alias.as_str()).collect();
        return Err(RelationshipError::Usage(format!(
            "the ticket has {} volumes ({}), {} are given",
            names.len(),
            names.join(", "),
            given.len()
        )));
    }
    let mut paths = Vec::new();
    for (place, shape) in geometry.volumes.iter().enumerate() {
        let named = given.iter().find(|v| v.alias.as_ref() == Some(&shape.alias));
        let by_place = given.get(place).filter(|v| v.alias.is_none());
        let volume = named.or(by_place).ok_or_else(|| {
            RelationshipError::Usage(format!("no volume is given for `{}`", shape.alias))
        })?;
        let found = ctx.storage.canonical(&volume.path).await;
        let path = found.map_err(RelationshipError::io("find", &volume.path))?;
        let bytes = measure(ctx, &path).await?;
        if bytes != shape.bytes {
            return Err(RelationshipError::Usage(format!(
                "{} has {bytes} bytes; `{}` has {} at the source. Make it the same size: \
                 truncate -s {} {}",
                path.display(),
                shape.alias,
                shape.bytes,
                shape.bytes,
                path.display()
            )));
        }
        paths.push(path);
    }
    Ok(paths)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_grain_keeps_a_full_layer_small() {
        let tib = 1_u64 << 40;
        assert_eq!(default_grain(&[tib]).bytes(), 64 << 10);
        assert_eq!(default_grain(&[100 * tib]).bytes(), 256 << 10);
        assert_eq!(default_grain(&[1024 * tib]).bytes(), 4 << 20);
    }

    #[test]
    fn volumes_on_the_command_line() {
        let parse = |text: &str| text.parse::<VolumeArgument>();
        assert_eq!(parse("data=/dev/sdb").unwrap().alias(), "data");
        assert_eq!(parse("/srv/disk.img").unwrap().alias(), "disk");
        assert_eq!(parse("/srv/a=b.img").unwrap().path, PathBuf::from("/srv/a=b.img"));
        assert!(parse("data=").is_err());
    }
}
