//! The mount as programs see it: through the kernel, with a real volcano behind it.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test that cannot go on says so"
)]

mod support;

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt, PermissionsExt, symlink};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use magma_mount_fuse::options::MountOptions;
use rustix::fs::{
    CWD, FallocateFlags, Mode, OFlags, RenameFlags, SeekFrom as Seeking, XattrFlags, copy_file_range,
    fallocate, getxattr, getxattr_query, listxattr, removexattr, renameat_with, seek, setxattr,
};
use support::{Network, eventually};

#[test]
fn volcano_process() {
    support::become_volcano();
}

/// Bytes that repeat nowhere nearby.
fn pattern(length: usize, seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state as u8
    };
    std::iter::repeat_with(next).take(length).collect()
}

fn errno<T: std::fmt::Debug>(outcome: io::Result<T>) -> i32 {
    outcome.unwrap_err().raw_os_error().unwrap()
}

#[test]
fn what_is_written_is_read_back_here_and_through_another_mount() {
    let network = Network::start();
    let (here, there) = (network.mount(), network.mount());
    for (index, length) in
        [0, 1, 4095, 16 << 10, (16 << 10) + 1, 1 << 20, (3 << 20) + 17].into_iter().enumerate()
    {
        let name = format!("file {index}");
        let data = pattern(length, index as u64 + 1);
        fs::write(here.path(&name), &data).unwrap();
        assert!(fs::read(here.path(&name)).unwrap() == data, "{length} bytes, here");
        assert!(fs::read(there.path(&name)).unwrap() == data, "{length} bytes, there");
        assert_eq!(fs::metadata(there.path(&name)).unwrap().len(), length as u64);
    }
    let file = OpenOptions::new().read(true).write(true).open(here.path("file 6")).unwrap();
    file.write_all_at(b"middle", 1 << 20).unwrap();
    file.set_len((2 << 20) + 5).unwrap();
    let mut expected = pattern((3 << 20) + 17, 7);
    expected[1 << 20..(1 << 20) + 6].copy_from_slice(b"middle");
    expected.truncate((2 << 20) + 5);
    drop(file);
    assert!(fs::read(there.path("file 6")).unwrap() == expected, "overwritten and cut");
    here.unmount();
    there.unmount();
}

#[test]
fn opening_a_file_shows_what_another_mount_closed() {
    let network = Network::start();
    let (here, there) = (network.mount(), network.mount());
    fs::write(here.path("shared"), "round 000").unwrap();
    for round in 1..60 {
        let text = format!("round {round:03}");
        let (writer, reader) = if round % 2 == 0 { (&here, &there) } else { (&there, &here) };
        // The same size each time: only the content tells.
        let mut file = OpenOptions::new().write(true).open(writer.path("shared")).unwrap();
        file.write_all(text.as_bytes()).unwrap();
        drop(file);
        assert_eq!(fs::read_to_string(reader.path("shared")).unwrap(), text);
        assert_eq!(fs::read_to_string(writer.path("shared")).unwrap(), text);
    }
}

#[test]
fn appends_through_two_mounts_lose_nothing() {
    const LINES: usize = 150;
    let network = Network::start();
    let mounts = [network.mount(), network.mount()];
    fs::write(mounts[0].path("log"), "").unwrap();
    std::thread::scope(|scope| {
        for (who, mount) in mounts.iter().enumerate() {
            scope.spawn(move || {
                let mut log = OpenOptions::new().append(true).open(mount.path("log")).unwrap();
                for line in 0..LINES {
                    log.write_all(format!("{who} {line}\n").as_bytes()).unwrap();
                }
            });
        }
    });
    for mount in &mounts {
        let text = fs::read_to_string(mount.path("log")).unwrap();
        let lines: BTreeSet<&str> = text.lines().collect();
        assert_eq!((text.lines().count(), lines.len()), (2 * LINES, 2 * LINES));
    }
}

#[test]
fn names_are_made_moved_exchanged_and_removed() {
    let network = Network::start();
    let mount = network.mount();
    let p = |name: &str| mount.path(name);
    fs::create_dir(p("d")).unwrap();
    assert_eq!(errno(fs::create_dir(p("d"))), libc::EEXIST);
    fs::write(p("d/a"), "A").unwrap();
    fs::write(p("b"), "B").unwrap();
    assert_eq!(errno(fs::remove_dir(p("d"))), libc::ENOTEMPTY);

    let rename =
        |from: &str, to: &str, flags| renameat_with(CWD, p(from), CWD, p(to), flags).map_err(io::Error::from);
    assert_eq!(errno(rename("d/a", "b", RenameFlags::NOREPLACE)), libc::EEXIST);
    rename("d/a", "b", RenameFlags::EXCHANGE).unwrap();
    assert_eq!(fs::read_to_string(p("b")).unwrap(), "A");
    assert_eq!(fs::read_to_string(p("d/a")).unwrap(), "B");
    assert_eq!(errno(rename("b", "c", RenameFlags::WHITEOUT)), libc::EINVAL);
    fs::rename(p("d/a"), p("b")).unwrap();
    assert_eq!(fs::read_to_string(p("b")).unwrap(), "B");

    fs::hard_link(p("b"), p("d/link")).unwrap();
    assert_eq!(fs::metadata(p("b")).unwrap().nlink(), 2);
    assert_eq!(fs::metadata(p("b")).unwrap().ino(), fs::metadata(p("d/link")).unwrap().ino());
    symlink("b", p("symlink")).unwrap();
    assert_eq!(fs::read_link(p("symlink")).unwrap(), Path::new("b"));
    assert_eq!(fs::read_to_string(p("symlink")).unwrap(), "B");
    fs::remove_file(p("b")).unwrap();
    assert_eq!(errno(fs::read(p("symlink"))), libc::ENOENT);
    assert_eq!(fs::metadata(p("d/link")).unwrap().nlink(), 1);

    rustix::fs::mknodat(CWD, p("fifo"), rustix::fs::FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
    assert_eq!(fs::metadata(p("fifo")).unwrap().mode() & libc::S_IFMT, libc::S_IFIFO);
    assert_eq!(errno(fs::remove_file(p("d"))), libc::EISDIR);
    fs::remove_dir_all(p("d")).unwrap();
    mount.unmount();
}

#[test]
fn a_rename_by_another_mount_is_seen_and_does_not_break_open_files() {
    let network = Network::start();
    let (here, there) = (network.mount(), network.mount());
    fs::create_dir(here.path("old")).unwrap();
    fs::write(here.path("old/file"), "first").unwrap();
    let mut open = File::open(there.path("old/file")).unwrap();
    fs::rename(here.path("old"), here.path("new")).unwrap();
    fs::write(here.path("replacement"), "second").unwrap();
    fs::rename(here.path("replacement"), here.path("new/file")).unwrap();
    eventually("the new name shows the new file", || {
        fs::read_to_string(there.path("new/file")).is_ok_and(|text| text == "second")
            && !there.path("old").exists()
    });
    let mut text = String::new();
    open.read_to_string(&mut text).unwrap();
    assert_eq!(text, "first");
}

#[test]
fn an_unlinked_file_lives_until_it_is_closed() {
    let network = Network::start();
    let mount = network.mount();
    let mut file =
        OpenOptions::new().read(true).write(true).create_new(true).open(mount.path("gone")).unwrap();
    file.write_all(b"still ").unwrap();
    fs::remove_file(mount.path("gone")).unwrap();
    file.write_all(b"here").unwrap();
    assert_eq!(file.metadata().unwrap().nlink(), 0);
    assert_eq!(file.metadata().unwrap().len(), 10);
    file.set_len(8).unwrap();
    file.set_permissions(fs::Permissions::from_mode(0o600)).unwrap();
    file.seek(SeekFrom::Start(0)).unwrap();
    let mut text = String::new();
    file.read_to_string(&mut text).unwrap();
    assert_eq!(text, "still he");
    drop(file);
    assert_eq!(fs::read_dir(mount.root()).unwrap().count(), 0);
}

#[test]
fn opens_truncate_create_and_refuse_as_their_flags_say() {
    let network = Network::start();
    let (mount, other) = (network.mount(), network.mount());
    let file = mount.path("file");
    fs::write(&file, "long content").unwrap();
    OpenOptions::new().write(true).truncate(true).open(&file).unwrap();
    assert_eq!(fs::metadata(&file).unwrap().len(), 0);
    assert_eq!(errno(OpenOptions::new().write(true).create_new(true).open(&file)), libc::EEXIST);
    // A mode without write permission does not bind who creates the file.
    let mut created =
        OpenOptions::new().write(true).create_new(true).mode(0o444).open(mount.path("read-only")).unwrap();
    created.write_all(b"x").unwrap();
    assert_eq!(created.metadata().unwrap().mode() & 0o7777, 0o444);
    drop(created);
    // Made by another mount after this one found the name absent.
    for round in 0..20 {
        let name = format!("race {round}");
        assert!(!mount.path(&name).exists());
        fs::write(other.path(&name), "there").unwrap();
        let mut text = String::new();
        let mut open =
            OpenOptions::new().read(true).append(true).create(true).open(mount.path(&name)).unwrap();
        open.read_to_string(&mut text).unwrap();
        assert_eq!(text, "there");
    }
    let tmpfile =
        rustix::fs::open(mount.root(), OFlags::TMPFILE | OFlags::RDWR, Mode::RUSR).map_err(io::Error::from);
    assert_eq!(errno(tmpfile), libc::EOPNOTSUPP);
    mount.unmount();
}

/// The kernel refuses to open a running program for truncation only after it has asked the mount to open it. A mount
/// that truncated in the same request had the program gone by then.
#[test]
fn a_running_program_cannot_be_truncated() {
    let network = Network::start();
    let mount = network.mount();
    let program = mount.path("program");
    fs::copy("/bin/sleep", &program).unwrap();
    let length = fs::metadata(&program).unwrap().len();
    let mut running = Command::new(&program).arg("60").spawn().unwrap();
    for flags in [OFlags::RDONLY | OFlags::TRUNC, OFlags::WRONLY, OFlags::RDWR | OFlags::TRUNC] {
        let opened = rustix::fs::open(&program, flags, Mode::empty());
        assert_eq!(opened.unwrap_err(), rustix::io::Errno::TXTBSY, "{flags:?}");
    }
    assert_eq!(fs::metadata(&program).unwrap().len(), length);
    assert_eq!(running.try_wait().unwrap(), None);
    running.kill().unwrap();
    running.wait().unwrap();
}

#[test]
fn inode_numbers_agree_between_stat_listing_and_mounts() {
    use std::os::unix::fs::DirEntryExt;
    let network = Network::start();
    let (here, there) = (network.mount(), network.mount());
    fs::create_dir(here.path("d")).unwrap();
    fs::write(here.path("f"), "").unwrap();
    for entry in fs::read_dir(here.root()).unwrap() {
        let entry = entry.unwrap();
        assert_eq!(entry.ino(), entry.metadata().unwrap().ino());
        assert_eq!(entry.ino(), fs::metadata(there.root().join(entry.file_name())).unwrap().ino());
    }
    let root = fs::metadata(here.root()).unwrap().ino();
    assert_eq!(root, fs::metadata(there.root()).unwrap().ino());
    assert_eq!(root, fs::metadata(here.path("d/..")).unwrap().ino());
}

#[test]
fn a_large_directory_is_listed_whole_while_it_changes() {
    const ENTRIES: usize = 3000;
    let network = Network::start();
    let mount = network.mount();
    let name = |index: usize| format!("entry with a name of some length {index:05}");
    for index in 0..ENTRIES {
        File::create(mount.path(&name(index))).unwrap();
    }
    let listed = || -> BTreeSet<String> {
        fs::read_dir(mount.root())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect()
    };
    assert_eq!(listed().len(), ENTRIES);
    // Every second entry goes while the listing is under way; the others are seen once each.
    let mut seen = Vec::new();
    for (position, entry) in fs::read_dir(mount.root()).unwrap().enumerate() {
        seen.push(entry.unwrap().file_name().into_string().unwrap());
        if let Some(index) = position.checked_mul(2).filter(|&index| index < ENTRIES) {
            fs::remove_file(mount.path(&name(index))).unwrap();
        }
    }
    let kept: Vec<String> = (0..ENTRIES).filter(|index| index % 2 == 1).map(name).collect();
    let seen_kept: BTreeSet<&String> = seen.iter().filter(|name| kept.contains(name)).collect();
    assert_eq!(seen_kept.len(), kept.len());
    assert_eq!(seen.len(), seen.iter().collect::<BTreeSet<_>>().len(), "no entry twice");
    assert_eq!(listed(), kept.into_iter().collect());
}

#[test]
fn names_of_any_bytes_work() {
    let network = Network::start();
    let mount = network.mount();
    let names: BTreeSet<Vec<u8>> = (1..=255u8).filter(|&b| b != b'/').map(|b| vec![b'n', b]).collect();
    for name in &names {
        fs::write(mount.root().join(OsStr::from_bytes(name)), name).unwrap();
    }
    let listed: BTreeSet<Vec<u8>> = fs::read_dir(mount.root())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().as_bytes().to_vec())
        .collect();
    assert_eq!(listed, names);
    for name in &names {
        assert_eq!(&fs::read(mount.root().join(OsStr::from_bytes(name))).unwrap(), name);
    }
    assert_eq!(errno(File::create(mount.path(&"x".repeat(256)))), libc::ENAMETOOLONG);
    File::create(mount.path(&"x".repeat(255))).unwrap();
}

#[test]
fn extended_attributes_are_kept() {
    let network = Network::start();
    let (mount, other) = (network.mount(), network.mount());
    let file = mount.path("file");
    fs::write(&file, "").unwrap();
    let flags = XattrFlags::empty();
    setxattr(&file, "user.colour", b"red", flags).unwrap();
    setxattr(&file, "trusted.size", &[7; 5000], flags).unwrap();
    let mut buffer = [0u8; 8192];
    assert_eq!(getxattr(other.path("file"), "user.colour", &mut buffer).unwrap(), 3);
    assert_eq!(&buffer[..3], b"red");
    assert_eq!(getxattr_query(&file, "trusted.size").unwrap(), 5000);
    assert_eq!(getxattr(&file, "trusted.size", &mut buffer[..100]).unwrap_err(), rustix::io::Errno::RANGE);
    assert_eq!(
        setxattr(&file, "user.colour", b"blue", XattrFlags::CREATE).unwrap_err(),
        rustix::io::Errno::EXIST
    );
    assert_eq!(
        setxattr(&file, "user.none", b"blue", XattrFlags::REPLACE).unwrap_err(),
        rustix::io::Errno::NODATA
    );
    let length = listxattr(&file, &mut buffer).unwrap();
    let list: BTreeSet<&[u8]> = buffer[..length].split(|&b| b == 0).filter(|name| !name.is_empty()).collect();
    assert_eq!(list, BTreeSet::from([&b"user.colour"[..], b"trusted.size"]));
    removexattr(&file, "user.colour").unwrap();
    assert_eq!(getxattr(&file, "user.colour", &mut buffer).unwrap_err(), rustix::io::Errno::NODATA);
}

#[test]
fn holes_are_found_punched_and_copied_over() {
    let network = Network::start();
    let mount = network.mount();
    let file = OpenOptions::new().read(true).write(true).create_new(true).open(mount.path("sparse")).unwrap();
    let (mib, data) = (1u64 << 20, pattern(1 << 20, 5));
    file.write_all_at(&data, 8 * mib).unwrap();
    assert_eq!(seek(&file, Seeking::Data(0)).unwrap(), 8 * mib);
    assert_eq!(seek(&file, Seeking::Hole(8 * mib)).unwrap(), 9 * mib);
    assert_eq!(seek(&file, Seeking::Data(9 * mib)).unwrap_err(), rustix::io::Errno::NXIO);
    fallocate(&file, FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE, 8 * mib, mib / 2).unwrap();
    let mut read = vec![1; 1 << 20];
    file.read_exact_at(&mut read, 8 * mib).unwrap();
    assert!(read[..1 << 19].iter().all(|&b| b == 0) && read[1 << 19..] == data[1 << 19..]);
    fallocate(&file, FallocateFlags::empty(), 0, 12 * mib).unwrap();
    assert_eq!(file.metadata().unwrap().len(), 12 * mib);

    let copy = OpenOptions::new().read(true).write(true).create_new(true).open(mount.path("copy")).unwrap();
    let (mut from, mut to) = (0, 0);
    while to < 12 * mib {
        assert_ne!(copy_file_range(&file, Some(&mut from), &copy, Some(&mut to), 1 << 30).unwrap(), 0);
    }
    assert!(fs::read(mount.path("copy")).unwrap() == fs::read(mount.path("sparse")).unwrap());
}

#[test]
fn a_file_of_many_gigabytes_needs_no_space_for_its_holes() {
    let network = Network::start();
    let mount = network.mount();
    let file = File::create(mount.path("sparse")).unwrap();
    file.set_len(5 << 30).unwrap();
    file.write_all_at(b"end", (5 << 30) - 3).unwrap();
    let meta = fs::metadata(mount.path("sparse")).unwrap();
    assert_eq!(meta.len(), 5 << 30);
    assert!(meta.blocks() * 512 < 1 << 20, "{} blocks", meta.blocks());
}

#[test]
fn permissions_bind_users_and_follow_supplementary_groups() {
    let network = Network::start();
    let mount = network.mount();
    fs::set_permissions(mount.root(), fs::Permissions::from_mode(0o755)).unwrap();
    fs::write(mount.path("private"), "s").unwrap();
    fs::set_permissions(mount.path("private"), fs::Permissions::from_mode(0o600)).unwrap();
    fs::write(mount.path("group"), "g").unwrap();
    fs::set_permissions(mount.path("group"), fs::Permissions::from_mode(0o640)).unwrap();
    std::os::unix::fs::chown(mount.path("group"), None, Some(4242)).unwrap();
    // The temporary folder itself is root's own.
    fs::set_permissions(mount.root().parent().unwrap(), fs::Permissions::from_mode(0o1777)).unwrap();
    let reads = |groups: &str, name: &str| {
        let mut command = Command::new("setpriv");
        command.args(["--reuid=1234", "--regid=1234", groups, "cat"]).arg(mount.path(name));
        command.output().unwrap().status.success()
    };
    assert!(!reads("--clear-groups", "private"));
    assert!(!reads("--clear-groups", "group"));
    assert!(reads("--groups=77,4242", "group"));
    let status = Command::new("touch").arg(mount.path("new")).uid(1234).gid(1234).output().unwrap().status;
    assert!(!status.success(), "root's directory is closed to others");
}

#[test]
fn the_umask_applies_unless_a_default_acl_takes_its_place() {
    let network = Network::start();
    let mount = network.mount();
    let make = |path: &Path| {
        let script = format!("umask 027; : > '{0}/f'; mkdir '{0}/d'", path.display());
        assert!(Command::new("sh").arg("-c").arg(script).status().unwrap().success());
        let mode = |name: &str| fs::metadata(path.join(name)).unwrap().mode() & 0o7777;
        (mode("f"), mode("d"))
    };
    fs::create_dir(mount.path("plain")).unwrap();
    assert_eq!(make(&mount.path("plain")), (0o640, 0o750));
    // user::rwx group::rwx mask::rwx other::r-x user:1234:rwx
    let entry = |tag: u16, perm: u16, id: u32| {
        [&tag.to_le_bytes()[..], &perm.to_le_bytes(), &id.to_le_bytes()].concat()
    };
    let acl = [
        2u32.to_le_bytes().to_vec(),
        entry(1, 7, u32::MAX),
        entry(2, 7, 1234),
        entry(4, 7, u32::MAX),
        entry(0x10, 7, u32::MAX),
        entry(0x20, 5, u32::MAX),
    ]
    .concat();
    fs::create_dir(mount.path("acl")).unwrap();
    setxattr(mount.path("acl"), "system.posix_acl_default", &acl, XattrFlags::empty()).unwrap();
    assert_eq!(make(&mount.path("acl")), (0o664, 0o775));
}

#[test]
fn times_are_set_to_the_nanosecond() {
    let network = Network::start();
    let (mount, other) = (network.mount(), network.mount());
    let file = File::create(mount.path("file")).unwrap();
    let time = std::time::UNIX_EPOCH + Duration::new(1_234_567_890, 987_654_321);
    file.set_times(fs::FileTimes::new().set_modified(time).set_accessed(time)).unwrap();
    let meta = fs::metadata(other.path("file")).unwrap();
    assert_eq!((meta.modified().unwrap(), meta.accessed().unwrap()), (time, time));
}

#[test]
fn a_subdirectory_can_be_mounted_and_read_only() {
    let network = Network::start();
    let whole = network.mount();
    fs::create_dir_all(whole.path("a/b")).unwrap();
    fs::write(whole.path("a/b/file"), "x").unwrap();
    let part = network.mount_with("a/b", MountOptions { read_only: true, ..MountOptions::default() });
    assert_eq!(fs::read_to_string(part.path("file")).unwrap(), "x");
    assert_eq!(errno(fs::write(part.path("file"), "y")), libc::EROFS);
    assert_eq!(
        fs::metadata(part.root()).unwrap().ino(),
        fs::metadata(whole.path("a/b")).unwrap().ino(),
        "the mount's root has the number it has everywhere"
    );
    part.unmount();
}

#[test]
fn the_file_system_tells_its_space() {
    let network = Network::start();
    let mount = network.mount();
    let space = rustix::fs::statvfs(mount.root()).unwrap();
    assert!(space.f_blocks > 0 && space.f_bavail <= space.f_blocks && space.f_namemax == 255);
}

#[test]
fn direct_io_reads_and_writes_the_same() {
    let network = Network::start();
    let mut options = MountOptions::default();
    options.caching.direct_io = true;
    let (direct, cached) = (network.mount_with("", options), network.mount());
    let data = pattern(2 << 20, 3);
    fs::write(direct.path("file"), &data).unwrap();
    assert!(fs::read(cached.path("file")).unwrap() == data);
    let file = OpenOptions::new().write(true).custom_flags(libc::O_DIRECT).open(cached.path("file")).unwrap();
    file.write_all_at(&[9; 4096], 4096).unwrap();
    assert_eq!(fs::read(direct.path("file")).unwrap()[4096..8192], [9; 4096]);
}

#[test]
fn the_volcanos_internal_directory_is_read_only_and_unlisted() {
    let network = Network::start();
    let mount = network.mount();
    let files: Vec<_> = fs::read_dir(mount.path(".dht")).unwrap().map(Result::unwrap).collect();
    assert!(!files.is_empty());
    let text = fs::read_to_string(files[0].path()).unwrap();
    assert!(text.contains("nickname = wallace"), "{text}");
    assert!(fs::write(mount.path(".dht/new"), "x").is_err());
    assert!(fs::read_dir(mount.root()).unwrap().all(|entry| entry.unwrap().file_name() != ".dht"));
}
