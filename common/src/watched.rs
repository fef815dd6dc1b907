//! A value that can be waited for.
//!
//! Like `tokio::sync::watch`, but who waits is woken in the order in which they began to: with a simulated runtime
//! the same happens again.

use std::pin::pin;
use std::sync::Mutex;

use tokio::sync::Notify;

use crate::transport::lock;

struct State<T> {
    value: T,
    /// Counts the changes.
    version: u64,
}

/// See the module's documentation.
pub(crate) struct Watched<T> {
    state: Mutex<State<T>>,
    changed: Notify,
}

impl<T: Clone> Watched<T> {
    /// With this value at first.
    pub(crate) fn new(value: T) -> Self {
        Self { state: Mutex::new(State { value, version: 0 }), changed: Notify::new() }
    }

    /// What it is now.
    pub(crate) fn get(&self) -> T {
        lock(&self.state).value.clone()
    }

    /// How often it has been changed.
    pub(crate) fn version(&self) -> u64 {
        lock(&self.state).version
    }

    /// Changes it; what it was.
    pub(crate) fn replace(&self, value: T) -> T {
        let former = {
            let mut state = lock(&self.state);
            state.version += 1;
            std::mem::replace(&mut state.value, value)
        };
        self.changed.notify_waiters();
        former
    }

    /// Changes it if this finds that it is to be changed.
    pub(crate) fn replace_if(&self, wanted: impl FnOnce(&T) -> bool, value: T) {
        {
            let mut state = lock(&self.state);
            if !wanted(&state.value) {
                return;
            }
            state.version += 1;
            state.value = value;
        }
        self.changed.notify_waiters();
    }

    /// Waits until it has been changed since this version.
    pub(crate) async fn changed(&self, version: u64) {
        self.wait(|state| (state.version != version).then_some(())).await;
    }

    /// Waits until it is as wanted; what it is then.
    pub(crate) async fn until(&self, wanted: impl Fn(&T) -> bool) -> T {
        self.wait(|state| wanted(&state.value).then(|| state.value.clone())).await
    }

    async fn wait<R>(&self, look: impl Fn(&State<T>) -> Option<R>) -> R {
        loop {
            let mut changed = pin!(self.changed.notified());
            // From here on no change is missed.
            changed.as_mut().enable();
            if let Some(seen) = look(&lock(&self.state)) {
                return seen;
            }
            changed.await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use std::sync::Arc;

    #[tokio::test]
    async fn who_waits_hears_of_the_change_that_is_wanted() {
        let watched = Arc::new(Watched::new(1));
        let waiting = tokio::spawn({
            let watched = Arc::clone(&watched);
            async move { watched.until(|value| *value > 2).await }
        });
        assert_eq!(watched.replace(2), 1);
        watched.replace(3);
        assert_eq!(waiting.await.unwrap(), 3);
        watched.changed(0).await;
        assert_eq!((watched.get(), watched.version()), (3, 2));
    }
}
