//! Messages that make fids and end them: walk, clunk, remove.

use super::codec::{Qid, Text, messages};

messages! {
    /// Makes a fid for what the names lead to.
    Twalk {
        /// Where the walk begins.
        fid: u32,
        /// The fid to be made; may be `fid` itself.
        newfid: u32,
        /// Names to walk through, one after the other; none clones the fid.
        wnames: Vec<Text>,
    }
    /// What was found; fewer than asked for means that no fid was made.
    Rwalk {
        /// One for each name found.
        wqids: Vec<Qid>,
    }
    /// Ends a fid.
    Tclunk {
        /// Which.
        fid: u32,
    }
    /// The fid is gone.
    Rclunk {}
    /// Removes the file and ends the fid, even where the file stays.
    Tremove {
        /// Which.
        fid: u32,
    }
    /// The file and the fid are gone.
    Rremove {}
}
