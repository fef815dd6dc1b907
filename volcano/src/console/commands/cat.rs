//! `cat`: files of any size and content, at the pace of the terminal.

use magma_common::attr::Kind;
use magma_common::error::FlareError;
use magma_common::proto::operation::Read;

use super::{Stop, about};
use crate::console::files::{Files, Place, walk};
use crate::console::output::Output;
use crate::console::text::Escaper;

/// Bytes asked for at a time.
const PIECE: u32 = 64 << 10;

pub(super) async fn run(
    files: &impl Files,
    from: &Place,
    paths: &[Vec<u8>],
    out: &mut Output,
) -> Result<(), Stop> {
    for path in paths {
        show(files, from, path, out).await?;
        if !out.at_line_start() {
            out.text("\n").await?;
        }
    }
    Ok(())
}

async fn show(files: &impl Files, from: &Place, path: &[u8], out: &mut Output) -> Result<(), Stop> {
    let failed = |error| about("cat", path, error);
    let found = walk(files, from, path, true).await.map_err(failed)?;
    match found.attr.kind {
        Kind::File => {}
        Kind::Directory => return Err(failed(FlareError::IsDirectory)),
        _ => {
            return Err(Stop::Message(format!(
                "cat: {}: has no content",
                crate::console::text::escape_name(path)
            )));
        }
    }
    let (handle, mut offset) = (found.attr.handle, 0);
    let mut escaper = Escaper::default();
    loop {
        let read = Read { handle, offset, length: PIECE, opened: false };
        let (reply, data) = files.read(read).await.map_err(|failure| failed(failure.error))?;
        let last = reply.eof || data.is_empty();
        out.text(&escaper.piece(&data, last)).await?;
        if last {
            return Ok(());
        }
        offset += data.len() as u64;
    }
}
