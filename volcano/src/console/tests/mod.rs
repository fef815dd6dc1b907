//! Whole sessions against a file system in memory: what is typed, and exactly what comes back.

mod connections;
mod fake;
mod network;
pub(super) mod ring;

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};

use fake::{Tree, Volcano};

use super::commands::Shell;
use super::output::Gone;
use super::session::Session;

const BANNER: &str = "wallace's console\n";
const IDLE: Duration = Duration::from_secs(900);

/// A session on its own task, and the other end of its connection.
fn session(volcano: &std::rc::Rc<Volcano>) -> (DuplexStream, tokio::task::JoinHandle<Result<(), Gone>>) {
    let (ours, theirs) = duplex(64 << 10);
    let (reader, writer) = tokio::io::split(theirs);
    let shell = Shell::new(volcano.tree.clone(), std::rc::Rc::<Volcano>::clone(volcano));
    let task = tokio::task::spawn_local(async move {
        let mut session = Session::new(reader, writer, IDLE);
        session.run(shell, BANNER, "MAGMA [wallace]:", IDLE).await?;
        session.close().await
    });
    (ours, task)
}

/// Sends a script and returns everything that comes back, without the banner.
fn transcript(volcano: &std::rc::Rc<Volcano>, script: &[u8]) -> String {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
    tokio::task::LocalSet::new().block_on(&runtime, async {
        let (ours, task) = session(volcano);
        let (mut reader, mut writer) = tokio::io::split(ours);
        let script = script.to_vec();
        let sent = tokio::task::spawn_local(async move {
            // A session that ends before it has read everything is no error here.
            let _ = writer.write_all(&script).await;
            let _ = writer.shutdown().await;
        });
        let mut bytes = Vec::new();
        reader.read_to_end(&mut bytes).await.unwrap();
        sent.await.unwrap();
        task.await.unwrap().unwrap();
        let text = String::from_utf8(bytes).unwrap();
        let banner = if text.starts_with(BANNER) { BANNER.to_owned() } else { BANNER.replace('\n', "\r\n") };
        text.strip_prefix(&banner).expect("the banner comes first").to_owned()
    })
}

/// What one command answers, without prompts.
fn answer(volcano: &std::rc::Rc<Volcano>, command: &str) -> String {
    let text = transcript(volcano, format!("\n{command}\nexit\n").as_bytes());
    let (_, text) = text.split_once("MAGMA [wallace]:/> MAGMA [wallace]:/> ").expect("two prompts");
    let (answer, rest) = text.rsplit_once("MAGMA [wallace]:").expect("a prompt at the end");
    assert!(rest.ends_with("> "), "{rest:?}");
    answer.to_owned()
}

fn small() -> std::rc::Rc<Volcano> {
    let tree = Tree::new();
    tree.dir("/docs");
    tree.file("/docs/a.txt", "Käse & Kräcker\n".as_bytes());
    tree.file("/docs/b\nb", b"no line end");
    tree.link("/cheese", "docs/a.txt");
    std::rc::Rc::new(Volcano::new(tree))
}

#[test]
fn a_session_reads_as_in_the_manual() {
    let script = b"\nls\ncd docs\npwd\ncat a.txt\nls\ncd ..\nexit\n";
    let expected = "\
MAGMA [wallace]:/> MAGMA [wallace]:/> drwxr-xr-x   1000    100           64 2026-11-23 04:48:53 docs
lrwxrwxrwx   1000    100           10 2026-11-23 04:48:53 cheese -> docs/a.txt
-- total entries: 2
MAGMA [wallace]:/> MAGMA [wallace]:/docs> /docs
MAGMA [wallace]:/docs> Käse & Kräcker
MAGMA [wallace]:/docs> -rw-r--r--   1000    100           17 2026-11-23 04:48:53 a.txt
-rw-r--r--   1000    100           11 2026-11-23 04:48:53 b\\x0ab
-- total entries: 2
MAGMA [wallace]:/docs> MAGMA [wallace]:/> ";
    let text = transcript(&small(), script);
    assert_eq!(text.replace("\r\n", "\n"), expected);
}

#[test]
fn lines_end_as_the_clients_lines_do() {
    let telnet = transcript(&small(), b"pwd\r\nexit\r\n");
    assert_eq!(telnet, "MAGMA [wallace]:/> /\r\nMAGMA [wallace]:/> ");
    let netcat = transcript(&small(), b"pwd\nexit\n");
    assert_eq!(netcat, "MAGMA [wallace]:/> /\nMAGMA [wallace]:/> ");
}

#[test]
fn the_end_of_input_lets_the_commands_before_it_finish() {
    assert!(
        transcript(&small(), b"cd docs\ncat a.txt").ends_with("MAGMA [wallace]:/docs> \n"),
        "an open line is dropped"
    );
    assert!(transcript(&small(), b"cat cheese\n").contains("Käse"));
    assert!(transcript(&small(), b"\x04pwd\n").ends_with("MAGMA [wallace]:/> \r\n"), "^D leaves");
}

#[test]
fn paths_go_through_links_and_back_as_the_tree_does() {
    let tree = Tree::new();
    tree.dir("/deep");
    tree.dir("/deep/er");
    tree.file("/deep/file", b"deep");
    tree.link("/short", "deep/er");
    tree.link("/deep/er/abs", "/deep");
    tree.link("/loop", "loop");
    let volcano = std::rc::Rc::new(Volcano::new(tree));
    let text = transcript(&volcano, b"\ncd short\npwd\ncat ../file\ncd abs/er/abs\npwd\ncd /../..\npwd\ncat /loop\ncd /deep/file\ncat deep/file/\ncat deep/../deep/./file\nls nothing\nls loop\n");
    let shown: Vec<&str> = text.lines().map(|line| line.rsplit("> ").next().unwrap()).collect();
    let expected = [
        "/deep/er",
        "deep",
        "/deep",
        "/",
        "cat: /loop: too many levels of symbolic links",
        "cd: /deep/file: not a directory",
        "cat: deep/file/: not a directory",
        "deep",
        "ls: nothing: no such file or directory",
    ];
    assert_eq!(shown[..9], expected);
    assert!(
        text.contains(" loop -> loop\n-- total entries: 1\n"),
        "a link that leads nowhere is shown itself"
    );
}

#[test]
fn a_large_directory_is_listed_completely() {
    let tree = Tree::new();
    for i in 0..1300 {
        tree.file(&format!("/{i:04}"), b"");
    }
    let volcano = std::rc::Rc::new(Volcano::new(tree));
    let text = answer(&volcano, "ls -l /");
    let names: Vec<&str> = text.lines().filter_map(|line| line.split(' ').next_back()).collect();
    assert_eq!(names.len(), 1301);
    assert_eq!((names[0], names[1299]), ("0000", "1299"));
    assert!(text.ends_with("-- total entries: 1300\n"));
}

#[test]
fn binary_files_do_not_harm_the_terminal() {
    let tree = Tree::new();
    tree.file("/bin", b"\x1b[2J\xff\xfe\0 \xe2\x82\xac \xe2\x82\r\nend");
    let volcano = std::rc::Rc::new(Volcano::new(tree));
    assert_eq!(answer(&volcano, "cat bin"), "\\x1b[2J\\xff\\xfe\\x00 € \\xe2\\x82\\x0d\nend\n");
    assert_eq!(answer(&volcano, "cat /"), "cat: /: is a directory\n");
}

#[test]
fn erase_removes_what_it_is_told_and_no_more() {
    let volcano = small();
    let said = answer(&volcano, "erase docs");
    assert_eq!(said, "erase: docs: the directory is not empty; erase -r removes it with all in it\n");
    assert_eq!(answer(&volcano, "erase cheese"), "");
    assert_eq!(answer(&volcano, "cat docs/a.txt"), "Käse & Kräcker\n", "the link went, not the file");
    assert_eq!(answer(&volcano, "erase -r /"), "erase: the root stays; name what is in it\n");
    assert_eq!(answer(&volcano, "erase -r docs/.."), "erase: docs/..: name it from its parent directory\n");
    assert_eq!(answer(&volcano, "erase docs/nothing"), "erase: docs/nothing: no such file or directory\n");
    assert_eq!(answer(&volcano, "erase \"docs/b\\x0ab\""), "");
    assert_eq!(answer(&volcano, "erase -r docs"), "erased 2 entries\n");
    assert_eq!(volcano.tree.len(), 1);
}

#[test]
fn erase_removes_deep_and_wide_trees_but_not_through_links() {
    let tree = Tree::new();
    tree.dir("/keep");
    tree.file("/keep/me", b"");
    let mut path = String::from("/top");
    tree.dir(&path);
    for i in 0..600 {
        tree.file(&format!("/top/{i}"), b"");
    }
    for i in 0..50 {
        path = format!("{path}/d{i}");
        tree.dir(&path);
    }
    tree.link("/top/out", "/keep");
    tree.link("/shortcut", "/top");
    let volcano = std::rc::Rc::new(Volcano::new(tree));
    assert_eq!(answer(&volcano, "erase -r shortcut/"), "", "the link, not the tree behind it");
    assert_eq!(answer(&volcano, "erase -r top"), "erased 652 entries\n");
    assert_eq!(volcano.tree.len(), 3);
}

#[test]
fn the_network_is_shown_as_tables() {
    let expected = "\
network 0000000000000abc, topology version 1, 1 volcano, 1 slice
copies: 1 wanted, 1 in sync; coordinator: wallace; voters: wallace

SLICE  START             STOP                SHARE  KEYS  BYTES  EPOCH  PRIMARY  MIRRORS  JOINING  OWNER
    1  0000000000000000  ffffffffffffffff  100.00%     4    100      1  wallace  -        -        wallace

VOLCANO  SERVERNAME        ADDRESS          LOAD  KEYS  BYTES  DISK  FREE  STATE
wallace  wallace.intranet  127.0.0.1:12000  0.25     4    100  1000   900  serving
";
    assert_eq!(answer(&small(), "lava"), expected);
}

#[test]
fn a_flare_is_inspected_by_path_and_by_key() {
    let expected = "\
key           7d5e2a33ab7c0e8b1e5d4fb23d1a4b1ecb1d3f45
birth         /docs/a.txt
birth number  0000000000000007
inode         INODE
slice         1
kind          file
life          named
mode          0644 -rw-r--r--
owner         1000
group         100
links         1
device        0,0
size          17
used          512
content       in the row
striping      none
entries       0
next cookie   3
read          2026-11-23 04:48:53.000000000
written       2026-11-23 04:48:53.000000000
changed       2026-11-23 04:48:53.000000000
born          2026-11-23 04:48:53.000000000
record        5
verifier      none
acl           no
opens         0
references    1
  42099b4af021e53fd8fd4e056c2568d7c2e3ffa8 a.txt made by operation 1 of session 0000000000000009
xattrs        1
  user.color
locks         0
";
    let key = magma_common::key::BirthString::from_stored(b"/docs/a.txt".to_vec()).key();
    let expected = expected
        .replace("7d5e2a33ab7c0e8b1e5d4fb23d1a4b1ecb1d3f45", &key.to_string())
        .replace("INODE", &key.ino().0.to_string());
    assert_eq!(answer(&small(), &format!("inspect {key}")), expected);
    assert_eq!(answer(&small(), "inspect /docs/a.txt"), format!("path          /docs/a.txt\n{expected}"));
    let nobody = "0123456789012345678901234567890123456789";
    let said = format!("inspect: no flare with the key {nobody} is here; its slice is served by wallace\n");
    assert_eq!(answer(&small(), &format!("inspect {nobody}")), said);
}

#[test]
fn caches_rules_and_channels_are_printed() {
    let volcano = small();
    assert_eq!(answer(&volcano, "cache load"), "CACHE   LOAD\nflares  0.5%\n");
    let caches = "CACHE   ENTRIES  CAPACITY  LOAD  HITS  MISSES  HIT RATE\nflares        5      1000  0.5%    30      10     75.0%\n";
    assert_eq!(answer(&volcano, "print cache"), caches);
    assert_eq!(answer(&volcano, "print acl"), "no rules: whoever has the key may mount everything\n");
    assert_eq!(answer(&volcano, "debug on cache s"), "debug on cache sql\n");
    assert_eq!(volcano.channels.borrow().to_string(), "cs");
    let channels = answer(&volcano, "print debug");
    assert!(
        channels.starts_with("CHANNEL    LETTER  STATE  SHOWS\nboot       b       off    start, recovery"),
        "{channels}"
    );
    assert!(channels.contains("\ncache      c       on     caches"), "{channels}");
    assert_eq!(answer(&volcano, "debug off all").split(' ').count(), 17);
    assert_eq!(volcano.channels.borrow().to_string(), "");
}

#[test]
fn help_lists_every_command_on_a_line_of_its_own() {
    let help = answer(&small(), "help");
    for command in [
        "cache load",
        "cat",
        "cd",
        "debug off X",
        "debug on X",
        "erase",
        "exit",
        "help",
        "inspect",
        "lava balance now",
        "lava balance off",
        "lava balance on",
        "lava balance plan",
        "lava copies N",
        "lava divide SLICE|NICK [AT]",
        "lava evict NICK [--force]",
        "lava health",
        "lava leave [NICK]",
        "lava load",
        "lava move NICK after OTHER",
        "lava replace NICK by OTHER",
        "lava stay NICK",
        "lava stripes UNIT|off",
        "ls",
        "print acl",
        "print cache",
        "print debug",
        "pwd",
        "quit",
        "shutdown [--local]",
    ] {
        assert_eq!(
            help.lines().filter(|line| line.starts_with(&format!("{command} "))).count(),
            1,
            "{command}"
        );
    }
    assert!(help.lines().all(|line| line.len() <= 100), "{help}");
    assert_eq!(answer(&small(), "help lava").lines().count(), 15);
    assert_eq!(answer(&small(), "help pwd"), "pwd                  show the directory we are in\n");
}

#[test]
fn shutdown_tells_the_volcano_and_leaves() {
    let volcano = small();
    let text = transcript(&volcano, b"\nshutdown\npwd\n");
    assert!(text.ends_with("> shutting down the network (1 volcano)\n"), "{text}");
    assert_eq!(*volcano.shut_down.borrow(), Some(true));
}

#[test]
fn mistakes_are_answered_and_the_session_goes_on() {
    let text = transcript(&small(), b"\nsl\ncat 'x\npwd\n");
    let expected = "MAGMA [wallace]:/> MAGMA [wallace]:/> there is no command sl; `help` lists them\n\
                    MAGMA [wallace]:/> the quote ' is not closed\nMAGMA [wallace]:/> /\n";
    assert!(text.replace("\r\n", "\n").starts_with(expected), "{text}");
    let mut long = vec![b'x'; 20_000];
    long.extend(b"\npwd\n");
    let text = transcript(&small(), &long);
    assert!(
        text.contains("the line has more than 16384 bytes and was not read\r\n") && text.contains("> /\n"),
        "{text}"
    );
}

#[test]
fn a_web_page_cannot_speak_to_the_console() {
    let volcano = small();
    let request = b"POST / HTTP/1.1\r\nHost: 127.0.0.1:12002\r\n\r\nerase -r docs\r\nshutdown\r\n";
    assert_eq!(transcript(&volcano, request), "MAGMA [wallace]:/> ");
    assert_eq!(*volcano.shut_down.borrow(), None);
    assert_eq!(volcano.tree.len(), 5);
}

proptest::proptest! {
    #[test]
    fn any_bytes_from_a_connection_are_lines_keys_or_nothing(bytes: Vec<u8>) {
        super::fuzz_input(&bytes);
        super::fuzz_line(&bytes);
    }
}
