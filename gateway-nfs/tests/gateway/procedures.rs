//! Every procedure, from an NFS client of another make through the gateway to a real volcano.

use magma_gateway_nfs::Running;
use magma_tests::network::Network;
use nfs3_client::nfs3_types::nfs3::*;
use nfs3_client::nfs3_types::xdr_codec::Opaque;

use crate::support::nfs::*;
use crate::support::{address, gateway};

const OPEN: &str = "/:no_root_squash,insecure";

/// A network, a gateway, a client that is root, and the root directory's handle.
async fn start(exports: &[&str]) -> (Network, Running, Nfs, nfs_fh3) {
    let network = Network::start();
    let gateway = gateway(network.client_config(), exports).await;
    let root = mount(address(&gateway), b"/").await;
    let nfs = as_root(address(&gateway)).await;
    (network, gateway, nfs, root)
}

#[tokio::test]
async fn files_are_made_written_committed_read_and_cut() {
    let (_network, _gateway, mut nfs, root) = start(&[OPEN]).await;
    let file = create(&mut nfs, &root, b"file").await;
    let data: Vec<u8> = (0..1_000_000u32).map(|i| (i % 251) as u8).collect();
    let unstable = write(&mut nfs, &file, 0, &data, stable_how::UNSTABLE).await;
    assert_eq!((unstable.count, unstable.committed), (1_000_000, stable_how::UNSTABLE));
    let wcc = unstable.file_wcc;
    assert_eq!((wcc.before.unwrap().size, wcc.after.unwrap().size), (0, 1_000_000));
    let stable = write(&mut nfs, &file, 1_000_000, b"end", stable_how::DATA_SYNC).await;
    assert_eq!(stable.committed, stable_how::FILE_SYNC);
    let commit = nfs.commit(&COMMIT3args { file: file.clone(), offset: 0, count: 0 }).await.unwrap().unwrap();
    assert_eq!((commit.verf, stable.verf), (unstable.verf, unstable.verf));

    assert_eq!(read(&mut nfs, &file, 0, 1 << 20).await, ([&data[..], b"end"].concat(), true));
    assert!(!read(&mut nfs, &file, 999_999, 2).await.1);
    assert_eq!(read(&mut nfs, &file, 1_000_003, 10).await, (vec![], true));
    assert_eq!(read(&mut nfs, &file, 5, 0).await, (vec![], false));

    let cut = sattr3 { size: Nfs3Option::Some(3), ..sattr3::default() };
    let args = SETATTR3args { object: file.clone(), new_attributes: cut, guard: Nfs3Option::None };
    let wcc = nfs.setattr(&args).await.unwrap().unwrap().obj_wcc;
    assert_eq!((wcc.before.unwrap().size, wcc.after.unwrap().size), (1_000_003, 3));
    assert_eq!(read(&mut nfs, &file, 0, 10).await, (vec![0, 1, 2], true));
}

#[tokio::test]
async fn attributes_are_set_and_guarded() {
    let (_network, _gateway, mut nfs, root) = start(&[OPEN]).await;
    let file = create(&mut nfs, &root, b"file").await;
    let before = attributes(&mut nfs, &file).await;
    assert_eq!((before.type_, before.mode, before.nlink, before.size), (ftype3::NF3REG, 0o644, 1, 0));
    let time = nfstime3 { seconds: 1_000_000, nseconds: 7 };
    let set = sattr3 {
        mode: Nfs3Option::Some(0o100_600),
        uid: Nfs3Option::Some(1000),
        gid: Nfs3Option::Some(100),
        size: Nfs3Option::Some(5),
        atime: set_atime::SET_TO_CLIENT_TIME(time),
        mtime: set_mtime::SET_TO_CLIENT_TIME(time),
    };
    let mut setattr = async |guard| {
        let args = SETATTR3args { object: file.clone(), new_attributes: set.clone(), guard };
        status(nfs.setattr(&args).await.unwrap())
    };
    assert_eq!(setattr(Nfs3Option::Some(time)).await, nfsstat3::NFS3ERR_NOT_SYNC);
    assert_eq!(setattr(Nfs3Option::Some(before.ctime)).await, nfsstat3::NFS3_OK);
    assert_eq!(setattr(Nfs3Option::Some(before.ctime)).await, nfsstat3::NFS3ERR_NOT_SYNC);
    let after = attributes(&mut nfs, &file).await;
    assert_eq!((after.mode, after.uid, after.gid, after.size), (0o600, 1000, 100, 5));
    assert_eq!((after.atime, after.mtime), (time, time));
}

#[tokio::test]
async fn a_name_is_created_as_the_client_asks() {
    let (_network, _gateway, mut nfs, root) = start(&[OPEN]).await;
    let exclusive = |verifier: u8| createhow3::EXCLUSIVE(createverf3([verifier; 8]));
    let how = [
        (createhow3::GUARDED(mode(0o600)), nfsstat3::NFS3_OK),
        (createhow3::GUARDED(mode(0o600)), nfsstat3::NFS3ERR_EXIST),
        (createhow3::UNCHECKED(mode(0o600)), nfsstat3::NFS3_OK),
        (exclusive(1), nfsstat3::NFS3ERR_EXIST),
    ];
    for (how, expected) in how {
        let made = nfs.create(&CREATE3args { where_: at(&root, b"file"), how }).await.unwrap();
        assert_eq!(status(made), expected);
    }
    let mut make = async |verifier| {
        nfs.create(&CREATE3args { where_: at(&root, b"lock"), how: exclusive(verifier) }).await.unwrap()
    };
    let first = make(1).await.unwrap().obj.unwrap();
    assert_eq!(make(1).await.unwrap().obj.unwrap(), first, "the same verifier finds its file again");
    assert_eq!(status(make(2).await), nfsstat3::NFS3ERR_EXIST);
}

#[tokio::test]
async fn names_are_looked_up_linked_renamed_and_removed() {
    let (_network, _gateway, mut nfs, root) = start(&[OPEN]).await;
    let dir = mkdir(&mut nfs, &root, b"dir", 0o755).await;
    let file = create(&mut nfs, &dir, b"a").await;
    assert_eq!(lookup(&mut nfs, &dir, b"a").await.unwrap().object, file);
    assert_eq!(lookup(&mut nfs, &dir, b".").await.unwrap().object, dir);
    assert_eq!(lookup(&mut nfs, &dir, b"..").await.unwrap().object, root);
    assert_eq!(lookup(&mut nfs, &root, b"..").await.unwrap().object, root);
    assert_eq!(status(lookup(&mut nfs, &dir, b"b").await), nfsstat3::NFS3ERR_NOENT);
    assert_eq!(status(lookup(&mut nfs, &file, b"x").await), nfsstat3::NFS3ERR_NOTDIR);
    assert_eq!(status(lookup(&mut nfs, &dir, &[b'x'; 256]).await), nfsstat3::NFS3ERR_NAMETOOLONG);

    let link = LINK3args { file: file.clone(), link: at(&root, b"b") };
    let linked = nfs.link(&link).await.unwrap().unwrap();
    assert_eq!(linked.file_attributes.unwrap().nlink, 2);
    assert!(linked.linkdir_wcc.before.is_some());
    assert_eq!(status(nfs.link(&link).await.unwrap()), nfsstat3::NFS3ERR_EXIST);

    let rename = RENAME3args { from: at(&root, b"b"), to: at(&dir, b"c") };
    let renamed = nfs.rename(&rename).await.unwrap().unwrap();
    assert!(renamed.fromdir_wcc.after.is_some() && renamed.todir_wcc.after.is_some());
    assert_eq!(lookup(&mut nfs, &dir, b"c").await.unwrap().object, file);

    let remove = |name| REMOVE3args { object: at(&dir, name) };
    assert_eq!(status(nfs.remove(&remove(b"a")).await.unwrap()), nfsstat3::NFS3_OK);
    assert_eq!(
        status(nfs.rmdir(&RMDIR3args { object: at(&root, b"dir") }).await.unwrap()),
        nfsstat3::NFS3ERR_NOTEMPTY
    );
    assert_eq!(
        status(nfs.remove(&REMOVE3args { object: at(&root, b"dir") }).await.unwrap()),
        nfsstat3::NFS3ERR_ISDIR
    );
    assert_eq!(
        status(nfs.rmdir(&RMDIR3args { object: at(&dir, b"c") }).await.unwrap()),
        nfsstat3::NFS3ERR_NOTDIR
    );
    assert_eq!(status(nfs.remove(&remove(b"c")).await.unwrap()), nfsstat3::NFS3_OK);
    assert_eq!(
        status(nfs.rmdir(&RMDIR3args { object: at(&root, b"dir") }).await.unwrap()),
        nfsstat3::NFS3_OK
    );
    assert_eq!(status(nfs.getattr(&GETATTR3args { object: file }).await.unwrap()), nfsstat3::NFS3ERR_STALE);
    assert_eq!(status(nfs.getattr(&GETATTR3args { object: dir }).await.unwrap()), nfsstat3::NFS3ERR_STALE);
}

#[tokio::test]
async fn the_names_of_dots_cannot_be_made_or_removed() {
    let (_network, _gateway, mut nfs, root) = start(&[OPEN]).await;
    for dots in [&b"."[..], b".."] {
        let made = nfs.mkdir(&MKDIR3args { where_: at(&root, dots), attributes: mode(0o755) }).await.unwrap();
        assert_eq!(status(made), nfsstat3::NFS3ERR_EXIST);
        let removed = nfs.remove(&REMOVE3args { object: at(&root, dots) }).await.unwrap();
        assert_eq!(status(removed), nfsstat3::NFS3ERR_INVAL);
    }
    let mut rmdir =
        async |dots: &[u8]| status(nfs.rmdir(&RMDIR3args { object: at(&root, dots) }).await.unwrap());
    assert_eq!(rmdir(b".").await, nfsstat3::NFS3ERR_INVAL);
    assert_eq!(rmdir(b"..").await, nfsstat3::NFS3ERR_EXIST);
    assert_eq!(rmdir(b"a/b").await, nfsstat3::NFS3ERR_INVAL);
}

#[tokio::test]
async fn symbolic_links_and_special_files_are_made_and_read() {
    let (_network, _gateway, mut nfs, root) = start(&[OPEN]).await;
    let symlink =
        symlinkdata3 { symlink_attributes: sattr3::default(), symlink_data: (&b"to/\xff"[..]).into() };
    let made = nfs.symlink(&SYMLINK3args { where_: at(&root, b"link"), symlink }).await.unwrap().unwrap();
    let link = made.obj.unwrap();
    assert_eq!(made.obj_attributes.unwrap().type_, ftype3::NF3LNK);
    let read = nfs.readlink(&READLINK3args { symlink: link }).await.unwrap().unwrap();
    assert_eq!(read.data.as_ref(), b"to/\xff");
    assert_eq!(
        status(nfs.readlink(&READLINK3args { symlink: root.clone() }).await.unwrap()),
        nfsstat3::NFS3ERR_INVAL
    );

    let device =
        || devicedata3 { dev_attributes: mode(0o600), spec: specdata3 { specdata1: 259, specdata2: 70_000 } };
    let kinds = [
        (mknoddata3::NF3FIFO(mode(0o600)), ftype3::NF3FIFO),
        (mknoddata3::NF3SOCK(mode(0o600)), ftype3::NF3SOCK),
        (mknoddata3::NF3CHR(device()), ftype3::NF3CHR),
        (mknoddata3::NF3BLK(device()), ftype3::NF3BLK),
    ];
    for (what, kind) in kinds {
        let name = kind.to_string().into_bytes();
        let made = nfs.mknod(&MKNOD3args { where_: at(&root, &name), what }).await.unwrap().unwrap();
        let attr = made.obj_attributes.unwrap();
        assert_eq!((attr.type_, attr.mode), (kind, 0o600));
        if matches!(kind, ftype3::NF3CHR | ftype3::NF3BLK) {
            assert_eq!(attr.rdev, specdata3 { specdata1: 259, specdata2: 70_000 });
        }
    }
}

#[tokio::test]
async fn listings_are_complete_and_in_pieces_of_any_size() {
    let (_network, _gateway, mut nfs, root) = start(&[OPEN]).await;
    let dir = mkdir(&mut nfs, &root, b"dir", 0o755).await;
    let mut expected: Vec<Vec<u8>> = vec![b".".to_vec(), b"..".to_vec()];
    for number in 0..60 {
        let name = vec![b'a' + number % 26; 1 + usize::from(number) * 4];
        create(&mut nfs, &dir, &name).await;
        expected.push(name);
    }
    expected.sort();
    for count in [400, 1000, 4096, 65_536, u32::MAX] {
        let listing = list(&mut nfs, &dir, count).await;
        assert!(listing.is_sorted_by_key(|(_, cookie, _)| *cookie));
        let mut names: Vec<Vec<u8>> = listing.into_iter().map(|(name, ..)| name).collect();
        names.sort();
        assert_eq!(names, expected, "in pieces of {count}");
    }
    let args = READDIR3args { dir: dir.clone(), cookie: 0, cookieverf: cookieverf3::default(), count: 120 };
    assert_eq!(status(nfs.readdir(&args).await.unwrap()), nfsstat3::NFS3ERR_TOOSMALL);
    let above = list(&mut nfs, &dir, 4096).await.remove(1).2;
    assert_eq!(above, attributes(&mut nfs, &root).await.fileid);
}

#[tokio::test]
async fn listings_go_on_while_entries_come_and_go() {
    let (_network, _gateway, mut nfs, root) = start(&[OPEN]).await;
    for number in 0..40 {
        create(&mut nfs, &root, format!("{number:02}").as_bytes()).await;
    }
    let args = READDIR3args { dir: root.clone(), cookie: 0, cookieverf: cookieverf3::default(), count: 600 };
    let page = nfs.readdir(&args).await.unwrap().unwrap();
    let seen: Vec<Vec<u8>> = page.reply.entries.0.iter().map(|entry| entry.name.as_ref().to_vec()).collect();
    let cookie = page.reply.entries.0.last().unwrap().cookie;
    assert!(seen.len() < 30 && !page.reply.eof);
    // What has been listed goes, the one the cookie stands for too; what has not been stays.
    for name in seen.iter().skip(2) {
        nfs.remove(&REMOVE3args { object: at(&root, name) }).await.unwrap().unwrap();
    }
    create(&mut nfs, &root, b"new").await;
    let args = READDIR3args { cookie, cookieverf: page.cookieverf, count: 65_536, ..args };
    let rest = nfs.readdir(&args).await.unwrap().unwrap().reply;
    let rest: Vec<Vec<u8>> = rest.entries.0.iter().map(|entry| entry.name.as_ref().to_vec()).collect();
    assert_eq!(rest.len(), 40 - (seen.len() - 2) + 1);
    assert!(rest.contains(&b"new".to_vec()) && rest.contains(&b"39".to_vec()));
}

#[tokio::test]
async fn listings_with_attributes_carry_handles_and_keep_to_both_limits() {
    let (_network, _gateway, mut nfs, root) = start(&[OPEN]).await;
    let file = create(&mut nfs, &root, b"file").await;
    for number in 0..50 {
        mkdir(&mut nfs, &root, format!("dir{number}").as_bytes(), 0o755).await;
    }
    let args = |cookie, dircount, maxcount| READDIRPLUS3args {
        dir: root.clone(),
        cookie,
        cookieverf: cookieverf3::default(),
        dircount,
        maxcount,
    };
    let page = nfs.readdirplus(&args(0, 65_536, 65_536)).await.unwrap().unwrap().reply;
    assert_eq!((page.entries.0.len(), page.eof), (53, true));
    for entry in &page.entries.0 {
        let attr = entry.name_attributes.clone().unwrap();
        assert_eq!(attr.fileid, entry.fileid);
        if entry.name.as_ref() == b"file" {
            assert_eq!((entry.name_handle.clone().unwrap(), attr.type_), (file.clone(), ftype3::NF3REG));
        }
    }
    let few = nfs.readdirplus(&args(0, 200, 65_536)).await.unwrap().unwrap().reply;
    assert!((3..10).contains(&few.entries.0.len()) && !few.eof);
    let small = nfs.readdirplus(&args(2, 65_536, 1000)).await.unwrap().unwrap().reply;
    assert!((1..6).contains(&small.entries.0.len()) && !small.eof);
}

#[tokio::test]
async fn the_file_system_describes_itself() {
    let (_network, _gateway, mut nfs, root) = start(&[OPEN]).await;
    let info = nfs.fsinfo(&FSINFO3args { fsroot: root.clone() }).await.unwrap().unwrap();
    assert_eq!((info.rtmax, info.wtmax), (1 << 20, 1 << 20));
    assert_eq!(info.time_delta, nfstime3 { seconds: 0, nseconds: 1 });
    assert_eq!(info.properties, FSF3_LINK | FSF3_SYMLINK | FSF3_HOMOGENEOUS | FSF3_CANSETTIME);
    let space = nfs.fsstat(&FSSTAT3args { fsroot: root.clone() }).await.unwrap().unwrap();
    assert!(space.tbytes >= space.fbytes && space.fbytes >= space.abytes && space.abytes > 0);
    assert!(space.tfiles > space.ffiles && space.ffiles > 0);
    let limits = nfs.pathconf(&PATHCONF3args { object: root }).await.unwrap().unwrap();
    assert_eq!((limits.name_max, limits.no_trunc, limits.chown_restricted), (255, true, true));
    assert_eq!((limits.case_insensitive, limits.case_preserving), (false, true));
}

#[tokio::test]
async fn permissions_are_those_of_the_caller() {
    let (_network, gateway, mut root_client, root) = start(&[OPEN]).await;
    let dir = mkdir(&mut root_client, &root, b"shared", 0o777).await;
    let mut owner = connect(address(&gateway), 1000, 100, &[]).await;
    let mut friend = connect(address(&gateway), 1001, 5, &[100]).await;
    let mut stranger = connect(address(&gateway), 1002, 5, &[]).await;
    let how = createhow3::GUARDED(mode(0o640));
    let file =
        owner.create(&CREATE3args { where_: at(&dir, b"file"), how }).await.unwrap().unwrap().obj.unwrap();
    let attr = attributes(&mut owner, &file).await;
    assert_eq!((attr.uid, attr.gid), (1000, 100));

    let all =
        ACCESS3_READ | ACCESS3_LOOKUP | ACCESS3_MODIFY | ACCESS3_EXTEND | ACCESS3_DELETE | ACCESS3_EXECUTE;
    let writes = ACCESS3_MODIFY | ACCESS3_EXTEND;
    for (client, granted) in
        [(&mut owner, ACCESS3_READ | writes), (&mut friend, ACCESS3_READ), (&mut stranger, 0)]
    {
        let access =
            client.access(&ACCESS3args { object: file.clone(), access: all }).await.unwrap().unwrap();
        assert_eq!(access.access, granted);
    }
    let of_dir = stranger.access(&ACCESS3args { object: dir.clone(), access: all }).await.unwrap().unwrap();
    assert_eq!(of_dir.access, all & !ACCESS3_EXECUTE);

    let read = |file: &nfs_fh3| READ3args { file: file.clone(), offset: 0, count: 1 };
    assert_eq!(status(stranger.read(&read(&file)).await.unwrap()), nfsstat3::NFS3ERR_ACCES);
    assert_eq!(status(friend.read(&read(&file)).await.unwrap()), nfsstat3::NFS3_OK);
    // What was opened before the mode was changed can be read, written and cut on: NFS has no open files.
    let none = SETATTR3args { object: file.clone(), new_attributes: mode(0), guard: Nfs3Option::None };
    owner.setattr(&none).await.unwrap().unwrap();
    assert_eq!(status(owner.read(&read(&file)).await.unwrap()), nfsstat3::NFS3_OK);
    write(&mut owner, &file, 0, b"data", stable_how::UNSTABLE).await;
    let cut = sattr3 { size: Nfs3Option::Some(1), ..sattr3::default() };
    let cut = SETATTR3args { object: file.clone(), new_attributes: cut, guard: Nfs3Option::None };
    assert_eq!(status(owner.setattr(&cut).await.unwrap()), nfsstat3::NFS3_OK);
    assert_eq!(status(friend.setattr(&cut).await.unwrap()), nfsstat3::NFS3ERR_ACCES);
}

#[tokio::test]
async fn a_directory_that_may_be_listed_and_not_searched_gives_away_no_handles() {
    let (_network, gateway, mut root_client, root) = start(&[OPEN]).await;
    let dir = mkdir(&mut root_client, &root, b"listed", 0o744).await;
    create(&mut root_client, &dir, b"secret").await;
    let mut stranger = connect(address(&gateway), 1000, 100, &[]).await;
    let args = READDIRPLUS3args {
        dir,
        cookie: 0,
        cookieverf: cookieverf3::default(),
        dircount: 65_536,
        maxcount: 65_536,
    };
    let page = stranger.readdirplus(&args).await.unwrap().unwrap().reply;
    let entry = page.entries.0.iter().find(|entry| entry.name.as_ref() == b"secret").unwrap();
    assert!(entry.name_attributes.is_none() && entry.name_handle.is_none());
}

#[tokio::test]
async fn exports_are_kept_apart() {
    let (network, first, mut nfs, root) = start(&[OPEN]).await;
    let inside = mkdir(&mut nfs, &root, b"inside", 0o777).await;
    let below = mkdir(&mut nfs, &inside, b"below", 0o777).await;
    create(&mut nfs, &below, b"file").await;
    first.stop().await;

    let exports = ["/:ro,insecure", "/inside:insecure,all_squash,anonuid=7,anongid=8"];
    let gateway = gateway(network.client_config(), &exports).await;
    let mut nfs = as_root(address(&gateway)).await;
    let inside = mount(address(&gateway), b"/inside").await;
    let below = mount(address(&gateway), b"/inside/below").await;
    assert_eq!(lookup(&mut nfs, &below, b"..").await.unwrap().object, inside);
    assert_eq!(lookup(&mut nfs, &inside, b"..").await.unwrap().object, inside, "no way out of the export");
    let listing = list(&mut nfs, &inside, 4096).await;
    assert_eq!(listing[0].2, listing[1].2, "`..` of an export's root is itself");
    let made = create(&mut nfs, &inside, b"mine").await;
    let attr = attributes(&mut nfs, &made).await;
    assert_eq!((attr.uid, attr.gid), (7, 8));

    let read_only = mount(address(&gateway), b"/").await;
    let mkdir = MKDIR3args { where_: at(&read_only, b"x"), attributes: mode(0o755) };
    assert_eq!(status(nfs.mkdir(&mkdir).await.unwrap()), nfsstat3::NFS3ERR_ROFS);
    let all = ACCESS3_READ | ACCESS3_MODIFY | ACCESS3_EXTEND | ACCESS3_DELETE;
    let access = nfs.access(&ACCESS3args { object: read_only.clone(), access: all }).await.unwrap().unwrap();
    assert_eq!(access.access, ACCESS3_READ);
    let rename = RENAME3args { from: at(&inside, b"mine"), to: at(&read_only, b"yours") };
    assert_eq!(status(nfs.rename(&rename).await.unwrap()), nfsstat3::NFS3ERR_ROFS);
    let link = LINK3args { file: made, link: at(&read_only, b"link") };
    assert_eq!(status(nfs.link(&link).await.unwrap()), nfsstat3::NFS3ERR_ROFS);
}

#[tokio::test]
async fn the_internal_directory_can_be_read_and_not_changed() {
    let (_network, _gateway, mut nfs, root) = start(&[OPEN]).await;
    let dht = lookup(&mut nfs, &root, b".dht").await.unwrap().object;
    assert!(!list(&mut nfs, &root, 4096).await.iter().any(|(name, ..)| name == b".dht"));
    let listing = list(&mut nfs, &dht, 4096).await;
    let (name, ..) =
        listing.iter().find(|(name, ..)| name.starts_with(b"wallace")).expect("no file for the volcano");
    let file = lookup(&mut nfs, &dht, name).await.unwrap().object;
    let (text, eof) = read(&mut nfs, &file, 0, 65_536).await;
    assert!(eof && String::from_utf8(text).unwrap().contains("nickname = wallace"));
    let mkdir = MKDIR3args { where_: at(&dht, b"x"), attributes: mode(0o755) };
    assert_eq!(status(nfs.mkdir(&mkdir).await.unwrap()), nfsstat3::NFS3ERR_ROFS);
    let args =
        WRITE3args { file, offset: 0, count: 1, stable: stable_how::UNSTABLE, data: Opaque::borrowed(b"x") };
    assert_eq!(status(nfs.write(&args).await.unwrap()), nfsstat3::NFS3ERR_ROFS);
}

#[tokio::test]
async fn names_of_any_bytes_go_round() {
    let (_network, _gateway, mut nfs, root) = start(&[OPEN]).await;
    let names: Vec<Vec<u8>> =
        (1..=255).filter(|&byte| byte != b'/' && byte != b'.').map(|byte| vec![byte]).collect();
    for name in &names {
        create(&mut nfs, &root, name).await;
    }
    let mut listed: Vec<Vec<u8>> =
        list(&mut nfs, &root, 4096).await.into_iter().map(|(name, ..)| name).collect();
    listed.retain(|name| !name.starts_with(b"."));
    listed.sort();
    assert_eq!(listed, names);
}
