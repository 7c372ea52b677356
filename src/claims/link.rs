//! A link at a path of the operator's, to what a jailed VMM has made where the operator does not look.

use super::{Found, Thing};
use crate::sys::file;
use serde::{Deserialize, Serialize};
use std::fs;
use std::io;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

/// A link from an absolute path to a file in the VMM's working directory.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Link {
    at: PathBuf,
    to: PathBuf,
}

impl Link {
    pub(super) fn new(at: &Path, to: &Path) -> Self {
        Self { at: at.to_path_buf(), to: to.to_path_buf() }
    }

    /// Where it is.
    pub(crate) fn at(&self) -> &Path {
        &self.at
    }

    /// Whether it led to the same before the VM got another id, for which nobody has mended it.
    fn is_of_a_former_name(&self, target: &Path, working_directory: &Path) -> bool {
        let vms = |working: &Path| Some(working.parent()?.parent()?.to_path_buf());
        let Some(working) = target.ancestors().nth(self.to.components().count()) else { return false };
        let is_like_it = working.file_name() == working_directory.file_name() && target.ends_with(&self.to);
        is_like_it && vms(working) == vms(working_directory) && target.symlink_metadata().is_err()
    }

    /// Has it lead into `working_directory`, which was called something else before.
    pub(crate) fn mend(&self, working_directory: &Path) -> io::Result<()> {
        if self.find(working_directory)? != Found::Ours {
            return Ok(());
        }
        let aside = self.at.with_extension("mvm-new");
        symlink(working_directory.join(&self.to), &aside)?;
        file::exchange_or_rename(&aside, &self.at)?;
        let _the_former_one = fs::remove_file(&aside);
        Ok(())
    }
}

impl Thing for Link {
    fn find(&self, working_directory: &Path) -> io::Result<Found> {
        match fs::read_link(&self.at) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Found::Absent),
            Err(error) if error.kind() == io::ErrorKind::InvalidInput => Ok(Found::Foreign),
            Err(error) => Err(error),
            Ok(target) if target == working_directory.join(&self.to) => Ok(Found::Ours),
            Ok(target) if self.is_of_a_former_name(&target, working_directory) => Ok(Found::Ours),
            Ok(_) => Ok(Found::Foreign),
        }
    }

    /// Always: that something stands there already is for whoever makes it to tell.
    fn is_makeable(&self, _working_directory: &Path) -> bool {
        true
    }

    fn make(&self, working_directory: &Path) -> io::Result<()> {
        match symlink(working_directory.join(&self.to), &self.at) {
            Err(_) if matches!(self.find(working_directory), Ok(Found::Ours)) => Ok(()),
            made => made,
        }
    }

    fn undo(&self, working_directory: &Path) -> io::Result<()> {
        if self.find(working_directory)? != Found::Ours {
            return Ok(());
        }
        match fs::remove_file(&self.at) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            removed => removed,
        }
    }

    fn describe(&self, _working_directory: &Path) -> String {
        format!("the link {}", self.at.display())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scratch::Scratch;

    #[test]
    fn a_link_follows_its_vm_to_another_id_and_no_other_one_is_touched() {
        let scratch = Scratch::new();
        let [before, after, other] = ["a", "b", "c"].map(|id| scratch.join("vms").join(id).join("vmm"));
        fs::create_dir_all(&before).unwrap();
        fs::create_dir_all(&other).unwrap();
        [&before, &other].into_iter().for_each(|working| fs::write(working.join("v"), "").unwrap());
        let link = Link::new(&scratch.join("v.sock"), Path::new("v"));
        link.make(&before).unwrap();
        link.make(&before).unwrap();
        assert_eq!(link.find(&other).unwrap(), Found::Foreign);
        assert_eq!(link.make(&other).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        fs::rename(before.parent().unwrap(), after.parent().unwrap()).unwrap();
        assert_eq!(link.find(&after).unwrap(), Found::Ours);
        link.mend(&after).unwrap();
        assert_eq!(fs::read_link(&link.at).unwrap(), after.join("v"));
        link.undo(&other).unwrap();
        assert_eq!(link.find(&after).unwrap(), Found::Ours);
        link.undo(&after).unwrap();
        link.undo(&after).unwrap();
        assert_eq!(link.find(&after).unwrap(), Found::Absent);
        fs::write(&link.at, "somebody else's").unwrap();
        link.undo(&after).unwrap();
        assert_eq!(link.find(&after).unwrap(), Found::Foreign);
    }
}
