//! Giving a VM another id, whatever it is doing: its directory gets another name, and the VMM works in it still.
//!
//! The journal names both ids before the directory is renamed, so a VM whose owner dies in between is found under
//! whichever name its directory has then.

use super::{Error, Place, Reason, Turn, Vm, VmId, directory};
use crate::causes::with_causes;
use crate::claims;
use crate::firecracker::VmmFiles;
use crate::observe::events::EventKind;
use crate::operation::Operation;
use crate::sys::sync::lock;
use std::io;
use std::sync::Arc;

impl Vm {
    /// Calls it `id` from now on. The caller sees to it that no other VM of its runtime does.
    pub(crate) fn rename(&self, id: &VmId) -> Result<(), Error> {
        let mut turn = self.begin(Operation::Rename, self.spec.options.deadlines.request())?;
        self.move_to(id, &mut turn)?;
        // On a full disk the journal goes on naming both, and either is right.
        let _settled = self.note(&mut turn, |record| record.renamed_from = None);
        Ok(())
    }

    /// The same for whoever has the turn, and writes the journal next: it still names both ids.
    pub(super) fn move_to(&self, id: &VmId, turn: &mut Turn<'_>) -> Result<(), Error> {
        let before = self.place();
        let files = before.files.moved_to(before.files.directory().with_file_name(id.as_str()));
        self.note(turn, |record| record.rename(id))?;
        let (from, to, is_in_use) = (before.files.directory(), files.directory(), self.is_up());
        if let Err(source) = directory::rename(from, to, is_in_use, turn.limits()) {
            let undone = self.note(turn, |record| record.rename(&before.id));
            undone.unwrap_or_else(|error| log::warn!("{}", with_causes(&error)));
            return Err(self.error(turn.operation(), not_renamed(&files, source)));
        }
        if let Some(vmm) = turn.own_mut().vmm.as_mut() {
            vmm.moved(files.clone());
        }
        claims::follow(
            turn.own().record.vmm.as_ref().map_or(&[], |vmm| &vmm.claims),
            files.working_directory(),
        );
        self.shared.holdings.rename(self.token, id);
        *lock(&self.place) = Arc::new(Place { id: id.clone(), files });
        self.tell(EventKind::Renamed(before.id.to_string()));
        self.shared.events.log();
        Ok(())
    }
}

fn not_renamed(files: &VmmFiles, source: io::Error) -> Reason {
    let path = files.directory().to_path_buf();
    match source.kind() {
        io::ErrorKind::AlreadyExists => Reason::DirectoryExists { path },
        _ => Reason::File { action: "rename its directory to", path, source },
    }
}
