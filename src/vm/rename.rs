//! Giving a VM another id, whatever it is doing: its directory gets another name, and the VMM works in it still.
//!
//! The journal names both ids before the directory is renamed, so a VM whose owner dies in between is found under
//! whichever name its directory has then.

use super::turn::Turn;
use super::{Error, Place, Vm, VmId, directory};
use crate::causes::with_causes;
use crate::firecracker::VmmFiles;
use crate::observe::events::What;
use crate::sys::sync::lock;
use std::io;
use std::sync::Arc;

impl Vm {
    /// Calls it `id` from now on. The caller sees to it that no other VM of its runtime does.
    pub(crate) fn rename(&self, id: &VmId) -> Result<(), Error> {
        let turn = self.begin("rename", self.spec.options.deadlines.request())?;
        self.move_to(id, &turn)?;
        // On a full disk the journal goes on naming both, and either is right.
        let _settled = self.note(|record| record.renamed_from = None);
        Ok(())
    }

    /// The same for whoever has the turn, and writes the journal next: it still names both ids.
    pub(super) fn move_to(&self, id: &VmId, turn: &Turn<'_>) -> Result<(), Error> {
        let before = self.place();
        let files = VmmFiles::new(before.files.directory().with_file_name(id.as_str()));
        self.note(|record| record.rename(id))?;
        let (from, to, is_in_use) = (before.files.directory(), files.directory(), self.is_up());
        if let Err(source) = directory::rename(from, to, is_in_use, turn.limits()) {
            let undone = self.note(|record| record.rename(&before.id));
            undone.unwrap_or_else(|error| log::warn!("{}", with_causes(&error)));
            return Err(self.not_renamed(id, &files, source));
        }
        if let Some(vmm) = lock(&self.vmm).as_mut() {
            vmm.moved(files.clone());
        }
        *lock(&self.place) = Arc::new(Place { id: id.clone(), files });
        self.tell(What::Renamed(before.id.to_string()));
        self.shared.events.log();
        Ok(())
    }

    fn not_renamed(&self, id: &VmId, files: &VmmFiles, source: io::Error) -> Error {
        let path = files.directory().to_path_buf();
        match source.kind() {
            io::ErrorKind::AlreadyExists => {
                Error::DirectoryExists { id: id.clone(), operation: "rename to", path }
            }
            _ => Error::Directory { action: "rename the directory of a VM to", path, source },
        }
    }
}
