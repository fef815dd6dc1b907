//! Locks between mounts and families, and what becomes of waiting programs.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test that cannot go on says so"
)]

mod support;

use std::fs::{self, File, OpenOptions};
use std::io::{BufRead, BufReader};
use std::os::unix::fs::FileExt;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use magma_mount_fuse::options::MountOptions;
use rustix::fs::{FlockOperation, fcntl_lock, flock};
use rustix::io::Errno;
use rustix::process::{Pid, Signal, kill_process};
use support::{LIMIT, Network, eventually};

#[test]
fn volcano_process() {
    support::become_volcano();
}

/// Holds a lock until it is killed, if the environment says so: a process of its own for the test below.
#[test]
fn lock_holder() {
    let Ok(path) = std::env::var(HOLD_VARIABLE) else { return };
    let file = open(Path::new(&path));
    fcntl_lock(&file, FlockOperation::LockExclusive).unwrap();
    println!("\nheld");
    loop {
        std::thread::park();
    }
}

const HOLD_VARIABLE: &str = "MAGMA_TEST_HOLD";

fn open(path: &Path) -> File {
    OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path).unwrap()
}

/// Runs a program that blocks and waits until it is asleep in the kernel.
fn blocked(command: &mut Command) -> Child {
    let child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let state = format!("/proc/{}/stat", child.id());
    eventually("the program waits for the file system", || {
        let stat = fs::read_to_string(&state).unwrap();
        let state = stat.rsplit(')').next().unwrap().trim_start();
        state.starts_with('D') || state.starts_with('S')
    });
    child
}

fn ends_within(child: &mut Child, limit: Duration) -> std::process::ExitStatus {
    let deadline = Instant::now() + limit;
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return status;
        }
        assert!(Instant::now() < deadline, "it still runs after {limit:?}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn fcntl_locks_exclude_another_mount_until_the_file_is_closed() {
    let network = Network::start();
    let (here, there) = (network.mount(), network.mount());
    let (a, b) = (open(&here.path("f")), open(&there.path("f")));
    fcntl_lock(&a, FlockOperation::NonBlockingLockExclusive).unwrap();
    assert_eq!(fcntl_lock(&b, FlockOperation::NonBlockingLockShared).unwrap_err(), Errno::AGAIN);
    // Any close of the file by the process gives its locks back.
    drop(open(&here.path("f")));
    fcntl_lock(&b, FlockOperation::NonBlockingLockExclusive).unwrap();
    fcntl_lock(&b, FlockOperation::Unlock).unwrap();
    fcntl_lock(&a, FlockOperation::NonBlockingLockExclusive).unwrap();
}

#[test]
fn flock_excludes_another_mount_until_the_last_close() {
    let network = Network::start();
    let (here, there) = (network.mount(), network.mount());
    let (a, b) = (open(&here.path("f")), open(&there.path("f")));
    let duplicate = a.try_clone().unwrap();
    flock(&a, FlockOperation::NonBlockingLockExclusive).unwrap();
    assert_eq!(flock(&b, FlockOperation::NonBlockingLockShared).unwrap_err(), Errno::AGAIN);
    drop(a);
    assert_eq!(flock(&b, FlockOperation::NonBlockingLockShared).unwrap_err(), Errno::AGAIN);
    drop(duplicate);
    // The kernel tells of the last close without waiting for us.
    eventually("the lock is given back", || flock(&b, FlockOperation::NonBlockingLockShared).is_ok());
}

#[test]
fn flock_and_fcntl_locks_do_not_see_each_other() {
    let network = Network::start();
    let (here, there) = (network.mount(), network.mount());
    let (a, b) = (open(&here.path("f")), open(&there.path("f")));
    flock(&a, FlockOperation::NonBlockingLockExclusive).unwrap();
    fcntl_lock(&a, FlockOperation::NonBlockingLockExclusive).unwrap();
    fcntl_lock(&a, FlockOperation::Unlock).unwrap();
    fcntl_lock(&b, FlockOperation::NonBlockingLockExclusive).unwrap();
    assert_eq!(flock(&b, FlockOperation::NonBlockingLockExclusive).unwrap_err(), Errno::AGAIN);
}

/// Two programs that take turns, as a database does on two machines: the kernel used to show bytes that were up to a second old.
#[test]
fn who_gets_a_lock_reads_what_its_last_holder_has_written() {
    let network = Network::start();
    let (here, there) = (network.mount(), network.mount());
    let files = [open(&here.path("f")), open(&there.path("f"))];
    files[0].write_all_at(&[0; 8], 0).unwrap();
    for turn in 1..=40_u64 {
        let file = &files[(turn % 2) as usize];
        let lock =
            |operation| if turn % 4 < 2 { fcntl_lock(file, operation) } else { flock(file, operation) };
        let exclusive = if turn % 3 == 0 {
            FlockOperation::LockExclusive
        } else {
            FlockOperation::NonBlockingLockExclusive
        };
        lock(exclusive).unwrap();
        let mut bytes = [0; 8];
        file.read_exact_at(&mut bytes, 0).unwrap();
        assert_eq!(u64::from_le_bytes(bytes), turn - 1);
        file.write_all_at(&turn.to_le_bytes(), 0).unwrap();
        // What it writes itself is in its pages.
        file.read_exact_at(&mut bytes, 0).unwrap();
        lock(FlockOperation::Unlock).unwrap();
    }
}

#[test]
fn a_wait_for_a_lock_ends_when_it_is_released() {
    let network = Network::start();
    let (here, there) = (network.mount(), network.mount());
    let a = open(&here.path("f"));
    flock(&a, FlockOperation::LockExclusive).unwrap();
    let mut waiting = blocked(Command::new("flock").arg(there.path("f")).arg("true"));
    assert!(waiting.try_wait().unwrap().is_none());
    flock(&a, FlockOperation::Unlock).unwrap();
    assert!(ends_within(&mut waiting, LIMIT).success());
}

#[test]
fn a_wait_for_a_lock_ends_with_a_signal() {
    let network = Network::start();
    let (here, there) = (network.mount(), network.mount());
    let a = open(&here.path("f"));
    flock(&a, FlockOperation::LockExclusive).unwrap();
    for signal in [Signal::INT, Signal::TERM, Signal::KILL] {
        let mut waiting = blocked(Command::new("flock").arg(there.path("f")).arg("true"));
        kill_process(Pid::from_child(&waiting), signal).unwrap();
        assert_eq!(ends_within(&mut waiting, Duration::from_secs(5)).signal(), Some(signal.as_raw()));
    }
    // A program with a handler (flock --timeout uses SIGALRM) goes on after it.
    let mut waiting =
        blocked(Command::new("flock").args(["--timeout", "1"]).arg(there.path("f")).arg("true"));
    assert_eq!(ends_within(&mut waiting, Duration::from_secs(10)).code(), Some(1));
    // Nobody who was interrupted holds it.
    flock(&a, FlockOperation::Unlock).unwrap();
    let b = open(&there.path("f"));
    eventually("the lock is free", || flock(&b, FlockOperation::NonBlockingLockExclusive).is_ok());
}

#[test]
fn a_hard_mount_waits_for_the_volcano_and_goes_on() {
    let mut network = Network::start();
    let mount = network.mount();
    let mut file = open(&mount.path("f"));
    std::io::Write::write_all(&mut file, b"before").unwrap();
    file.sync_all().unwrap();
    network.kill();
    let mut waiting = blocked(Command::new("cp").arg(mount.path("f")).arg(mount.path("g")));
    assert!(waiting.try_wait().unwrap().is_none());
    network.restart();
    assert!(ends_within(&mut waiting, LIMIT).success());
    assert_eq!(fs::read_to_string(mount.path("g")).unwrap(), "before");
    std::io::Write::write_all(&mut file, b" after").unwrap();
    drop(file);
    assert_eq!(fs::read_to_string(mount.path("f")).unwrap(), "before after");
}

#[test]
fn a_process_that_waits_for_a_volcano_that_is_away_can_be_killed() {
    let mut network = Network::start();
    let mount = network.mount();
    fs::write(mount.path("f"), "x").unwrap();
    network.kill();
    for program in [vec!["cat"], vec!["touch"], vec!["dd", "if=/dev/zero", "bs=4k", "count=1"], vec!["rm"]] {
        let mut command = Command::new(program[0]);
        command.args(&program[1..]);
        if program[0] == "dd" {
            command.arg(format!("of={}", mount.path("new").display()));
        } else {
            command.arg(mount.path("f"));
        }
        let mut waiting = blocked(&mut command);
        kill_process(Pid::from_child(&waiting), Signal::KILL).unwrap();
        assert_eq!(ends_within(&mut waiting, Duration::from_secs(5)).signal(), Some(9), "{program:?}");
    }
}

#[test]
fn a_process_that_holds_a_lock_can_be_killed_while_the_volcano_is_away() {
    let mut network = Network::start();
    let (here, there) = (network.mount(), network.mount());
    let mut holder = Command::new(std::env::current_exe().unwrap())
        .args(["lock_holder", "--exact", "--nocapture"])
        .env(HOLD_VARIABLE, here.path("f"))
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(holder.stdout.take().unwrap()).lines();
    assert!(lines.map_while(Result::ok).any(|line| line == "held"));
    let other = open(&there.path("f"));
    assert_eq!(fcntl_lock(&other, FlockOperation::NonBlockingLockExclusive).unwrap_err(), Errno::AGAIN);
    network.kill();
    kill_process(Pid::from_child(&holder), Signal::KILL).unwrap();
    assert_eq!(ends_within(&mut holder, Duration::from_secs(5)).signal(), Some(9));
    network.restart();
    eventually("the lock is given back", || {
        fcntl_lock(&other, FlockOperation::NonBlockingLockExclusive).is_ok()
    });
}

#[test]
fn a_soft_mount_gives_up() {
    let mut network = Network::start();
    let patience = Some(Duration::from_millis(700));
    let mount = network.mount_with("", MountOptions { patience, ..MountOptions::default() });
    fs::write(mount.path("f"), "x").unwrap();
    network.kill();
    let began = Instant::now();
    let error = fs::write(mount.path("new"), "y").unwrap_err();
    assert_eq!(error.raw_os_error(), Some(libc::ETIMEDOUT));
    assert!(began.elapsed() < Duration::from_secs(10));
}

#[test]
fn a_forced_unmount_works_without_the_volcano() {
    let mut network = Network::start();
    let mount = network.mount();
    fs::write(mount.path("f"), "x").unwrap();
    network.kill();
    let mut waiting = blocked(Command::new("cat").arg(mount.path("f")));
    assert!(waiting.try_wait().unwrap().is_none());
    // Ends what waits; the mount itself may be busy until then.
    eventually("it is unmounted", || {
        Command::new("umount").arg("-f").arg(mount.root()).status().unwrap().success()
    });
    assert!(!ends_within(&mut waiting, LIMIT).success());
}

#[test]
fn a_frozen_volcano_delays_and_loses_nothing() {
    let network = Network::start();
    let mount = network.mount();
    fs::write(mount.path("f"), "before").unwrap();
    network.freeze(true);
    let mut waiting = blocked(Command::new("mv").arg(mount.path("f")).arg(mount.path("g")));
    assert!(waiting.try_wait().unwrap().is_none());
    network.freeze(false);
    assert!(ends_within(&mut waiting, LIMIT).success());
    assert_eq!(fs::read_to_string(mount.path("g")).unwrap(), "before");
}
