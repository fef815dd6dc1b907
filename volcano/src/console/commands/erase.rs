//! `erase`: removes names, with `-r` whole trees. It asks nothing, so that scripts can use it.

use magma_common::attr::Kind;
use magma_common::error::FlareError;
use magma_common::handle::Handle;
use magma_common::name::Name;
use magma_common::proto::operation::{Readdir, Rmdir, Unlink};

use super::{Stop, about};
use crate::console::files::{Files, Place, walk};
use crate::console::output::Output;
use crate::console::text;

/// Entries asked for at a time.
const PAGE: u32 = 512;
/// How often a directory is read again because entries were added while it was emptied.
const MAX_PASSES: u32 = 16;

pub(super) async fn run(
    files: &impl Files,
    from: &Place,
    paths: &[Vec<u8>],
    recursive: bool,
    out: &mut Output,
) -> Result<(), Stop> {
    for path in paths {
        let failed = |error| about("erase", path, error);
        let shown = text::escape_name(path);
        // A slash at the end would lead through a symbolic link to what it points to.
        let slashes = path.iter().rev().take_while(|&&byte| byte == b'/').count();
        let path = path.get(..path.len() - slashes).filter(|path| !path.is_empty()).unwrap_or(path);
        if path
            .rsplit(|&byte| byte == b'/')
            .find(|part| !part.is_empty())
            .is_some_and(|part| part == b"." || part == b"..")
        {
            return Err(Stop::Message(format!("erase: {shown}: name it from its parent directory")));
        }
        let found = walk(files, from, path, false).await.map_err(failed)?;
        let Some((dir, name)) = found.place.entry() else {
            return Err(Stop::Message("erase: the root stays; name what is in it".to_owned()));
        };
        if found.attr.kind == Kind::Directory && recursive {
            let mut count = 0;
            let done = tree(files, dir, name, found.attr.handle, &mut count).await;
            tracing::info!(target: "magma::directory", "erased {count} entries under {shown} at the console");
            if count > 0 || done.is_ok() {
                out.line(&format!("erased {count} {}", if count == 1 { "entry" } else { "entries" })).await?;
            }
            done.map_err(failed)?;
        } else {
            match remove(files, dir, name, found.attr.kind).await {
                Err(FlareError::NotEmpty) => {
                    let message = format!(
                        "erase: {shown}: the directory is not empty; erase -r removes it with all in it"
                    );
                    return Err(Stop::Message(message));
                }
                done => done.map_err(failed)?,
            }
            tracing::info!(target: "magma::directory", "erased {shown} at the console");
        }
    }
    Ok(())
}

/// Removes a directory and everything below it, deepest first. What it holds in memory grows with the depth only.
async fn tree(
    files: &impl Files,
    dir: Handle,
    name: &Name,
    handle: Handle,
    count: &mut u64,
) -> Result<(), FlareError> {
    struct Level {
        parent: Handle,
        name: Name,
        handle: Handle,
        passes: u32,
    }
    let mut levels = vec![Level { parent: dir, name: name.clone(), handle, passes: 0 }];
    'levels: while let Some(level) = levels.last_mut() {
        level.passes += 1;
        let (here, mut cookie) = (level.handle, 0);
        loop {
            let page = Readdir { dir: here, cookie, limit: PAGE, attributes: false, opened: false };
            let page = files.call(page).await.map_err(|failure| failure.error)?;
            for entry in &page.entries {
                match remove(files, here, &entry.name, entry.kind).await {
                    // Somebody else removes too; the entry is gone, as was wanted.
                    Ok(()) => *count += 1,
                    Err(FlareError::NotFound) => {}
                    Err(FlareError::NotEmpty) => {
                        level.passes = 0;
                        let (parent, name) = (here, entry.name.clone());
                        levels.push(Level { parent, name, handle: entry.handle, passes: 0 });
                        continue 'levels;
                    }
                    Err(error) => return Err(error),
                }
            }
            match page.entries.last() {
                Some(last) if !page.eof && last.cookie > cookie => cookie = last.cookie,
                _ => break,
            }
        }
        match remove(files, level.parent, &level.name, Kind::Directory).await {
            Ok(()) => *count += 1,
            Err(FlareError::NotFound) => {}
            Err(FlareError::NotEmpty) if level.passes < MAX_PASSES => continue,
            Err(error) => return Err(error),
        }
        levels.pop();
    }
    Ok(())
}

async fn remove(files: &impl Files, dir: Handle, name: &Name, kind: Kind) -> Result<(), FlareError> {
    let name = name.clone();
    let removed = match kind {
        Kind::Directory => files.call(Rmdir { dir, name }).await,
        _ => files.call(Unlink { dir, name }).await,
    };
    removed.map(|_| ()).map_err(|failure| failure.error)
}
