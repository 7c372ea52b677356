//! The state directory and its file system. One that is not there yet would be made: then what is above it is looked at.

use super::Finding;
use super::Purpose::{Disks, Run};
use super::Status::{Limited, No};
use crate::causes::with_causes;
use crate::journal::{StateDirectory, StateError};
use crate::json::object;
use crate::sys::{access, filesystem, mask, transfer};
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

pub(super) fn look(directory: Option<&Path>) -> Vec<Finding> {
    let Some(directory) = directory else {
        return vec![
            Finding::yes("state_directory", Run, "no state directory was named")
                .but(Limited, "name the directory, to have it and its file system looked at"),
        ];
    };
    let found = match StateDirectory::find(directory) {
        Ok(_) => Ok(directory),
        Err(StateError::Use { source, .. }) if source.kind() == io::ErrorKind::NotFound => to_be(directory),
        Err(error) => Err((with_causes(&error), None)),
    };
    match found {
        Err((problem, advice)) => {
            let advice = advice.unwrap_or("use a directory of this user's own, or none that is there");
            vec![Finding::yes("state_directory", Run, problem).but(No, advice)]
        }
        Ok(place) => {
            vec![usable(directory, place), reflinks(place)]
        }
    }
}

type Problem = (String, Option<&'static str>);

/// The nearest directory above, in which it would be made.
fn to_be(directory: &Path) -> Result<&Path, Problem> {
    let above = directory.ancestors().skip(1).find(|above| above.is_dir());
    let above = above.ok_or_else(|| (format!("there is nothing above {}", directory.display()), None))?;
    let advice = "make it as root and give it to this user, or choose another one";
    let refused = |error| {
        (format!("{} cannot be made: {}: {error}", directory.display(), above.display()), Some(advice))
    };
    access::may_make_in(above).map(|()| above).map_err(refused)
}

fn usable(directory: &Path, place: &Path) -> Finding {
    const FEW: u64 = 1 << 30;
    let shown = directory.display();
    let space = filesystem::space(place).ok();
    let text = match directory == place {
        true => format!("{shown} can be used"),
        false => format!("{shown} can be made"),
    };
    let free = space.map(|space| space.free_bytes);
    let about = fs::metadata(directory).ok();
    let finding = Finding::yes("state_directory", Run, text).seeing(object! { "path": shown.to_string(), "owner": about.as_ref().map(MetadataExt::uid), "mode": about.map(|about| format!("{:o}", about.mode() & 0o7777)), "free_bytes": free, "free_files": space.map(|space| space.free_files) });
    match free.is_some_and(|free| free < FEW) {
        true => finding.but(Limited, "make room: less than 1 GiB is free there"),
        false => finding,
    }
}

/// What file systems say that cannot do it.
fn is_impossible(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EOPNOTSUPP | libc::EXDEV | libc::EINVAL | libc::ENOTTY))
}

/// Tried with two files that have no name, and so are gone whatever happens.
fn reflinks(place: &Path) -> Finding {
    let nameless = || {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .mode(0o600)
            .custom_flags(libc::O_TMPFILE)
            .open(place)?;
        mask::without_sigxfsz(|| io::Write::write_all(&mut &file, &[1; 4096])).map(|()| file)
    };
    let pair = nameless().and_then(|from| nameless().map(|to| (from, to)));
    let cloned = pair.and_then(|(from, to): (File, File)| transfer::reflink(&from, &to));
    let finding = Finding::yes("reflinks", Disks, "copies of disks share their blocks");
    match cloned {
        Ok(()) => finding,
        Err(error) if !is_impossible(&error) => finding
            .reading(format!("it could not be tried: {error}"))
            .but(Limited, "make the state directory usable, and check again"),
        Err(error) => finding
            .reading(format!("copies of disks take time and room, for there are no reflinks ({error})"))
            .but(Limited, "put the state directory and images on one xfs (mkfs.xfs -m reflink=1) or btrfs"),
    }
}
