//! `inspect`: everything known of a flare, named by its path or its key.

use magma_common::attr::Attr;
use magma_common::handle::BirthNumber;
use magma_common::key::Key;
use magma_common::proto::OpId;
use magma_common::time::Timestamp;

use super::{Stop, about};
use crate::console::admin::{Admin, Inspection};
use crate::console::files::{Files, Place, walk};
use crate::console::output::{Gone, Output};
use crate::console::text;
use crate::rows::{Content, Life, LockRow, ReferenceRow, Striping};

/// Bytes of a block with a checksum of its own.
const BLOCK: u64 = 64 << 10;

pub(super) async fn run(
    files: &impl Files,
    admin: &dyn Admin,
    from: &Place,
    subject: &[u8],
    out: &mut Output,
) -> Result<(), Stop> {
    let shown = text::escape_name(subject);
    let key = if let Ok(key) = shown.parse::<Key>() {
        key
    } else {
        let found =
            walk(files, from, subject, false).await.map_err(|error| about("inspect", subject, error))?;
        field(out, "path", &text::escape_name(&found.place.path())).await?;
        if found.attr.handle.birth == BirthNumber::INTERNAL {
            internal(&found.attr, out).await?;
            return Ok(());
        }
        found.attr.handle.key
    };
    match admin.inspect(&key) {
        Ok(Some(inspection)) => report(&inspection, out).await?,
        Ok(None) => {
            let topology = admin.lava().topology;
            let owner = topology.owner_of(&key).map_or("nobody", |member| &member.nickname);
            let message =
                format!("inspect: no flare with the key {key} is here; its slice is served by {owner}");
            return Err(Stop::Message(message));
        }
        Err(error) => return Err(Stop::Message(format!("inspect: {shown}: {error}"))),
    }
    Ok(())
}

async fn field(out: &mut Output, name: &str, value: &str) -> Result<(), Gone> {
    out.line(&format!("{name:<13} {value}")).await
}

async fn internal(attr: &Attr, out: &mut Output) -> Result<(), Gone> {
    field(out, "key", &attr.handle.key.to_string()).await?;
    field(out, "inode", &attr.handle.ino().0.to_string()).await?;
    field(out, "kind", text::kind(attr.kind)).await?;
    field(out, "content", "made up when it is read").await?;
    field(out, "size", &attr.size.to_string()).await
}

async fn report(inspection: &Inspection, out: &mut Output) -> Result<(), Gone> {
    let row = &inspection.row;
    field(out, "key", &row.key().to_string()).await?;
    field(out, "birth", &text::escape_name(row.birth.as_bytes())).await?;
    field(out, "birth number", &format!("{:016x}", row.birth_number().0)).await?;
    field(out, "inode", &row.handle.ino().0.to_string()).await?;
    field(out, "slice", &inspection.slice.0.to_string()).await?;
    field(out, "kind", text::kind(row.kind)).await?;
    let life = match row.life {
        Life::Named => "named",
        Life::Orphan => "orphan: it has no name and waits until nobody has it open",
        Life::Dying => "dying: it has no name, and its stripes are being removed",
    };
    field(out, "life", life).await?;
    field(out, "mode", &format!("{:04o} {}", row.mode, text::mode(row.kind, row.mode))).await?;
    field(out, "owner", &row.uid.to_string()).await?;
    field(out, "group", &row.gid.to_string()).await?;
    field(out, "links", &row.nlink.to_string()).await?;
    field(out, "device", &text::device(row.rdev)).await?;
    field(out, "size", &row.size.to_string()).await?;
    field(out, "used", &inspection.used.to_string()).await?;
    field(out, "content", &content(row.content)).await?;
    field(out, "striping", &striping(&row.striping)).await?;
    field(out, "entries", &row.entries.to_string()).await?;
    field(out, "next cookie", &row.next_cookie.to_string()).await?;
    field(out, "read", &time(row.atime)).await?;
    field(out, "written", &time(row.mtime)).await?;
    field(out, "changed", &time(row.ctime)).await?;
    field(out, "born", &time(row.btime)).await?;
    field(out, "record", &row.change.to_string()).await?;
    let verifier = row.verifier.map_or_else(|| "none".to_owned(), |verifier| format!("{verifier:016x}"));
    field(out, "verifier", &verifier).await?;
    field(out, "acl", if row.has_acl { "yes" } else { "no" }).await?;
    field(out, "opens", &inspection.opens.to_string()).await?;
    field(out, "references", &inspection.references.len().to_string()).await?;
    for reference in &inspection.references {
        out.line(&format!("  {}", describe_reference(reference))).await?;
    }
    field(out, "xattrs", &inspection.xattrs.len().to_string()).await?;
    for name in &inspection.xattrs {
        out.line(&format!("  {}", text::escape_name(name.as_bytes()))).await?;
    }
    field(out, "locks", &inspection.locks.len().to_string()).await?;
    for lock in &inspection.locks {
        out.line(&format!("  {}", describe_lock(lock))).await?;
    }
    Ok(())
}

fn content(content: Content) -> String {
    match content {
        Content::Inline => "in the row".to_owned(),
        Content::Body { body, high } => {
            let blocks = high.div_ceil(BLOCK);
            format!("body {:016x}, written up to {high}, {blocks} blocks of 64 KiB", body.0)
        }
    }
}

fn striping(striping: &Striping) -> String {
    match striping {
        Striping::Whole => "none".to_owned(),
        Striping::Head(head) => {
            let dying = head.dying.map_or(String::new(), |first| format!(", dying from number {first} on"));
            format!("units of {}, {} stripes, cut number {}{dying}", head.unit, head.count, head.cut)
        }
        Striping::Stripe { cut, .. } => format!("a stripe, cut number {cut}"),
    }
}

fn describe_reference(reference: &ReferenceRow) -> String {
    let by = match reference.made_by {
        OpId::Session { session, sequence } => format!("operation {sequence} of session {:016x}", session.0),
        OpId::Call(call) => format!("call {call:032x}"),
    };
    format!("{} {} made by {by}", reference.parent.key, text::escape_name(reference.name.as_bytes()))
}

fn describe_lock(lock: &LockRow) -> String {
    let end = if lock.end == u64::MAX { "end".to_owned() } else { lock.end.to_string() };
    format!(
        "{:?} {:?} {}-{end} owner {:016x} process {} session {:016x}",
        lock.family, lock.kind, lock.start, lock.owner.owner, lock.owner.pid, lock.session.0
    )
    .to_lowercase()
}

fn time(time: Timestamp) -> String {
    format!("{}.{:09}", text::time(time), time.nanos())
}
