use super::world::*;

use magma_common::attr::Kind;
use magma_common::error::FlareError;
use magma_common::handle::Handle;
use magma_common::proto::limits::MAX_LINKS;
use magma_common::proto::operation::*;

#[test]
fn a_link_is_another_name_of_the_same_flare() {
    let mut world = World::new();
    let dir = world.mkdir(&root(), Handle::root(), "d");
    for kind in [Kind::File, Kind::Fifo, Kind::CharDevice] {
        let file = world.mknod(Handle::root(), "f", kind);
        world.pass(1);
        let attr = world.link(&root(), file, dir, "g").unwrap();
        assert_eq!((attr.handle, attr.nlink, attr.ctime), (file, 2, world.now));
        assert!(attr.mtime < world.now);
        assert_eq!(world.attr(dir).mtime, world.now);
        assert_eq!(world.lookup(dir, "g"), Ok(file));
        world.unlink(&root(), Handle::root(), "f").unwrap();
        world.unlink(&root(), dir, "g").unwrap();
    }
}

#[test]
fn symlinks_themselves_can_be_linked_and_directories_cannot() {
    let mut world = World::new();
    let link = world.symlink(Handle::root(), "l", "x");
    assert_eq!(world.link(&root(), link, Handle::root(), "m").unwrap().nlink, 2);
    let dir = world.mkdir(&root(), Handle::root(), "d");
    let refused = world.link(&root(), dir, Handle::root(), "e");
    assert_eq!(refused.map(|_| ()), Err(FlareError::NotPermitted));
}

#[test]
fn a_name_that_exists_is_not_linked_over() {
    let mut world = World::new();
    let file = world.create(&root(), Handle::root(), "f");
    world.mkdir(&root(), Handle::root(), "d");
    for taken in ["f", "d"] {
        let refused = world.link(&root(), file, Handle::root(), taken);
        assert_eq!(refused.map(|_| ()), Err(FlareError::Exists));
    }
}

#[test]
fn no_more_links_than_the_limit_but_renaming_goes_on() {
    let mut world = World::new();
    let file = world.create(&root(), Handle::root(), "f");
    // So many names would take a test too long to make; only their number matters here.
    world.memory.flares.get_mut(&file.key).unwrap().nlink = MAX_LINKS;
    let caller = crate::namespace::Caller { credentials: &root(), session: SESSION, stable: false };
    let link = Link { handle: file, dir: Handle::root(), name: name("g") }.into();
    let refused = world.plan(|plan| crate::namespace::execute(plan, &caller, &link, &bytes::Bytes::new()));
    let Err(crate::namespace::Stop::Failure(failure)) = refused else { panic!("refused") };
    assert_eq!(failure.error, FlareError::TooManyLinks);
    let op = Rename {
        from_dir: Handle::root(),
        from_name: name("f"),
        to_dir: Handle::root(),
        to_name: name("g"),
        how: RenameHow::Replace,
    };
    let op = op.into();
    let renamed = world.plan(|plan| crate::namespace::execute(plan, &caller, &op, &bytes::Bytes::new()));
    assert!(renamed.is_ok());
    assert_eq!(world.row(file).nlink, MAX_LINKS);
}
