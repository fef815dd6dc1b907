//! Random operations through a FUSE mount come out as the model says, whether or not the volcano is killed in between.

use std::sync::Mutex;

use magma_mount_fuse::options::MountOptions;
use magma_mount_fuse::{MountConfig, MountHandle, run_mount};
use magma_tests::model::Model;
use magma_tests::network::{self, Network};
use magma_tests::operation::{Operation, Tree, operation};
use magma_tests::through_files::ThroughFiles;
use proptest::prelude::*;
use proptest::test_runner::{TestError, TestRunner};
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

/// Compares a tree on the mount with the model, each case in a directory of its own. In one case of `kill_every` somewhere in
/// the middle what `trouble` makes happens.
fn compare(
    network: &Mutex<Network>,
    (cases, kill_every): (u32, u32),
    trouble: impl Fn(&mut Network),
) -> Result<(), TestError<(Vec<Operation>, usize)>> {
    rustix::process::umask(rustix::fs::Mode::empty());
    let folder = TempDir::new().unwrap();
    let _mounted = mount(&network.lock().unwrap(), &folder);
    let number = Mutex::new(0u32);
    let sequences = (proptest::collection::vec(operation(), 1..80), 0usize..60);
    TestRunner::new(ProptestConfig::with_cases(cases)).run(&sequences, |(operations, when)| {
        let mut number = number.lock().unwrap();
        *number += 1;
        let root = folder.path().join(format!("case-{number}"));
        std::fs::create_dir(&root).unwrap();
        let (mut files, mut model) = (ThroughFiles::new(root), Model::default());
        for (n, operation) in operations.iter().enumerate() {
            if n == when.min(operations.len() - 1) && number.is_multiple_of(kill_every) {
                trouble(&mut network.lock().unwrap());
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
    })
}

#[test]
fn operations_through_a_mount_do_what_the_model_says() {
    let killed_and_back = |network: &mut Network| {
        network.kill();
        network.restart();
    };
    compare(&Mutex::new(Network::start()), (150, 10), killed_and_back).unwrap();
}

#[test]
fn operations_through_a_mount_of_a_ring_do_what_the_model_says() {
    let network = Mutex::new(Network::ring(3));
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let client = runtime.block_on(network.lock().unwrap().client());
    network.lock().unwrap().when_whole(&runtime, &client);
    let killed = Mutex::new(None);
    let primary_killed = |network: &mut Network| {
        // The one of last time comes back just then: the ring is whole without it.
        if let Some(number) = killed.lock().unwrap().take() {
            network.restart_one(number);
        }
        let primary = network.when_whole(&runtime, &client);
        network.kill_one(primary);
        *killed.lock().unwrap() = Some(primary);
    };
    compare(&network, (60, 20), primary_killed).unwrap();
}
