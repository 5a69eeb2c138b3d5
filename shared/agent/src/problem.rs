//! Errors in prose: what happened, what is safe, what to do.

use site::{Exit, Problem};

use crate::relationship::RelationshipError;

/// The prose of an error of the roles.
pub fn of_replication(e: &replication::Error) -> Problem {
    use replication::Error as E;
    let exit = Exit::of_class(e.class());
    let (code, safe, todo) = match e {
        E::Io { source, .. } if source.kind() == std::io::ErrorKind::StorageFull => (
            "no-space",
            "What was acknowledged before is kept; nothing half-done counts.",
            "Make room on that file system and try again.",
        ),
        E::Io { .. } => (
            "io",
            "What was acknowledged before is kept; nothing half-done counts.",
            "Look at the disk and at the system's log, then try again.",
        ),
        E::Corrupt { .. } => (
            "corrupt",
            "The volumes were not touched.",
            "Restore the file from a backup of the state directory, or make the relationship \
                 anew and compare.",
        ),
        E::TrackingFailed(_) => (
            "tracking",
            "Writes are refused, so that no change goes unnoticed.",
            "Look at the disk of the state directory, then start the agent again.",
        ),
        E::CutTimeout(_) => (
            "cut-timeout",
            "Writes go on; no cut was made.",
            "Try again when the disk is less busy.",
        ),
        E::State(_) => ("state", "Nothing was changed.", ""),
        E::UnknownCut(_) => ("unknown-cut", "Nothing was changed.", ""),
        E::Peer(_) => (
            "peer",
            "Nothing that the peer sent was believed.",
            "Check that both sites run versions that fit.",
        ),
        E::Link(_) => ("link", "What has arrived is kept and carried over.", "Try again."),
        E::Refused { rule, .. } => {
            let known = grain::attach::Rule::ALL.into_iter().find(|r| r.name() == rule);
            let todo = known.and_then(crate::verdict::advice).unwrap_or("");
            let exit = known.map_or(Exit::PEER, Exit::of_rule);
            let exit = if exit == Exit::OK { Exit::PEER } else { exit };
            return Problem::new(rule, e.to_string(), exit)
                .safe("No data was moved or overwritten.")
                .todo(todo);
        }
        E::Fingerprint(_) => {
            return Problem::new("fingerprint", e.to_string(), Exit::FINGERPRINT)
                .safe("Nothing was written.")
                .todo(
                    "Run `secondary-agent serve NAME --compare`: it compares digests of all \
                         grains and pulls what differs.",
                );
        }
        E::Unreadable(_) => {
            return Problem::new("unreadable", e.to_string(), Exit::UNREADABLE)
                .safe("What has arrived is kept. Nothing was filled in for what is missing.")
                .todo(
                    "See to the disk of the source, or have the application write these places anew. A \
                         consistent replica goes on without them by `serve --accept-unreadable`, and is \
                         inconsistent until they come.",
                );
        }
        E::SeedFingerprint(_) => {
            return Problem::new("fingerprint", e.to_string(), Exit::FINGERPRINT)
                .safe(
                    "The media and the source were only read; this replica counts as inconsistent.",
                )
                .todo(
                    "Look at the disk under the volumes and at who else opens them, then run \
                         `secondary-agent serve NAME --compare`, which pulls what differs.",
                );
        }
        E::Volume { .. } => (
            "volume",
            "Nothing was written.",
            "Check that nobody else uses the volume and that it is the right one; \
                 `serve --accept-touched` goes on with it as it is, and everything then counts as \
                 changed.",
        ),
        E::Journal(_) => ("journal", "What was committed is kept.", "Start the agent again."),
        E::Media(_) => ("media", "The volumes were not touched by what does not check.", ""),
        E::Cancelled => ("cancelled", "Nothing half-done counts.", ""),
    };
    Problem::new(code, e.to_string(), exit).safe(safe).todo(todo)
}

/// The prose of an error before a daemon runs.
pub fn of_relationship(e: &RelationshipError) -> Problem {
    match e {
        RelationshipError::Replication(inner) => of_replication(inner),
        RelationshipError::Usage(_) => {
            Problem::new("usage", e.to_string(), Exit::USAGE).safe("Nothing was changed.")
        }
        RelationshipError::Site(inner) => Problem::from(inner),
        RelationshipError::Wire(inner) => {
            Problem::of_class("identity", e.to_string(), inner.class()).safe("Nothing was changed.")
        }
        RelationshipError::Exists(_)
        | RelationshipError::WrongRole { .. }
        | RelationshipError::Io { .. } => {
            Problem::new("init", e.to_string(), Exit::OPERATOR).safe("Nothing was changed.")
        }
    }
}

/// The prose of an error of the link.
pub fn of_wire(e: &wire::Error) -> Problem {
    use wire::link::refusal;
    let (code, todo) = match e {
        wire::Error::Refused { code: refusal::KEY, .. } => (
            "not-pinned",
            "Give the other site the line that `identity` prints here, and have it pinned there \
             (`primary-agent init NAME --peer IDENTITY`); compare the fingerprints by telephone.",
        ),
        wire::Error::Refused { code: refusal::RELATIONSHIP, .. } => (
            "other-relationship",
            "Check the address, and that this site was made with the ticket of the primary that \
             listens there.",
        ),
        wire::Error::Refused { code: refusal::VERSION, .. } => {
            ("version", "Update the older of the two sites.")
        }
        wire::Error::Stranger(_) => (
            "stranger",
            "Check the address. If it is right, compare the fingerprint that `primary-agent \
             identity` prints there with the one of the ticket before anything else: somebody may \
             be in between, or the primary was set up anew.",
        ),
        wire::Error::Unreachable { .. } => (
            "unreachable",
            "Check that `primary-agent serve NAME --listen` runs there, and the way to it.",
        ),
        _ => ("link", ""),
    };
    Problem::of_class(code, e.to_string(), e.class()).safe("No data was moved.").todo(todo)
}

/// The prose of an error of a media set.
pub fn of_media(e: &media::MediaError) -> Problem {
    Problem::of_class("media", e.to_string(), e.class()).safe("What does not check is not used.")
}

/// The NBD server does not serve.
pub(crate) fn nbd_problem(e: &nbd::Error) -> Problem {
    Problem::new("nbd", e.to_string(), Exit::OPERATOR).safe("No export is offered.")
}

/// A wish that cannot be fulfilled now.
pub fn refused(code: &str, what: impl Into<String>) -> Problem {
    Problem::new(code, what, Exit::OPERATOR).safe("Nothing was changed.")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_has_its_three_parts_and_its_own_exit_code() {
        let error = replication::Error::Refused {
            rule: "ahead".to_owned(),
            detail: "the replica holds a cut".to_owned(),
        };
        let problem = of_replication(&error);
        assert_eq!(problem.exit, Exit(14));
        assert!(problem.what.starts_with("attach refused by rule `ahead`"), "{problem}");
        assert!(problem.safe.starts_with("No data was moved"), "{problem}");
        assert!(problem.todo.contains("look at both"), "{problem}");
    }
}
