//! ACCESS (RFC 1813 §3.3.4, `access(2)`).

use magma_common::attr::Kind;
use magma_common::proto::operation::{
    ACCESS_DELETE, ACCESS_EXECUTE, ACCESS_READ, ACCESS_WRITE, Access, AccessReply,
};

use super::permission::{self, EXECUTE, READ, WRITE};
use super::plan::{Caller, Plan, Stop};

pub(super) fn access(plan: &mut Plan<'_>, caller: &Caller<'_>, op: &Access) -> Result<AccessReply, Stop> {
    let row = plan.row(&op.handle)?;
    let mut granted = 0;
    for (bit, wanted) in [
        (ACCESS_READ, READ),
        (ACCESS_WRITE, WRITE),
        (ACCESS_EXECUTE, EXECUTE),
        (ACCESS_DELETE, WRITE | EXECUTE),
    ] {
        let applies = bit != ACCESS_DELETE || row.kind == Kind::Directory;
        if op.mask & bit != 0 && applies && permission::granted(plan, caller.credentials, &row, wanted)? {
            granted |= bit;
        }
    }
    Ok(AccessReply { granted, attr: plan.attr(&row)? })
}
