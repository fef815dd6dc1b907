//! `ls`: one line per entry, page by page, however large the directory is.

use magma_common::attr::{Attr, Kind};
use magma_common::error::FlareError;
use magma_common::handle::Handle;
use magma_common::proto::operation::{Readdir, Readlink};

use super::{Stop, about};
use crate::console::files::{Files, Found, Place, walk};
use crate::console::output::Output;
use crate::console::text;

/// Entries asked for at a time.
const PAGE: u32 = 512;

pub(super) async fn run(
    files: &impl Files,
    from: &Place,
    paths: &[Vec<u8>],
    out: &mut Output,
) -> Result<(), Stop> {
    let here = [b".".to_vec()];
    let several = paths.len() > 1;
    for path in if paths.is_empty() { &here } else { paths } {
        if several {
            out.line(&format!("{}:", text::escape_name(path))).await?;
        }
        let failed = |error| about("ls", path, error);
        // A link at the end is followed if it leads to a directory, and shown itself if it does not.
        let found = match walk(files, from, path, true).await {
            Ok(found) if found.attr.kind == Kind::Directory => found,
            Ok(_) | Err(FlareError::NotFound | FlareError::SymlinkLoop) => {
                walk(files, from, path, false).await.map_err(failed)?
            }
            Err(error) => return Err(failed(error)),
        };
        let total = list(files, &found, path, out).await?;
        out.line(&format!("-- total entries: {total}")).await?;
    }
    Ok(())
}

async fn list(files: &impl Files, found: &Found, path: &[u8], out: &mut Output) -> Result<u64, Stop> {
    let failed = |error| about("ls", path, error);
    if found.attr.kind != Kind::Directory {
        let target = target(files, &found.attr).await.map_err(failed)?;
        let line = line(Some(&found.attr), found.attr.kind, path, target.as_deref());
        out.line(&line).await?;
        return Ok(1);
    }
    let (dir, mut cookie, mut total) = (found.attr.handle, 0, 0);
    loop {
        let page = Readdir { dir, cookie, limit: PAGE, attributes: true, opened: false };
        let page = files.call(page).await.map_err(|failure| failed(failure.error))?;
        for entry in &page.entries {
            let target = match &entry.attr {
                // A link that went away since is shown without its target.
                Some(attr) => target(files, attr).await.ok().flatten(),
                None => None,
            };
            let line = line(entry.attr.as_ref(), entry.kind, entry.name.as_bytes(), target.as_deref());
            out.line(&line).await?;
            total += 1;
        }
        match page.entries.last() {
            // Cookies rise; a listing that does not get on would never end.
            Some(last) if !page.eof && last.cookie > cookie => cookie = last.cookie,
            _ => return Ok(total),
        }
    }
}

async fn target(files: &impl Files, attr: &Attr) -> Result<Option<Vec<u8>>, FlareError> {
    if attr.kind != Kind::Symlink {
        return Ok(None);
    }
    let handle: Handle = attr.handle;
    let link = files.call(Readlink { handle }).await.map_err(|failure| failure.error)?;
    Ok(Some(link.target.to_vec()))
}

fn line(attr: Option<&Attr>, kind: Kind, name: &[u8], target: Option<&[u8]>) -> String {
    let unknown = || "?".to_owned();
    let mode = match attr {
        Some(attr) => text::mode(attr.kind, attr.mode),
        // Its attributes could not be had: it was removed just now, or its slice does not answer.
        None => text::mode(kind, 0).replace("---------", "?????????"),
    };
    let uid = attr.map_or_else(unknown, |attr| attr.uid.to_string());
    let gid = attr.map_or_else(unknown, |attr| attr.gid.to_string());
    let size = attr.map_or_else(unknown, text::size);
    let time = attr.map_or_else(unknown, |attr| text::time(attr.mtime));
    let target = target.map(|target| format!(" -> {}", text::escape_name(target))).unwrap_or_default();
    let name = text::escape_name(name);
    format!("{mode} {uid:>6} {gid:>6} {size:>12} {time:<19} {name}{target}")
}
