use super::*;

use magma_common::attr::SetAttr;
use magma_common::key::KeyRange;
use magma_common::proto::operation::{
    ACCESS_DELETE, ACCESS_WRITE, Access, Create, GetXattr, Getattr, Link, Lock, LockFamily, LockKind,
    LockOwner, Lookup, LookupParent, Mkdir, Operation, Readlink, Rename, RenameHow, Rmdir, SetXattr, Setattr,
    StatMany, Statfs, Unlink, Write, WriteAt, XattrHow,
};
use magma_common::topology::{BootId, Epoch, Replica, Slice, SliceId};

struct World {
    topology: Topology,
    figures: Vec<(VolcanoId, Figures)>,
    root: Attr,
}

fn at(seconds: i64) -> Timestamp {
    Timestamp::new(seconds, 0).unwrap()
}

fn member(id: u64, nickname: &str) -> Member {
    Member {
        id: VolcanoId(id),
        boot: BootId(0x3_0000_00b0),
        nickname: nickname.to_owned(),
        servername: format!("{nickname}.intranet"),
        address: "10.0.0.1".parse().unwrap(),
        port: 12000,
        bandwidth: 1024,
        witness: false,
        leaving: false,
    }
}

impl World {
    fn new() -> Self {
        let slice = Slice {
            id: SliceId(1),
            range: KeyRange::ALL,
            epoch: Epoch(1),
            reign: Epoch(1),
            owner: VolcanoId(1),
            assigned: Epoch(1),
            primary: Replica { volcano: VolcanoId(1), boot: BootId(0x3_0000_00b0) },
            mirrors: Vec::new(),
            joining: vec![Replica { volcano: VolcanoId(2), boot: BootId(0x3_0000_00b0) }],
            recalling: false,
            dividing: None,
        };
        let figures = Figures {
            load: 0.5,
            keys: 3,
            bytes: 4096,
            total: 1 << 30,
            free: 1 << 29,
            started: at(900),
            version: "0.1.0".to_owned(),
            copies: vec![CopyReport {
                slice: SliceId(1),
                epoch: Epoch(1),
                load: None,
                doing: Doing::Serving { degraded: Some(at(950)), others: Vec::new() },
            }],
            coordinates: true,
        };
        Self {
            topology: Topology {
                version: 7,
                network: 0xabc,
                lineage: 1,
                loss_counter: 0,
                departed: Vec::new(),
                members: vec![member(1, "wallace"), member(2, "gromit")],
                slices: vec![slice],
                ancestors: Vec::new(),
                handle_key: [0x5e; 32],
                copies: 2,
                voters: Vec::new(),
                balancer: false,
                stripes: None,
            },
            figures: vec![(VolcanoId(1), figures)],
            root: Attr {
                handle: Handle::root(),
                kind: Kind::Directory,
                mode: 0o755,
                nlink: 2,
                uid: 0,
                gid: 0,
                rdev: 0,
                size: 0,
                used: 0,
                atime: at(1),
                mtime: at(1),
                ctime: at(1),
                btime: at(1),
                change: 1,
            },
        }
    }

    fn answer(&self, request: impl Into<Request>) -> Option<Answer> {
        let (topology, figures, root) = (&self.topology, self.figures.as_slice(), &self.root);
        answer(&DhtState { topology, figures, taken: at(1000), root }, &request.into())
    }

    fn ask<O: Operation>(&self, operation: O) -> Result<O::Reply, FlareError> {
        let (reply, _) =
            self.answer(operation).expect("it concerns /.dht").map_err(|failure| failure.error)?;
        Ok(O::reply(reply).expect("the reply fits the request"))
    }

    fn error<O: Operation<Reply: std::fmt::Debug>>(&self, operation: O) -> FlareError {
        self.ask(operation).unwrap_err()
    }

    fn file(&self) -> Handle {
        self.ask(Lookup { dir: dht_handle(), name: name("wallace") }).unwrap().attr.handle
    }
}

fn name(text: &str) -> Name {
    Name::new(text.as_bytes().to_vec()).unwrap()
}

fn readdir(cookie: u64, limit: u32) -> Readdir {
    Readdir { dir: dht_handle(), cookie, limit, attributes: true, opened: false }
}

#[test]
fn the_directory_is_found_in_the_root_and_leads_back_to_it() {
    let world = World::new();
    let found = world.ask(Lookup { dir: Handle::root(), name: name(".dht") }).unwrap();
    assert_eq!(
        (found.attr.kind, found.attr.mode, found.dir.handle),
        (Kind::Directory, 0o555, Handle::root())
    );
    assert_eq!(found.attr.handle.birth, BirthNumber::INTERNAL);
    // printf /.dht | sha1sum
    assert_eq!(found.attr.handle.key, BirthString::from_stored(b"/.dht".to_vec()).key());
    assert_eq!(world.ask(LookupParent { dir: dht_handle() }).unwrap().attr.handle, Handle::root());
}

#[test]
fn requests_for_stored_flares_are_left_alone() {
    let world = World::new();
    assert_eq!(world.answer(Lookup { dir: Handle::root(), name: name("docs") }), None);
    assert_eq!(world.answer(Getattr { handle: Handle::root() }), None);
    assert_eq!(world.answer(Statfs), None);
    let elsewhere = Handle { key: BirthString::root().child(b"x").key(), birth: BirthNumber(5) };
    assert_eq!(
        world.answer(Mkdir {
            dir: elsewhere,
            name: name(".dht"),
            mode: 0,
            umask: 0,
            set: SetAttr::default()
        }),
        None
    );
    assert_eq!(world.answer(StatMany { handles: vec![dht_handle(), elsewhere] }), None);
}

#[test]
fn a_volcanos_file_says_all_but_the_secrets() {
    let world = World::new();
    let read = |offset, length| {
        let (reply, data) =
            world.answer(Read { handle: world.file(), offset, length, opened: true }).unwrap().unwrap();
        let Reply::Read(reply) = reply else { panic!("not a read's reply") };
        assert_eq!(reply.attr, world.ask(Getattr { handle: world.file() }).unwrap());
        (String::from_utf8(data.to_vec()).unwrap(), reply.eof, reply.attr.size)
    };
    let (text, eof, size) = read(0, 4096);
    let expected = "\
nickname = wallace
servername = wallace.intranet
ip = 10.0.0.1
port = 12000
node_port = 12001
console_port = 12002
status_port = 12003
bandwidth = 1024
volcano_id = 0000000000000001
boot_id = 00000003000000b0
boot = 3
network = 0000000000000abc
lineage = 0000000000000001
topology_version = 7
start_key = 0000000000000000000000000000000000000000
stop_key = ffffffffffffffffffffffffffffffffffffffff
slice.1 = 0000000000000000000000000000000000000000 ffffffffffffffffffffffffffffffffffffffff epoch 1
role = serving
leaving = no
slice.1.copies = wallace gromit
slice.1.epoch = 1
slice.1.in_sync = 1 of 2
slice.1.degraded_since = 950
load = 0.50
keys = 3
bytes = 4096
disk_total = 1073741824
disk_free = 536870912
started = 900
version = 0.1.0
";
    assert_eq!(text, expected);
    assert!(eof && size == text.len() as u64 && !text.contains("5e5e"));
    assert_eq!(read(11, 7), ("wallace".to_owned(), false, size));
    assert_eq!(read(u64::MAX, u32::MAX), (String::new(), true, size));
}

#[test]
fn a_volcano_that_was_not_heard_from_shows_its_part_in_the_slice_all_the_same() {
    let world = World::new();
    let handle = world.ask(Lookup { dir: dht_handle(), name: name("gromit") }).unwrap().attr.handle;
    let (_, data) = world.answer(Read { handle, offset: 0, length: 4096, opened: true }).unwrap().unwrap();
    let text = String::from_utf8(data.to_vec()).unwrap();
    let part = "role = joining\nleaving = no\nslice.1.copies = wallace gromit\nslice.1.epoch = 1\n";
    assert!(text.contains(part) && text.ends_with("load = unknown\n"), "{text}");
}

#[test]
fn the_listing_goes_on_after_any_cookie() {
    let world = World::new();
    let first = world.ask(readdir(0, 1)).unwrap();
    assert_eq!((first.entries.len(), first.eof), (1, false));
    assert_eq!(first.entries[0].name, name("wallace"));
    assert_eq!(first.entries[0].attr.as_ref().unwrap().mode, 0o444);
    let rest = world.ask(readdir(first.entries[0].cookie, 100)).unwrap();
    assert_eq!((rest.entries[0].name.clone(), rest.eof), (name("gromit"), true));
    assert!(world.ask(readdir(u64::MAX, 0)).unwrap().entries.is_empty());
    assert!(first.entries[0].cookie >= FIRST_COOKIE);
}

#[test]
fn nothing_under_it_can_be_changed() {
    let world = World::new();
    let (dir, file) = (dht_handle(), world.file());
    let set = SetAttr { mode: Some(0o777), ..SetAttr::default() };
    assert_eq!(
        world.error(Setattr { handle: file, set: set.clone(), guard: None, opened: false }),
        FlareError::ReadOnly
    );
    assert_eq!(world.error(Mkdir { dir, name: name("x"), mode: 0, umask: 0, set }), FlareError::ReadOnly);
    assert_eq!(world.error(Unlink { dir, name: name("wallace") }), FlareError::ReadOnly);
    assert_eq!(world.error(Write { handle: file, at: WriteAt::End, opened: true }), FlareError::ReadOnly);
    let value = Bytes::from_static(b"v");
    let set = SetXattr { handle: file, name: name("user.x"), value, how: XattrHow::Any, clear_setgid: false };
    assert_eq!(world.error(set), FlareError::ReadOnly);
    let open = Open { handle: file, read: true, write: true, execute: false, truncate: false };
    assert_eq!(world.error(open), FlareError::ReadOnly);
    let all = ACCESS_READ | ACCESS_WRITE | ACCESS_EXECUTE | ACCESS_DELETE;
    let granted = |handle| world.ask(Access { handle, mask: all }).unwrap().granted;
    assert_eq!((granted(dir), granted(file)), (ACCESS_READ | ACCESS_EXECUTE, ACCESS_READ));
    let failure = world.answer(Unlink { dir, name: name("wallace") }).unwrap().unwrap_err();
    assert_eq!(failure.first.after.unwrap().handle, dir, "the doors get attributes with the refusal");
}

#[test]
fn its_own_name_in_the_root_is_taken_for_ever() {
    let world = World::new();
    let (root, dht, other) = (Handle::root(), name(".dht"), name("other"));
    let create = |how| Create {
        dir: root,
        name: dht.clone(),
        mode: 0,
        umask: 0,
        how,
        set: SetAttr::default(),
        open: false,
    };
    assert_eq!(world.error(create(CreateHow::Guarded)), FlareError::Exists);
    assert_eq!(world.error(create(CreateHow::Unchecked)), FlareError::IsDirectory);
    assert_eq!(world.error(Rmdir { dir: root, name: dht.clone() }), FlareError::ReadOnly);
    let stored = Handle { key: BirthString::root().child(b"x").key(), birth: BirthNumber(5) };
    assert_eq!(world.error(Link { handle: stored, dir: root, name: dht.clone() }), FlareError::Exists);
    let rename = |from: &Name, to: &Name| Rename {
        from_dir: root,
        from_name: from.clone(),
        to_dir: root,
        to_name: to.clone(),
        how: RenameHow::Replace,
    };
    assert_eq!(world.error(rename(&dht, &other)), FlareError::ReadOnly);
    assert_eq!(world.error(rename(&other, &dht)), FlareError::ReadOnly);
}

#[test]
fn what_makes_no_sense_is_refused_as_elsewhere() {
    let world = World::new();
    let (dir, file) = (dht_handle(), world.file());
    assert_eq!(world.error(Lookup { dir, name: name("feathers") }), FlareError::NotFound);
    assert_eq!(world.error(Lookup { dir: file, name: name("x") }), FlareError::NotDirectory);
    assert_eq!(world.error(LookupParent { dir: file }), FlareError::NotDirectory);
    assert_eq!(
        world.error(Read { handle: dir, offset: 0, length: 1, opened: false }),
        FlareError::IsDirectory
    );
    assert_eq!(world.error(Readlink { handle: file }), FlareError::NotSymlink);
    assert_eq!(world.error(GetXattr { handle: file, name: name("user.x") }), FlareError::NoAttribute);
    let gone = Handle { key: BirthString::root().key(), birth: BirthNumber::INTERNAL };
    assert_eq!(world.error(Getattr { handle: gone }), FlareError::Stale);
    assert_eq!(world.error(Unlink { dir: gone, name: name("x") }), FlareError::Stale);
    let owner = LockOwner { owner: 1, pid: 1 };
    let kind = LockKind::Shared;
    let lock = Lock { handle: file, family: LockFamily::Posix, owner, kind, start: 0, end: 1, wait: false };
    assert_eq!(world.error(lock), FlareError::NotSupported);
    let seek = |offset, whence| world.ask(Seek { handle: file, offset, whence }).map(|reply| reply.offset);
    let size = world.ask(Getattr { handle: file }).unwrap().size;
    assert_eq!(seek(5, SeekWhence::Data), Ok(5));
    assert_eq!(seek(5, SeekWhence::Hole), Ok(size));
    assert_eq!(seek(size, SeekWhence::Hole), Err(FlareError::NoSuchOffset));
}
