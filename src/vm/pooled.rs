//! A VM that waits in a pool, and its way out: another id, what its taker wants changed, and on it goes.

use super::restore::{After, DriveOverride};
use super::spec::OWNER_DATA_KEY;
use super::{Error, Guest, OwnerData, State, Turn, Vm, VmId};
use crate::firecracker::Request;
use crate::journal::{PoolRecord, Stage};
use crate::operation::Operation;
use crate::settings::{self, Section};
use serde_json::{Map, Value};
use std::path::Path;

/// What its taker wants of a VM.
#[derive(Debug)]
pub(crate) struct TakeOptions {
    after: After,
    drives: Vec<DriveOverride>,
    mmds: Option<Map<String, Value>>,
    owner_data: Option<OwnerData>,
}

impl TakeOptions {
    /// Reads them; relative paths are relative to `base`.
    pub(crate) fn read(mut given: Section, base: &Path) -> Result<Self, settings::Error> {
        let options = Self {
            after: After::take(&mut given)?,
            drives: DriveOverride::take(&mut given, base)?,
            mmds: given.take("mmds")?,
            owner_data: given.take(OWNER_DATA_KEY)?,
        };
        given.finish().map(|()| options)
    }
}

impl Vm {
    /// Calls it `id`, changes what is to be changed, and lets its guest go on, or start.
    pub(crate) fn leave_pool(&self, id: &VmId, options: &TakeOptions) -> Result<(), Error> {
        let mut turn = self.begin(Operation::Take, self.spec.options.deadlines.start())?;
        // What is half handed over has no part of its taker's wishes for certain: without its owner it is undone.
        let record = &mut turn.own_mut().record;
        (record.pool, record.stage) = (None, Stage::Creating);
        if let Some(data) = options.owner_data.clone() {
            record.owner_data = data.into_text();
        }
        self.move_to(id, &mut turn)?;
        self.fulfil(options, &mut turn)?;
        self.note(&mut turn, |record| (record.stage, record.renamed_from) = (Stage::Present, None))
    }

    /// What its taker wants.
    fn fulfil(&self, options: &TakeOptions, turn: &mut Turn<'_>) -> Result<(), Error> {
        for drive in &options.drives {
            let change = (drive.drive_id.as_str(), drive.path_on_host.as_path());
            self.exchange_drive(change, Map::new(), turn)?;
        }
        if let Some(document) = &options.mmds {
            // What tells it from its siblings is there already, and stays.
            self.demand(&Request::merge_metadata(&Value::Object(document.clone())), turn)?;
        }
        match (options.after, self.state()) {
            (After::Resume, State::Paused) => self.switch(Guest::Running, turn),
            (After::Resume, State::Created) => self.boot(turn),
            _ => Ok(()),
        }
    }

    /// The pool that it waits in.
    pub(crate) fn pool(&self) -> Option<PoolRecord> {
        self.recorded().pool.clone()
    }

    /// Whether it is still as a pool's members are: held, or not started.
    pub(crate) fn is_ready(&self) -> bool {
        let restored = self.recorded().restored.is_some();
        self.state() == if restored { State::Paused } else { State::Created }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::reference;

    #[test]
    fn the_reference_has_the_options_of_a_take() {
        let given = r#"{"drives":[{"drive_id":"a","path_on_host":"/a"}]}"#;
        let read = || TakeOptions::read(Section::parse(Some(given), "options")?, Path::new("/"));
        reference::hold(reference::TAKE, read);
    }
}
