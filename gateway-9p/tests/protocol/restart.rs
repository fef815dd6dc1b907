use magma_gateway_9p::wire::attr::{Tgetattr, getattr};
use magma_gateway_9p::wire::io::Tfsync;
use magma_gateway_9p::wire::names::Tunlinkat;

use crate::client::{Setup, ask, text};

#[tokio::test]
async fn fids_and_open_files_go_on_after_the_volcano_was_killed() {
    let mut setup = Setup::new().await;
    let mut client = setup.attached(0).await;
    client.mkdir(0, "dir", 0o755, 0).await;
    client.walk(0, 1, "dir").await;
    client.create(1, 2, "file").await;
    client.create(1, 3, "unlinked").await;
    client.write(2, 0, b"kept").await;
    client.write(3, 0, b"kept as well").await;
    ask!(client, Runlinkat, Tunlinkat { dirfid: 1, name: text("unlinked"), flags: 0 });
    ask!(client, Rfsync, Tfsync { fid: 2, datasync: None });
    setup.volcano.kill();
    setup.volcano.start_again();
    assert_eq!(client.read(2, 0, 100).await, b"kept");
    assert_eq!(client.read(3, 0, 100).await, b"kept as well");
    let attr = ask!(client, Rgetattr, Tgetattr { fid: 3, request_mask: getattr::BASIC });
    assert_eq!((attr.nlink, attr.size), (0, 12));
    client.create(1, 4, "new").await;
}
