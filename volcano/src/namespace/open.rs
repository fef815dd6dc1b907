//! OPEN: checks once what later reads and writes of the open flare are not checked for again.

use magma_common::attr::{Attr, Kind};
use magma_common::error::FlareError;
use magma_common::proto::operation::Open;

use super::permission::{self, EXECUTE, READ, WRITE};
use super::plan::{Caller, Plan, Stop};
use super::privileges;
use super::stripes::cut::resize;

pub(super) fn open(plan: &mut Plan<'_>, caller: &Caller<'_>, op: &Open) -> Result<Attr, Stop> {
    let mut row = plan.row(&op.handle)?;
    let writes = op.write || op.truncate;
    match row.kind {
        Kind::Directory if writes => return Err(FlareError::IsDirectory.into()),
        Kind::Directory if op.execute => return Err(FlareError::AccessDenied.into()),
        Kind::File | Kind::Directory => {}
        Kind::Symlink => return Err(FlareError::SymlinkLoop.into()),
        // What a FIFO, socket or device does when it is opened is the client's own business.
        Kind::Fifo | Kind::Socket | Kind::CharDevice | Kind::BlockDevice => {
            return Err(FlareError::NotSupported.into());
        }
    }
    let wanted = [(op.read, READ), (writes, WRITE), (op.execute, EXECUTE)]
        .into_iter()
        .filter_map(|(asked, bit)| asked.then_some(bit))
        .sum();
    permission::require(plan, caller.credentials, &row, wanted)?;
    if op.truncate {
        privileges::strip_by_write(plan, caller.credentials, &mut row)?;
        resize(plan, &mut row, 0)?;
        plan.touch_content(&mut row);
        plan.put(row.clone());
    }
    plan.attr(&row)
}
