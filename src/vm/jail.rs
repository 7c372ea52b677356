//! The jail of a VM: its user leased, its root directory furnished before each start, and more lent while the VMM lives.
//!
//! How a thing is lent is the business of `host::jail`, and how a VMM gets into its jail that of `firecracker::jailer`.

use super::spec::{JailOptions, OWN_VSOCK};
use super::{Error, Reason, Turn, Vm};
use crate::claims::{Claim, Uid};
use crate::firecracker::{Confinement, HostThing, LENT_MEMORY, LENT_STATE, LOG};
use crate::host::VmmPath;
use crate::host::files::View;
use crate::host::jail::{Filter, Jail, Lent, Loan, SAVED_IN_ROOT, Whose};
use crate::operation::Operation;
use crate::pager;
use crate::process::{Processes, Rights};
use crate::sys::{user, visit};
use std::fs::OpenOptions;
use std::io;
use std::ops::RangeInclusive;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// What holds for the jails of all VMs of a runtime.
#[derive(Clone, Debug)]
pub(crate) struct JailDefaults {
    /// The program `jailer`; nothing for the one beside the VMM's executable.
    pub(crate) jailer: Option<PathBuf>,
    /// The users that VMMs run as.
    pub(crate) uids: RangeInclusive<u32>,
}

impl Default for JailDefaults {
    /// Above what systemd gives to containers and users, and below what is no valid number everywhere.
    fn default() -> Self {
        const FIRST: u32 = 1_879_048_192;
        Self { jailer: None, uids: FIRST..=FIRST + 0xffff }
    }
}

impl Vm {
    /// What would make its jail fail is told before anything is made.
    pub(super) fn check_jail(&self, operation: Operation) -> Result<(), Error> {
        let Some(options) = &self.spec.options.jail else { return Ok(()) };
        let missing = user::missing_capabilities(&user::NEEDED_BY_A_JAIL);
        if !missing.is_empty() {
            return Err(self.error(operation, Reason::NoPrivilege { missing }));
        }
        let jailer = self.jailer(options, operation)?;
        let found = std::fs::metadata(&jailer);
        found.map(drop).map_err(|source| self.error(operation, Reason::Jailer { path: jailer, source }))
    }

    /// What it owns besides its sockets when it is jailed: a user, and a link to the vsock's socket.
    pub(super) fn jail_claims(&self, operation: Operation) -> Result<Vec<Claim>, Error> {
        let Some(options) = &self.spec.options.jail else { return Ok(Vec::new()) };
        let uids = options.uid.map_or_else(|| self.shared.jail.uids.clone(), |uid| uid..=uid);
        let free = Uid::free_one_of(&uids).map_err(|source| {
            let path = PathBuf::from("/dev/urandom");
            self.error(operation, Reason::File { action: "read", path, source })
        })?;
        let (first, last) = (*uids.start(), *uids.end());
        let uid = free.ok_or_else(|| self.error(operation, Reason::NoUid { first, last }))?;
        let link = self.spec.vsock_looked_for_at().map(|at| Claim::link(at, Path::new(OWN_VSOCK)));
        Ok(std::iter::once(Claim::Uid(uid)).chain(link).collect())
    }

    /// Leases another user, of which the journal says so first.
    pub(super) fn lease_another(&self, turn: &mut Turn<'_>) -> Result<(), Error> {
        let anew = self.jail_claims(turn.operation())?;
        self.note(turn, |record| {
            if let Some(vmm) = &mut record.vmm {
                vmm.claims.retain(|claim| !matches!(claim, Claim::Uid(_)));
                vmm.claims.extend(anew.into_iter().filter(|claim| matches!(claim, Claim::Uid(_))));
            }
        })
    }

    /// Sees to it that the root directory of its former VMM is there, whose last metrics are still to be read.
    pub(super) fn find_jail(&self, turn: &Turn<'_>) -> Result<(), Error> {
        let found = self.jail(turn).map_or(Ok(()), |jail| jail.make_if_gone());
        found.map_err(|source| self.jail_error(turn.operation(), source))
    }

    /// Furnishes the jail for a VMM that is about to be started; nothing when it is to have none.
    pub(super) fn confine(
        &self,
        metrics: Option<&str>,
        turn: &Turn<'_>,
    ) -> Result<Option<Confinement>, Error> {
        let operation = turn.operation();
        let (Some(options), Some(jail)) = (&self.spec.options.jail, self.jail(turn)) else { return Ok(None) };
        let furnished = jail
            .make(turn.limits().deadline)
            .and_then(|()| std::iter::once(LOG).chain(metrics).try_for_each(|name| jail.give_file(name)));
        furnished.map_err(|source| self.jail_error(operation, source))?;
        self.make_outputs(operation)?;
        let view = self.view();
        let names = view.all().map_err(|source| self.jail_error(operation, source))?;
        let mut loans = Vec::with_capacity(names.len());
        for name in &names {
            let target = view.target_of(name);
            // What is not there the VMM tells, if it looks for it: a restored one needs no kernel.
            if !target.exists() {
                continue;
            }
            if let Lent::Mount(mount) = self.lend(&jail, (name, &target), &view, operation)? {
                loans.push(mount);
            }
        }
        Ok(Some(Confinement {
            jailer: self.jailer(options, operation)?,
            user: jail.user(),
            netns: options.netns.clone(),
            resource_limits: options.resource_limits.arguments(),
            // Without Firecracker's filter it may start others, which only the kernel ends for certain.
            processes: if self.spec.options.changes_the_filter() {
                Processes::Own
            } else {
                options.processes
            },
            loans,
        }))
    }

    /// The VMM is to have the pager's socket.
    pub(super) fn give_pager_socket(&self, turn: &Turn<'_>) -> Result<(), Error> {
        let Some(jail) = self.jail(turn) else { return Ok(()) };
        jail.give(pager::SOCKET).map_err(|source| self.jail_error(turn.operation(), source))
    }

    /// Lets a jailed VMM find what its view says that `name` is. Nothing is to be done for another one.
    pub(super) fn lend_more(&self, name: &VmmPath, turn: &Turn<'_>) -> Result<(), Error> {
        let (Some(jail), Some(vmm)) = (self.jail(turn), turn.own().vmm.as_ref()) else { return Ok(()) };
        let (view, operation) = (self.view(), turn.operation());
        let lent = self.lend(&jail, (name, &view.target_of(name)), &view, operation)?;
        let Lent::Mount(mount) = lent else { return Ok(()) };
        let attached =
            mount.below(Path::new("/")).and_then(|graft| visit::attach(vmm.process().pidfd(), &graft));
        attached.map_err(|source| self.jail_error(turn.operation(), source))
    }

    /// Lets a jailed VMM write to `directory`.
    pub(super) fn lend_for_saving(&self, directory: &Path, turn: &Turn<'_>) -> Result<(), Error> {
        let (Some(jail), Some(vmm)) = (self.jail(turn), turn.own().vmm.as_ref()) else { return Ok(()) };
        let pidfd = vmm.process().pidfd();
        // What a former snapshot has left there.
        let _detached = visit::detach(pidfd, SAVED_IN_ROOT);
        let lent = jail.lend_directory(directory).and_then(|mount| mount.below(Path::new("/")));
        let attached = lent.and_then(|graft| visit::attach(pidfd, &graft));
        attached.map_err(|source| self.jail_error(turn.operation(), source))
    }

    /// Takes back the directory that was lent for a snapshot, with what the VMM has written.
    pub(super) fn take_back_saved(
        &self,
        directory: &Path,
        expected: &[&Path],
        turn: &Turn<'_>,
    ) -> Result<(), Error> {
        let (Some(_), Some(vmm)) = (self.jail(turn), turn.own().vmm.as_ref()) else { return Ok(()) };
        // A VMM that has ended sees nothing any more.
        let _detached = visit::detach(vmm.process().pidfd(), SAVED_IN_ROOT);
        let expected = expected.iter().filter_map(|path| path.file_name()).collect::<Vec<_>>();
        Jail::take_back(directory, &expected).map_err(|source| self.jail_error(turn.operation(), source))
    }

    /// Files that the VMM would make itself if it saw where.
    fn make_outputs(&self, operation: Operation) -> Result<(), Error> {
        for output in self.spec.uses().iter().filter(|used| used.thing == HostThing::Output) {
            // What is there may be anything, and is for the VMM to judge.
            let made = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&output.name);
            let made = made.map(drop).or_else(|error| match error.kind() {
                io::ErrorKind::AlreadyExists => Ok(()),
                _ => Err(error),
            });
            made.map_err(|source| {
                let path = output.name.clone();
                self.error(operation, Reason::File { action: "create", path, source })
            })?;
        }
        Ok(())
    }

    /// Its jail, as its journal says.
    fn jail(&self, turn: &Turn<'_>) -> Option<Jail> {
        self.spec.options.jail.as_ref()?;
        let claims = &turn.own().record.vmm.as_ref()?.claims;
        let user = claims.iter().find_map(|claim| match claim {
            Claim::Uid(uid) => Some(uid.number()),
            _ => None,
        })?;
        Some(Jail::new(self.files().working_directory().to_path_buf(), user))
    }

    fn lend(
        &self,
        jail: &Jail,
        (name, target): (&VmmPath, &Path),
        view: &View,
        operation: Operation,
    ) -> Result<Lent, Error> {
        let whose = if view.is_own(name) { Whose::Own } else { Whose::Operators };
        // A snapshot that is loaded belongs to all who will load it.
        let is_loaded = [LENT_STATE, LENT_MEMORY].map(Path::new).contains(&name.as_path());
        let rights = if is_loaded { Rights::Read } else { self.spec.rights_to(name) };
        let changes = self.spec.options.changes_the_filter();
        let filter = if changes { Filter::Unknown } else { Filter::Firecrackers };
        let loan = Loan { name, target, rights, whose, filter };
        jail.lend(&loan).map_err(|error| self.error(operation, error))
    }

    /// The one that was named, or the one beside the VMM's executable.
    fn jailer(&self, options: &JailOptions, operation: Operation) -> Result<PathBuf, Error> {
        if let Some(named) = options.jailer.as_ref().or(self.shared.jail.jailer.as_ref()) {
            return Ok(named.clone());
        }
        Ok(self.binary(operation)?.with_file_name("jailer"))
    }

    fn jail_error(&self, operation: Operation, source: io::Error) -> Error {
        let path = self.files().working_directory().to_path_buf();
        self.error(operation, Reason::File { action: "furnish the jail", path, source })
    }
}
