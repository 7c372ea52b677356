//! What a VM owns on this host outside of its directory, each thing as data in its journal: enough to find it again and to
//! undo it, whoever is left to do that.
//!
//! A claim is in the journal before its thing is made, and is undone after the VM's processes have ended. Undoing is
//! harmless when there is nothing, when it was done before, and when two do it at once; what is not ours is not touched.
//! A thing is made before the VMM is started, unless the VMM makes it itself, as it does its sockets.

mod cgroup;
mod link;
mod socket;
mod uid;

pub(crate) use cgroup::{Cgroup, Making, Setting, USUAL_PARENT, another_name};
pub(crate) use link::Link;
pub(crate) use socket::Socket;
pub(crate) use uid::{LEASES as UID_LEASES, Uid};

use serde::{Deserialize, Serialize};
use std::io;
use std::path::Path;
use thiserror::Error;

/// Why a thing that was claimed could not be made.
#[derive(Debug, Error)]
#[error("cannot make {what}")]
pub struct NotMade {
    /// The thing.
    what: String,
    is_lease: bool,
    /// Why not.
    pub(crate) source: io::Error,
}

impl NotMade {
    /// Whether it is a lease, and another one was faster.
    pub(crate) fn is_of_a_lease_that_was_taken(&self) -> bool {
        self.is_lease && self.source.kind() == io::ErrorKind::AlreadyExists
    }
}

/// One thing that a VM owns, or may own.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Claim {
    /// A unix socket that the VMM binds, and leaves behind whatever ends it.
    Socket(Socket),
    /// A cgroup for its VMM and its pager.
    Cgroup(Cgroup),
    /// A link to such a socket in a jail, at the path that its owner has chosen.
    Link(Link),
    /// The user that a jailed VMM runs as.
    Uid(Uid),
}

/// What stands where a claim says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Found {
    /// Nothing.
    Absent,
    /// What the VM has left.
    Ours,
    /// Something that another one uses.
    Foreign,
}

/// A kind of thing that can be claimed. Relative paths in it are relative to the VMM's working directory.
pub(crate) trait Thing {
    /// Looks for it.
    fn find(&self, working_directory: &Path) -> io::Result<Found>;

    /// Whether it is to be claimed by whoever is about to make it.
    fn is_makeable(&self, working_directory: &Path) -> bool;

    /// Makes it, unless it is made by the VMM.
    fn make(&self, _working_directory: &Path) -> io::Result<()> {
        Ok(())
    }

    /// Removes it if it is ours.
    fn undo(&self, working_directory: &Path) -> io::Result<()>;

    /// What it is called in messages.
    fn describe(&self, working_directory: &Path) -> String;
}

impl Claim {
    /// A socket at `path`.
    pub(crate) fn socket(path: impl AsRef<Path>) -> Self {
        Self::Socket(Socket::at(path.as_ref()))
    }

    /// Where the socket is that it speaks of.
    pub(crate) fn socket_path(&self) -> Option<&Path> {
        match self {
            Self::Socket(socket) => Some(socket.path()),
            _ => None,
        }
    }

    /// Where the link is that it speaks of.
    pub(crate) fn link_path(&self) -> Option<&Path> {
        match self {
            Self::Link(link) => Some(link.at()),
            _ => None,
        }
    }

    /// Where the cgroup is that it speaks of.
    pub(crate) fn cgroup(&self) -> Option<&Path> {
        match self {
            Self::Cgroup(cgroup) => Some(cgroup.path()),
            _ => None,
        }
    }

    /// A link at `at` to what the VMM makes as `to`.
    pub(crate) fn link(at: &Path, to: &Path) -> Self {
        Self::Link(Link::new(at, to))
    }

    fn thing(&self) -> &dyn Thing {
        match self {
            Self::Socket(socket) => socket,
            Self::Cgroup(cgroup) => cgroup,
            Self::Link(link) => link,
            Self::Uid(uid) => uid,
        }
    }
}

/// Those of `claims` that can be made: where something stands already it is somebody else's, and the VM will not get it.
pub(crate) fn makeable(claims: Vec<Claim>, working_directory: &Path) -> Vec<Claim> {
    claims.into_iter().filter(|claim| claim.thing().is_makeable(working_directory)).collect()
}

/// Makes what was claimed, the first first.
///
/// # Errors
/// The thing that could not be made. Those before it are there, to be undone with it.
pub(crate) fn make_all(claims: &[Claim], working_directory: &Path) -> Result<(), NotMade> {
    claims.iter().try_for_each(|claim| {
        let (thing, is_lease) = (claim.thing(), matches!(claim, Claim::Uid(_)));
        let made = thing.make(working_directory);
        made.map_err(|source| NotMade { what: thing.describe(working_directory), is_lease, source })
    })
}

/// Has what was claimed follow its VM, whose VMM's working directory is `working_directory` now.
pub(crate) fn follow(claims: &[Claim], working_directory: &Path) {
    for claim in claims {
        let Claim::Link(link) = claim else { continue };
        link.mend(working_directory).unwrap_or_else(|error| {
            log::warn!("cannot mend {}: {error}", link.describe(working_directory));
        });
    }
}

/// Undoes what was claimed, the last first, but cgroups before everything else: what is left in them ends with them. What
/// cannot be undone is in the log, and keeps nothing else from being undone, except that a user whose processes may still
/// run is no other VM's.
pub(crate) fn undo_all(claims: &[Claim], working_directory: &Path) {
    let mut have_ended = true;
    for claim in in_order_of_undoing(claims) {
        let thing = claim.thing();
        if !have_ended && matches!(claim, Claim::Uid(_)) {
            log::warn!("{} is not given to another VM", thing.describe(working_directory));
        } else if let Err(error) = thing.undo(working_directory) {
            have_ended &= claim.cgroup().is_none();
            log::warn!("cannot remove {}: {error}", thing.describe(working_directory));
        }
    }
}

fn in_order_of_undoing(claims: &[Claim]) -> impl Iterator<Item = &Claim> {
    let of =
        |are_cgroups: bool| claims.iter().rev().filter(move |claim| claim.cgroup().is_some() == are_cgroups);
    of(true).chain(of(false))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scratch::Scratch;
    use std::os::unix::net::UnixListener;

    fn directory() -> Scratch {
        let scratch = Scratch::new();
        std::fs::create_dir(&scratch).unwrap();
        scratch
    }

    #[test]
    fn what_nobody_uses_is_undone_and_what_somebody_uses_stays() {
        let scratch = directory();
        let claims = ["dead.sock", "alive.sock", "never.sock", "file"].map(Claim::socket);
        drop(UnixListener::bind(scratch.join("dead.sock")).unwrap());
        let _alive = UnixListener::bind(scratch.join("alive.sock")).unwrap();
        std::fs::write(scratch.join("file"), "no socket").unwrap();
        for _ in 0..2 {
            undo_all(&claims, &scratch);
            let found = claims.each_ref().map(|claim| claim.thing().find(&scratch).unwrap());
            assert_eq!(found, [Found::Absent, Found::Foreign, Found::Absent, Found::Foreign]);
        }
    }

    #[test]
    fn processes_end_with_their_cgroups_before_anything_that_they_use_is_given_away() {
        let cgroup = |path: &str| Claim::Cgroup(Cgroup::new(path.into(), Making::default()));
        let claims = [Claim::socket("one"), cgroup("/a"), cgroup("/b"), Claim::socket("two")];
        let order = in_order_of_undoing(&claims).cloned().collect::<Vec<_>>();
        assert_eq!(order, [cgroup("/b"), cgroup("/a"), Claim::socket("two"), Claim::socket("one")]);
    }

    #[test]
    fn a_place_that_is_taken_is_not_claimed() {
        let scratch = directory();
        let [taken, free] = ["taken.sock", "free.sock"].map(|name| scratch.join(name));
        drop(UnixListener::bind(&taken).unwrap());
        let claims = vec![Claim::socket(&taken), Claim::socket(&free), Claim::socket("own.sock")];
        let own = Path::new("/nowhere");
        assert_eq!(makeable(claims, own), [Claim::socket(&free), Claim::socket("own.sock")]);
    }

    #[test]
    fn a_claim_is_read_as_it_was_written() {
        let claim = Claim::socket("/run/v.sock");
        let text = serde_json::to_string(&claim).unwrap();
        assert_eq!(text, r#"{"socket":{"path":"/run/v.sock"}}"#);
        assert_eq!(serde_json::from_str::<Claim>(&text).unwrap(), claim);
    }
}
