//! A volcano that joins: until it is taken in it says what it waits for.

use std::rc::Rc;
use std::time::Duration;

use magma_common::auth::ClientKeys;
use magma_common::client::{ConnectError, HostPort, probe};

use super::StartError;
use crate::cli::{Beginning, Launch};
use crate::server::{Edge, Stopped};

/// How often a volcano that joins looks whether it was taken in.
const LOOK: Duration = Duration::from_millis(50);
/// How often it says for what it waits.
const REPORTS: Duration = Duration::from_secs(10);

/// Waits until the volcano is part of a network: one that joins is so when the others say so.
pub(super) async fn taken_in(launch: &Launch, edge: &Rc<Edge>, keys: &ClientKeys) -> Result<(), StartError> {
    let Beginning::Join(host) = &launch.beginning else { return Ok(()) };
    println!("asking {host} to be taken into its network");
    tokio::select! {
        biased;
        // It may have heard that it is taken in and been unable to note it.
        stopped = edge.stopped() => if let Stopped::Failed(reason) = stopped {
            return Err(StartError::Stopped(reason));
        },
        taken = membership(edge) => taken?,
        refused = watch_contact(host, keys) => return Err(refused.into()),
    }
    edge.look(|node| {
        let topology = node.topology();
        let others = topology.members.iter().filter(|member| member.id != node.replica().volcano);
        let others: Vec<&str> = others.map(|member| member.nickname.as_str()).collect();
        println!("joined the network {:016x} of {}", topology.network, others.join(", "));
    });
    Ok(())
}

/// Waits until the others say that this volcano is a member, or that it will not be.
async fn membership(edge: &Rc<Edge>) -> Result<(), StartError> {
    loop {
        let (is_member, refusal) =
            edge.look(|node| (node.topology().network != 0, node.not_taken().map(str::to_owned)));
        if is_member {
            return Ok(());
        }
        if let Some(reason) = refusal {
            return Err(StartError::NotTaken(reason));
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// Says again and again why the volcano is not taken in yet. Returns when it never will be.
async fn watch_contact(host: &HostPort, keys: &ClientKeys) -> ConnectError {
    loop {
        let before = tokio::time::Instant::now();
        match probe(host, keys).await {
            Err(error @ ConnectError::Unreachable { .. }) => println!("{error}; trying again"),
            Err(error) => return error,
            // Usually it is taken in within a second of that.
            Ok(()) => {
                tokio::time::sleep_until(before + REPORTS).await;
                println!(
                    "{host} answers but its network does not take this volcano in yet: more than half of the votes are \
                     needed for that (`lava health` on {host}); waiting"
                );
                continue;
            }
        }
        tokio::time::sleep_until(before + REPORTS).await;
    }
}
