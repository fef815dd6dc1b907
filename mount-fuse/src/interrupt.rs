//! No unkillable process: an operation whose caller is being killed ends at once.
//!
//! The kernel announces signals with `FUSE_INTERRUPT`, which the FUSE library answers by itself with "not
//! supported". From then on a killed process waits for the answer to its request, for ever if the network
//! is away. So each operation that takes long looks now and then whether its caller is being killed.

use std::future::Future;
use std::pin::{Pin, pin};
use std::time::Duration;

use fuser::Errno;
use tokio::sync::Semaphore;
use tokio::time::timeout;

use crate::caller::is_being_killed;
use crate::reply::Outcome;

/// First and longest pause between two looks at the caller.
const FIRST_LOOK: Duration = Duration::from_millis(250);
const LAST_LOOK: Duration = Duration::from_secs(1);

/// Most operations that are carried to their end without a caller. What others leave is given back with the session.
static LATE: Semaphore = Semaphore::const_new(1024);

/// Does the operation, or gives it up with `EINTR` when the caller is being killed.
pub(crate) async fn unless_killed<T>(tid: u32, operation: impl Future<Output = Outcome<T>>) -> Outcome<T> {
    watch(tid, pin!(operation)).await
}

/// As [`unless_killed`], for operations that leave something to give back: one that was given up is still
/// carried to its end, and `late` gets what it yields.
pub(crate) async fn unless_killed_or_late<T: Send + 'static>(
    tid: u32,
    operation: impl Future<Output = Outcome<T>> + Send + 'static,
    late: impl FnOnce(T) + Send + 'static,
) -> Outcome<T> {
    let mut operation = Box::pin(operation);
    let mut finished = false;
    let outcome = {
        let finished = &mut finished;
        watch(
            tid,
            pin!(async {
                let outcome = operation.as_mut().await;
                *finished = true;
                outcome
            }),
        )
        .await
    };
    if !finished && let Ok(room) = LATE.try_acquire() {
        tokio::spawn(async move {
            let _room = room;
            if let Ok(yielded) = operation.await {
                late(yielded);
            }
        });
    }
    outcome
}

async fn watch<T>(tid: u32, mut operation: Pin<&mut impl Future<Output = Outcome<T>>>) -> Outcome<T> {
    let mut pause = FIRST_LOOK;
    loop {
        match timeout(pause, operation.as_mut()).await {
            Ok(outcome) => return outcome,
            Err(_elapsed) if is_being_killed(tid) => {
                tracing::debug!(target: "magma::mount", tid, "caller is being killed; its operation ends");
                return Err(Errno::EINTR);
            }
            Err(_elapsed) => pause = (pause * 2).min(LAST_LOOK),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_operation_of_a_living_caller_is_waited_for() {
        let outcome = unless_killed(0, async {
            tokio::task::yield_now().await;
            Ok(7)
        });
        assert_eq!(outcome.await.ok(), Some(7));
    }

    #[tokio::test]
    async fn what_a_finished_operation_yields_is_not_given_back() {
        let late = |_: i32| panic!("given back although it was delivered");
        assert_eq!(unless_killed_or_late(0, async { Ok(7) }, late).await.ok(), Some(7));
    }
}
