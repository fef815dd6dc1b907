//! Honest clients: at each door, the least that shows that it is served.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;

use super::messages::{self, Call, MOUNT, NFS};
use super::{PATIENCE, Port};
use crate::error::{Doing, Error, Result, wrong};
use crate::testing::wait;

/// No reply that an honest client waits for here is longer.
const MAX_REPLY: usize = 64 << 10;

/// All doors.
pub(super) fn all(file: &Path) -> Result<()> {
    nfs()?;
    ninep()?;
    console()?;
    let text = std::fs::read_to_string(file).doing(|| format!("cannot read {}", file.display()))?;
    if text == "honest" { Ok(()) } else { wrong(format!("{} holds {text:?}", file.display())) }
}

/// MOUNT's MNT of `/`, then GETATTR of the handle that it gives.
fn nfs() -> Result<()> {
    let mut stream = Port::Nfs.connect()?;
    let credentials = messages::credentials(0);
    let call = |program, procedure, arguments: &[u8]| {
        Call { program, version: 3, procedure, credentials: &credentials, arguments }.record()
    };
    let reply = ask(&mut stream, &call(MOUNT, 1, &[0, 0, 0, 1, b'/', 0, 0, 0]))?;
    // status, then the handle as a counted opaque
    let Some(([0, 0, 0, 0], rest)) = reply.split_first_chunk::<4>() else {
        return wrong(format!("MNT is answered with {reply:?}"));
    };
    let Some((length, rest)) = rest.split_first_chunk::<4>() else {
        return wrong("MNT gives no handle");
    };
    let length = usize::try_from(u32::from_be_bytes(*length)).unwrap_or(usize::MAX);
    let padded = length.checked_next_multiple_of(4).and_then(|padded| rest.get(..padded));
    let Some(handle) = padded.filter(|handle| handle.len() <= 64) else {
        return wrong(format!("MNT gives a handle of {length} bytes"));
    };
    let mut arguments = u32::try_from(length).unwrap_or(0).to_be_bytes().to_vec();
    arguments.extend_from_slice(handle);
    let reply = ask(&mut stream, &call(NFS, 1, &arguments))?;
    // NFS3_OK, then ftype3: 2 is a directory (RFC 1813 §2.6)
    if reply.get(..8) == Some(&[0, 0, 0, 0, 0, 0, 0, 2]) {
        Ok(())
    } else {
        wrong(format!("GETATTR gives {reply:?}"))
    }
}

/// Sends a call and gives what follows the header of an accepted, successful reply.
fn ask(stream: &mut TcpStream, record: &[u8]) -> Result<Vec<u8>> {
    let doing = || "an NFS call".to_owned();
    stream.write_all(record).doing(doing)?;
    let mut mark = [0; 4];
    stream.read_exact(&mut mark).doing(doing)?;
    let length = usize::try_from(u32::from_be_bytes(mark) & 0x7FFF_FFFF).unwrap_or(usize::MAX);
    if length > MAX_REPLY {
        return wrong(format!("a reply of {length} bytes"));
    }
    let mut reply = vec![0; length];
    stream.read_exact(&mut reply).doing(doing)?;
    let mut expected = messages::XID.to_be_bytes().to_vec();
    // REPLY, accepted, a verifier of AUTH_NONE, success
    for word in [1_u32, 0, 0, 0, 0] {
        expected.extend_from_slice(&word.to_be_bytes());
    }
    match reply.strip_prefix(expected.as_slice()) {
        Some(results) => Ok(results.to_vec()),
        None => wrong(format!("the reply begins with {:?}", reply.get(..24))),
    }
}

/// Tversion and Tattach.
fn ninep() -> Result<()> {
    let mut stream = Port::Ninep.connect()?;
    let reply = exchange(&mut stream, &messages::version(8192, "9P2000.L"))?;
    if reply.first() != Some(&101) {
        return wrong(format!("Tversion is answered with {reply:?}"));
    }
    // fid 0, no afid, uname "root", aname "/", n_uname 0
    let mut body = vec![0, 0, 0, 0, 0xFF, 0xFF, 0xFF, 0xFF, 4, 0];
    body.extend_from_slice(b"root");
    body.extend_from_slice(&[1, 0, b'/', 0, 0, 0, 0]);
    let reply = exchange(&mut stream, &messages::ninep(104, &body))?;
    // Rattach with the qid of a directory
    if reply.first() == Some(&105) && reply.get(3) == Some(&0x80) {
        Ok(())
    } else {
        wrong(format!("Tattach is answered with {reply:?}"))
    }
}

/// Sends a message and gives the answer from its type on.
fn exchange(stream: &mut TcpStream, message: &[u8]) -> Result<Vec<u8>> {
    let doing = || "a 9P message".to_owned();
    stream.write_all(message).doing(doing)?;
    let mut size = [0; 4];
    stream.read_exact(&mut size).doing(doing)?;
    let length = usize::try_from(u32::from_le_bytes(size)).unwrap_or(usize::MAX).saturating_sub(4);
    if length > MAX_REPLY {
        return wrong(format!("a reply of {length} bytes"));
    }
    let mut reply = vec![0; length];
    stream.read_exact(&mut reply).doing(doing)?;
    Ok(reply)
}

/// Waits for the console's prompt. It may take a moment to see that those who held its sessions have gone.
fn console() -> Result<()> {
    let mut said = String::new();
    let greeted = wait::until("the console's prompt", PATIENCE, || {
        said = greeting()?;
        Ok(said.contains("MAGMA [wallace]").then_some(()))
    });
    greeted.map_err(|error| Error::Wrong(format!("{error}; it says {said:?}")))
}

/// What the console says to a new session, up to its prompt.
fn greeting() -> Result<String> {
    let mut stream = Port::Console.connect()?;
    let mut text = Vec::new();
    let mut buffer = [0; 1024];
    while text.len() < MAX_REPLY {
        let length = stream.read(&mut buffer).doing(|| "the console's prompt".to_owned())?;
        text.extend_from_slice(buffer.get(..length).unwrap_or_default());
        if length == 0 || String::from_utf8_lossy(&text).contains("MAGMA [wallace]") {
            break;
        }
    }
    Ok(String::from_utf8_lossy(&text).into_owned())
}
