//! Tlopen and Tlcreate.

use std::sync::Arc;

use magma_common::attr::{Attr, Kind, MODE_MASK, SetAttr};
use magma_common::client::Client;
use magma_common::error::FlareError;
use magma_common::handle::Handle;
use magma_common::name::Name;
use magma_common::proto::Failure;
use magma_common::proto::limits::MAX_IO;
use magma_common::proto::operation::{Create, CreateHow, Lookup, Open};

use super::{Session, call, name, qid, to_the_end};
use crate::errno::{Refusal, refusals};
use crate::fid::{OpenGuard, Opened, Place, Role, Target};
use crate::flags::OpenFlags;
use crate::user::User;
use crate::wire::Reply;
use crate::wire::io::{Rlcreate, Rlopen, Tlcreate, Tlopen};

/// Reads and writes go best in multiples of this, in bytes.
const PAGE: u32 = 4096;
/// How often a create looks again at a name that comes and goes.
const CREATE_ATTEMPTS: usize = 16;

impl Session {
    pub(super) async fn lopen(&self, open: &Tlopen) -> Result<Reply, Refusal> {
        let fid = self.fids.get(open.fid)?;
        let flags = OpenFlags::parse(open.flags).ok_or(refusals::INVALID)?;
        let target = fid.file()?;
        if fid.is_open() {
            return Err(refusals::BAD_FID);
        }
        if flags.changes() {
            self.check_writable()?;
        }
        let (opened, attr) = self.open(target, flags).await?;
        self.fids.replace(open.fid, &fid, fid.with_role(Role::Open(opened)))?;
        Ok(Rlopen { qid: qid(&attr), iounit: self.iounit() }.into())
    }

    async fn open(&self, target: &Target, flags: OpenFlags) -> Result<(Opened, Attr), Refusal> {
        match target.kind {
            Kind::Symlink => return Err(refusals::IS_SYMLINK),
            Kind::Directory if flags.changes() => return Err(refusals::IS_DIRECTORY),
            Kind::Directory => {}
            _ if flags.directory => return Err(refusals::NOT_DIRECTORY),
            Kind::File | Kind::Fifo | Kind::Socket | Kind::CharDevice | Kind::BlockDevice => {}
        }
        let (client, user, handle) = (self.gateway.client.clone(), Arc::clone(&target.user), target.handle);
        to_the_end(async move { open_at_volcano(client, &user, handle, flags).await }).await
    }

    /// The fid becomes the new file. If the name exists, it is opened as `open(2)` with `O_CREAT` does.
    pub(super) async fn lcreate(&self, create: Tlcreate) -> Result<Reply, Refusal> {
        let fid = self.fids.get(create.fid)?;
        let flags = OpenFlags::parse(create.flags).ok_or(refusals::INVALID)?;
        let dir = fid.dir()?;
        if fid.is_open() {
            return Err(refusals::BAD_FID);
        }
        self.check_writable()?;
        let place = Place { dir: dir.handle, name: name(&create.name)? };
        for _ in 0..CREATE_ATTEMPTS {
            let made = self.create(&dir.user, &place, create.mode, create.gid, flags).await;
            let (opened, attr) = match made {
                Err(refusal) if refusal == refusals::EXISTS && !flags.exclusive => {
                    match self.open_existing(dir, place.name.clone(), flags).await {
                        Err(refusal) if refusal == refusals::NOT_FOUND => continue,
                        other => other?,
                    }
                }
                other => other?,
            };
            let target = Target { handle: attr.handle, kind: attr.kind, ..dir.clone() };
            let file = crate::fid::Fid::new(target, Some(place), Role::Open(opened));
            self.fids.replace(create.fid, &fid, file)?;
            return Ok(Rlcreate { qid: qid(&attr), iounit: self.iounit() }.into());
        }
        Err(FlareError::Busy.into())
    }

    async fn create(
        &self,
        user: &Arc<User>,
        place: &Place,
        mode: u32,
        gid: u32,
        flags: OpenFlags,
    ) -> Result<(Opened, Attr), Refusal> {
        let (client, user) = (self.gateway.client.clone(), Arc::clone(user));
        let create = Create {
            dir: place.dir,
            name: place.name.clone(),
            mode: mode & MODE_MASK,
            umask: 0,
            how: CreateHow::Guarded,
            set: SetAttr::default(),
            open: true,
        };
        to_the_end(async move {
            let made = call(&client, &user, &user.making(gid), create).await?;
            let guard = OpenGuard::new(client, made.attr.handle);
            Ok((Opened::new(guard, flags.read, flags.write, flags.stable), made.attr))
        })
        .await
    }

    async fn open_existing(
        &self,
        dir: &Target,
        name: Name,
        flags: OpenFlags,
    ) -> Result<(Opened, Attr), Refusal> {
        let found = self.call(&dir.user, Lookup { dir: dir.handle, name }).await?.attr;
        let target = Target { handle: found.handle, kind: found.kind, ..dir.clone() };
        self.open(&target, flags).await
    }

    /// The best size of one read or write: pages that fit into a message, in bytes.
    fn iounit(&self) -> u32 {
        let fits = self.largest_payload().saturating_sub(PAGE / 16).min(MAX_IO);
        let pages = fits / PAGE * PAGE;
        if pages == 0 { fits } else { pages }
    }
}

/// Opens a file. Who may execute but not read it may open it for reading: executing reads, and 9P cannot tell the
/// one from the other.
async fn open_at_volcano(
    client: Client,
    user: &User,
    handle: Handle,
    flags: OpenFlags,
) -> Result<(Opened, Attr), Refusal> {
    let context = user.context();
    let wanted =
        Open { handle, read: flags.read, write: flags.write, execute: false, truncate: flags.truncate };
    let attr = match call(&client, user, &context, wanted).await {
        Err(Failure { error: FlareError::AccessDenied, .. }) if !flags.changes() => {
            let execute = Open { handle, read: false, write: false, execute: true, truncate: false };
            let attr = call(&client, user, &context, execute).await?;
            if attr.kind == Kind::Directory {
                client.release(handle);
                return Err(FlareError::AccessDenied.into());
            }
            attr
        }
        other => other?,
    };
    let guard = OpenGuard::new(client, handle);
    Ok((Opened::new(guard, flags.read, flags.write, flags.stable), attr))
}
