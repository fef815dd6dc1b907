//! Random operations through a FUSE mount come out as the model says, whether or not the volcano is killed in between.

use std::sync::Mutex;

use magma_mount_fuse::options::MountOptions;
use magma_mount_fuse::{MountConfig, MountHandle, run_mount};
use magma_tests::model::Model;
use magma_tests::network::{self, Network};
use magma_tests::operation::{Tree, operation};
use magma_tests::through_files::ThroughFiles;
use proptest::prelude::*;
use proptest::test_runner::TestRunner;
use tempfile::TempDir;

#[test]
fn volcano_process() {
    network::become_volcano();
}

fn mount(network: &Network, folder: &TempDir) -> MountHandle {
    let options = MountOptions::default();
    let mountpoint = folder.path().to_owned();
    let config = MountConfig { client: network.client_config(), path: String::new(), mountpoint, options };
    run_mount(&config).expect("a mount needs /dev/fuse and root")
}

/// Compares a tree on the mount with the model, each case in a directory of its own. In one case of `kill_every` the volcano is
/// killed somewhere in the middle.
fn compare(cases: u32, kill_every: u32) {
    rustix::process::umask(rustix::fs::Mode::empty());
    let (network, folder) = (Mutex::new(Network::start()), TempDir::new().unwrap());
    let _mounted = mount(&network.lock().unwrap(), &folder);
    let number = Mutex::new(0u32);
    let sequences = (proptest::collection::vec(operation(), 1..80), 0usize..60);
    let result = TestRunner::new(ProptestConfig::with_cases(cases)).run(&sequences, |(operations, when)| {
        let mut number = number.lock().unwrap();
        *number += 1;
        let root = folder.path().join(format!("case-{number}"));
        std::fs::create_dir(&root).unwrap();
        let (mut files, mut model) = (ThroughFiles::new(root), Model::default());
        for (n, operation) in operations.iter().enumerate() {
            if n == when && number.is_multiple_of(kill_every) {
                let mut network = network.lock().unwrap();
                network.kill();
                network.restart();
            }
            prop_assert_eq!(
                files.apply(operation),
                model.apply(operation),
                "operation {}: {:?}",
                n,
                operation
            );
        }
        Ok(())
    });
    result.unwrap();
}

#[test]
fn operations_through_a_mount_do_what_the_model_says() {
    compare(150, 10);
}
