//! Random operations through the flare protocol come out as the model says, whether or not a volcano is killed in between.

use std::sync::Mutex;

use bytes::Bytes;
use magma_common::attr::SetAttr;
use magma_common::client::{Client, Context};
use magma_common::handle::Handle;
use magma_common::name::Name;
use magma_common::proto::operation::Mkdir;
use magma_common::proto::{Credentials, Durability};
use magma_tests::model::Model;
use magma_tests::network::{self, Network};
use magma_tests::operation::{Operation, Tree, operation};
use magma_tests::through_client::ThroughClient;
use proptest::prelude::*;
use proptest::test_runner::TestRunner;
use tokio::runtime::Runtime;

#[test]
fn volcano_process() {
    network::become_volcano();
}

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap()
}

/// A directory of its own for each case.
fn fresh_directory(runtime: &Runtime, client: &Client, number: usize) -> Handle {
    let context = Context {
        credentials: Credentials::ROOT.into(),
        durability: Durability::Replicated,
        deadline: None,
        call: None,
    };
    let name = Name::new(Bytes::from(format!("case-{number}"))).unwrap();
    let mkdir = Mkdir { dir: Handle::root(), name, mode: 0o755, umask: 0, set: SetAttr::default() };
    runtime.block_on(client.call(&context, mkdir)).unwrap().attr.handle
}

fn compare(
    tree: &mut ThroughClient,
    operations: &[Operation],
    mut before: impl FnMut(usize),
) -> Result<(), TestCaseError> {
    let mut model = Model::default();
    for (n, operation) in operations.iter().enumerate() {
        before(n);
        prop_assert_eq!(tree.apply(operation), model.apply(operation), "operation {}: {:?}", n, operation);
    }
    Ok(())
}

#[test]
fn operations_through_the_protocol_do_what_the_model_says() {
    let (network, runtime) = (Network::start(), runtime());
    let client = runtime.block_on(network.client());
    let number = Mutex::new(0);
    let mut runner = TestRunner::new(ProptestConfig::with_cases(200));
    let cases = proptest::collection::vec(operation(), 1..80);
    let result = runner.run(&cases, |operations| {
        let mut number = number.lock().unwrap();
        *number += 1;
        let root = fresh_directory(&runtime, &client, *number);
        compare(&mut ThroughClient::new(runtime.handle().clone(), client.clone(), root), &operations, |_| {})
    });
    result.unwrap();
}

#[test]
fn operations_across_slices_do_what_the_model_says() {
    let (network, runtime) = (Network::sliced(1, 8), runtime());
    let client = runtime.block_on(network.client());
    let number = Mutex::new(3_000_000);
    let mut runner = TestRunner::new(ProptestConfig::with_cases(100));
    let cases = proptest::collection::vec(operation(), 1..80);
    let result = runner.run(&cases, |operations| {
        let mut number = number.lock().unwrap();
        *number += 1;
        let root = fresh_directory(&runtime, &client, *number);
        compare(&mut ThroughClient::new(runtime.handle().clone(), client.clone(), root), &operations, |_| {})
    });
    result.unwrap();
}

/// Striped files refuse to have holes punched.
fn on_striped_files() -> impl Strategy<Value = Operation> {
    let punch = |operation: &Operation| !matches!(operation, Operation::Punch { .. });
    operation().prop_filter("it is refused", punch)
}

#[test]
fn operations_on_striped_files_do_what_the_model_says() {
    striped(&Network::striped(1, 8, "64K"), 5_000_000, 200);
}

#[test]
fn operations_on_striped_files_of_one_slice_do_what_the_model_says() {
    striped(&Network::striped(1, 1, "64K"), 6_000_000, 100);
}

#[test]
fn operations_on_striped_files_of_a_ring_do_what_the_model_says() {
    striped(&Network::striped(3, 6, "64K"), 7_000_000, 60);
}

fn striped(network: &Network, first: usize, cases: u32) {
    let runtime = runtime();
    let client = runtime.block_on(network.client());
    let number = Mutex::new(first);
    let mut runner = TestRunner::new(ProptestConfig::with_cases(cases));
    let cases = proptest::collection::vec(on_striped_files(), 1..80);
    let result = runner.run(&cases, |operations| {
        let mut number = number.lock().unwrap();
        *number += 1;
        let root = fresh_directory(&runtime, &client, *number);
        compare(&mut ThroughClient::new(runtime.handle().clone(), client.clone(), root), &operations, |_| {})
    });
    result.unwrap();
}

#[test]
fn a_volcano_that_is_killed_in_between_changes_no_outcome() {
    killed_in_between(Network::start(), operation());
}

#[test]
fn a_volcano_that_is_killed_during_operations_across_slices_changes_no_outcome() {
    killed_in_between(Network::sliced(1, 8), operation());
}

#[test]
fn a_volcano_that_is_killed_during_operations_on_striped_files_changes_no_outcome() {
    killed_in_between(Network::striped(1, 8, "64K"), on_striped_files());
}

fn killed_in_between(network: Network, operation: impl Strategy<Value = Operation>) {
    let (network, runtime) = (Mutex::new(network), runtime());
    let client = runtime.block_on(network.lock().unwrap().client());
    let number = Mutex::new(1_000_000);
    let mut runner = TestRunner::new(ProptestConfig::with_cases(60));
    let cases = (proptest::collection::vec(operation, 20..80), 1usize..60, any::<bool>());
    let result = runner.run(&cases, |(operations, when, in_order)| {
        let mut number = number.lock().unwrap();
        *number += 1;
        let root = fresh_directory(&runtime, &client, *number);
        let mut tree = ThroughClient::new(runtime.handle().clone(), client.clone(), root);
        compare(&mut tree, &operations, |n| {
            if n == when {
                let mut network = network.lock().unwrap();
                if in_order {
                    network.stop();
                } else {
                    network.kill();
                }
                network.restart();
            }
        })
    });
    result.unwrap();
}

#[test]
fn operations_on_a_ring_do_what_the_model_says() {
    let (network, runtime) = (Network::ring(3), runtime());
    let client = runtime.block_on(network.client());
    network.when_whole(&runtime, &client);
    let number = Mutex::new(2_000_000);
    let mut runner = TestRunner::new(ProptestConfig::with_cases(60));
    let cases = proptest::collection::vec(operation(), 1..80);
    let result = runner.run(&cases, |operations| {
        let mut number = number.lock().unwrap();
        *number += 1;
        let root = fresh_directory(&runtime, &client, *number);
        compare(&mut ThroughClient::new(runtime.handle().clone(), client.clone(), root), &operations, |_| {})
    });
    result.unwrap();
}

/// The third volcano votes by then: as long as only the founder does, nobody may take over from it.
#[test]
fn a_primary_that_is_killed_in_between_changes_no_outcome() {
    let (network, runtime) = (Mutex::new(Network::ring(3)), runtime());
    let client = runtime.block_on(network.lock().unwrap().client());
    let number = Mutex::new(3_000_000);
    // A case takes as long as the ring takes to notice the loss, and shrinking makes many of one.
    let mut runner = TestRunner::new(ProptestConfig { max_shrink_iters: 0, ..ProptestConfig::with_cases(3) });
    let cases = (proptest::collection::vec(operation(), 20..80), any::<prop::sample::Index>());
    let result = runner.run(&cases, |(operations, when)| {
        let mut number = number.lock().unwrap();
        *number += 1;
        let root = fresh_directory(&runtime, &client, *number);
        let primary = network.lock().unwrap().when_whole(&runtime, &client);
        let when = when.index(operations.len());
        let mut tree = ThroughClient::new(runtime.handle().clone(), client.clone(), root);
        let outcome = compare(&mut tree, &operations, |n| {
            if n == when {
                network.lock().unwrap().kill_one(primary);
            }
        });
        network.lock().unwrap().restart_one(primary);
        outcome
    });
    result.unwrap();
}
