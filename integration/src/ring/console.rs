//! A volcano's console, as a script uses it.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

/// More than any command of ours is answered with.
const MAX_ANSWER: usize = 1 << 20;

/// Types commands, one a line, and reads until the console closes. The key is typed where it is asked for.
pub(super) fn ask(
    mut stream: TcpStream,
    commands: &str,
    key: &str,
    limit: Duration,
) -> std::io::Result<String> {
    let deadline = Instant::now() + limit;
    stream.set_read_timeout(Some(Duration::from_millis(200)))?;
    stream.set_write_timeout(Some(limit))?;
    let mut said = Vec::new();
    let mut typed = Typed::Nothing;
    loop {
        let text = String::from_utf8_lossy(&said);
        if typed == Typed::Nothing && text.ends_with("Key: ") {
            stream.write_all(format!("{}\r\n", key.trim()).as_bytes())?;
            typed = Typed::Key;
        } else if typed != Typed::Command && text.contains("MAGMA [") {
            stream.write_all(format!("{}\r\nquit\r\n", commands.replace('\n', "\r\n")).as_bytes())?;
            typed = Typed::Command;
        }
        let mut part = [0; 4096];
        match stream.read(&mut part) {
            Ok(0) => return Ok(String::from_utf8_lossy(&said).into_owned()),
            Ok(length) if said.len() + length <= MAX_ANSWER => {
                said.extend_from_slice(part.get(..length).unwrap_or_default());
            }
            Ok(_) => return Err(std::io::Error::other("the console does not stop talking")),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
            Err(error) => return Err(error),
        }
        if Instant::now() >= deadline {
            let said = String::from_utf8_lossy(&said).into_owned();
            return Err(std::io::Error::new(ErrorKind::TimedOut, format!("it only says {said:?}")));
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Typed {
    Nothing,
    Key,
    Command,
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader, Write};
    use std::net::{TcpListener, TcpStream};
    use std::time::Duration;

    use super::ask;

    #[test]
    fn the_key_is_typed_before_the_command() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let server = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut lines = BufReader::new(stream.try_clone().unwrap()).lines();
            stream.write_all(b"Key: ").unwrap();
            assert_eq!(lines.next().unwrap().unwrap(), "secret");
            stream.write_all(b"MAGMA [w] / > ").unwrap();
            assert_eq!(lines.next().unwrap().unwrap(), "lava");
            assert_eq!(lines.next().unwrap().unwrap(), "quit");
            stream.write_all(b"all is well\n").unwrap();
        });
        let stream = TcpStream::connect(address).unwrap();
        let said = ask(stream, "lava", "secret\n", Duration::from_secs(10)).unwrap();
        server.join().unwrap();
        assert!(said.contains("all is well"), "{said}");
    }

    #[test]
    fn a_console_that_stays_silent_is_not_waited_for_long() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let stream = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let error = ask(stream, "lava", "", Duration::from_millis(300)).unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::TimedOut);
    }
}
