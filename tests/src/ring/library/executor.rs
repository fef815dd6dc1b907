//! Runs the tasks of client libraries in one thread, one after the other, in the order in which they were woken, on simulated time.

use std::collections::{BTreeMap, VecDeque};
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, Weak};
use std::task::{Context, Poll, Wake, Waker};
use std::time::{Duration, Instant};

use magma_common::surroundings::Later;

use crate::ring::clock::Time;

/// So many times a task may be woken without time passing before it counts as running in circles.
const MOST_POLLS: usize = 100_000;

/// A task, and whose it is.
struct Task {
    owner: usize,
    /// None while it runs.
    work: Option<Later<'static, ()>>,
}

struct State {
    now: Time,
    last_number: u64,
    tasks: BTreeMap<u64, Task>,
    woken: VecDeque<u64>,
    timers: BTreeMap<(Time, u64), Waker>,
}

/// See the module's documentation. Clones are the same one.
#[derive(Clone)]
pub struct Executor {
    state: Arc<Mutex<State>>,
    /// Shown when simulated time begins.
    beginning: Instant,
}

impl Default for Executor {
    fn default() -> Self {
        let (tasks, woken, timers) = Default::default();
        let state = State { now: 0, last_number: 0, tasks, woken, timers };
        Self { state: Arc::new(Mutex::new(state)), beginning: Instant::now() }
    }
}

impl Executor {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("nothing panics while it is held")
    }

    /// The time as tasks see it.
    pub fn now(&self) -> Instant {
        self.beginning + Duration::from_nanos(self.state().now)
    }

    /// The simulated time.
    pub fn time(&self) -> Time {
        self.state().now
    }

    /// Adds a task; its number.
    pub fn spawn(&self, owner: usize, work: Later<'static, ()>) -> u64 {
        let mut state = self.state();
        state.last_number += 1;
        let number = state.last_number;
        state.tasks.insert(number, Task { owner, work: Some(work) });
        state.woken.push_back(number);
        number
    }

    /// Ends a task. One that is running ends when it has returned.
    pub fn end(&self, number: u64) {
        let ended = self.state().tasks.remove(&number);
        drop(ended);
    }

    /// Ends all tasks of this owner.
    pub fn end_all(&self, owner: usize) {
        let ended: Vec<Task> = {
            let mut state = self.state();
            let numbers: Vec<u64> = state
                .tasks
                .iter()
                .filter(|(_, task)| task.owner == owner)
                .map(|(number, _)| *number)
                .collect();
            numbers.into_iter().filter_map(|number| state.tasks.remove(&number)).collect()
        };
        drop(ended);
    }

    /// Resolves after this time.
    pub fn sleep(&self, time: Duration) -> Later<'static, ()> {
        let until = self.state().now.saturating_add(u64::try_from(time.as_nanos()).unwrap_or(Time::MAX));
        Box::pin(Sleep { executor: self.clone(), until, place: None })
    }

    /// When a task waits to go on by itself.
    pub fn next_timer(&self) -> Option<Time> {
        self.state().timers.first_key_value().map(|((time, _), _)| *time)
    }

    /// Lets time pass and runs whatever can go on, until nothing can.
    pub fn run(&self, now: Time) {
        let due: Vec<Waker> = {
            let mut state = self.state();
            state.now = state.now.max(now);
            let later = state.timers.split_off(&(now + 1, 0));
            std::mem::replace(&mut state.timers, later).into_values().collect()
        };
        due.into_iter().for_each(Waker::wake);
        for _ in 0..MOST_POLLS {
            let Some((number, mut work)) = self.next() else { return };
            let waker = Waker::from(Arc::new(Call { number, state: Arc::downgrade(&self.state) }));
            let is_done = work.as_mut().poll(&mut Context::from_waker(&waker)).is_ready();
            let left = {
                let mut state = self.state();
                match state.tasks.get_mut(&number) {
                    Some(_) if is_done => {
                        state.tasks.remove(&number);
                        Some(work)
                    }
                    Some(task) => {
                        task.work = Some(work);
                        None
                    }
                    None => Some(work),
                }
            };
            drop(left);
        }
        panic!("the tasks of clients run in circles");
    }

    fn next(&self) -> Option<(u64, Later<'static, ()>)> {
        let mut state = self.state();
        loop {
            let number = state.woken.pop_front()?;
            if let Some(work) = state.tasks.get_mut(&number).and_then(|task| task.work.take()) {
                return Some((number, work));
            }
        }
    }
}

/// Wakes a task.
struct Call {
    number: u64,
    state: Weak<Mutex<State>>,
}

impl Wake for Call {
    fn wake(self: Arc<Self>) {
        let Some(state) = self.state.upgrade() else { return };
        let mut state = state.lock().expect("nothing panics while it is held");
        if !state.woken.contains(&self.number) {
            state.woken.push_back(self.number);
        }
    }
}

struct Sleep {
    executor: Executor,
    until: Time,
    /// Its place among the timers.
    place: Option<u64>,
}

impl Future for Sleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let executor = self.executor.clone();
        let mut state = executor.state();
        if state.now >= self.until {
            return Poll::Ready(());
        }
        if self.place.is_none() {
            state.last_number += 1;
            self.place = Some(state.last_number);
        }
        state.timers.insert((self.until, self.place.unwrap_or(0)), context.waker().clone());
        Poll::Pending
    }
}

impl Drop for Sleep {
    fn drop(&mut self) {
        if let Some(place) = self.place {
            let timer = self.executor.state().timers.remove(&(self.until, place));
            drop(timer);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tasks_go_on_in_the_order_of_their_times() {
        let executor = Executor::default();
        let seen = Arc::new(Mutex::new(Vec::new()));
        for (name, millis) in [("late", 30), ("early", 10), ("middle", 20)] {
            let (seen, sleep) = (Arc::clone(&seen), executor.sleep(Duration::from_millis(millis)));
            executor.spawn(
                0,
                Box::pin(async move {
                    sleep.await;
                    seen.lock().unwrap().push(name);
                }),
            );
        }
        executor.run(0);
        while let Some(time) = executor.next_timer() {
            executor.run(time);
        }
        assert_eq!(*seen.lock().unwrap(), ["early", "middle", "late"]);
        assert_eq!(executor.time(), 30_000_000);
    }

    #[test]
    fn an_ended_task_does_not_go_on() {
        let executor = Executor::default();
        let seen = Arc::new(Mutex::new(0));
        let (count, sleep) = (Arc::clone(&seen), executor.sleep(Duration::from_millis(1)));
        let number = executor.spawn(
            3,
            Box::pin(async move {
                sleep.await;
                *count.lock().unwrap() += 1;
            }),
        );
        executor.run(0);
        executor.end(number);
        assert_eq!(executor.next_timer(), None, "its timer is gone with it");
        executor.run(2_000_000);
        assert_eq!(*seen.lock().unwrap(), 0);
    }
}
