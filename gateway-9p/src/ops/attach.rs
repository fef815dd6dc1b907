//! Tattach: a user begins at the root of a tree.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use magma_common::attr::Kind;
use magma_common::client::Context;
use magma_common::handle::Handle;
use magma_common::proto::operation::Getattr;
use magma_common::proto::{Credentials, Durability};

use super::{Session, qid};
use crate::errno::{Refusal, refusals};
use crate::export::Tree;
use crate::fid::{Fid, Role, Target};
use crate::user::User;
use crate::wire::Reply;
use crate::wire::session::{NOFID, Rattach, Tattach};

impl Session {
    pub(super) async fn attach(&self, attach: Tattach) -> Result<Reply, Refusal> {
        if attach.afid != NOFID {
            return Err(refusals::BAD_FID);
        }
        self.fids.check_free(attach.fid)?;
        let tree = Tree::parse(attach.aname.as_bytes())?;
        let export = &self.gateway.export;
        if !export.contains(&tree) {
            return Err(refusals::NOT_EXPORTED);
        }
        // To let somebody attach is the operator's decision; the directories above the tree are not asked.
        let operator = Context {
            credentials: Arc::new(Credentials::ROOT),
            durability: Durability::Replicated,
            deadline: None,
            call: None,
        };
        let client = &self.gateway.client;
        let attr = if tree.is_root() {
            client.call(&operator, Getattr { handle: Handle::root() }).await?
        } else {
            client.walk(&operator, &tree.path()).await?
        };
        if attr.kind != Kind::Directory {
            return Err(refusals::NOT_DIRECTORY);
        }
        let user = User::attach(export, attach.uname.as_bytes(), attach.n_uname, &self.gateway.database);
        let target = Target { handle: attr.handle, kind: attr.kind, user: Arc::new(user), root: attr.handle };
        self.fids.insert(attach.fid, Fid::new(target, None, Role::Path))?;
        self.attached.store(true, Ordering::Relaxed);
        Ok(Rattach { qid: qid(&attr) }.into())
    }
}
