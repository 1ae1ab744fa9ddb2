//! The threads of one back end.
//!
//! Every back end has a lane of its own: a bounded queue and a bounded number of threads, none of
//! them a core's or control's. So a back end that hangs fills its own lane and no other. A caller
//! waits until its deadline and no longer; the thread that hangs goes on to count as taken until it
//! comes back. While all of them hang, or the breaker is open, callers are refused at once.
//! Some threads are kept free of new sign-ins, for administrators and sessions that must prove
//! themselves again.
//!
//! The threads run at a lower priority of the scheduler: passwords are hashed with the time that
//! cores and control leave. This module must not know users or credentials.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use super::backend::{Abort, Answer, Eventually, Work};
use super::breaker::{Admission, Breaker};
use super::queue::{Bounds, FairQueue, Priority};
use super::reason::Reason;
use super::source::Prefix;

/// Nice value of the threads: clearly behind cores and control, ahead of what is idle work.
const NICE: i32 = 10;
/// Work that takes longer than this lately is begun all the same: a slow back end may have become
/// quick.
const EXPECTED_MAX: Duration = Duration::from_millis(500);

/// How large a lane is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LaneSettings {
    /// Threads, 1 to 64. What hangs, hangs in these. Default 4: as many as hash passwords at once
    /// on a small machine, and enough to wait for a remote server.
    pub threads: usize,
    /// How many of them new sign-ins may not take, less than `threads`. Default 1.
    pub reserved: usize,
    /// Attempts that wait, per priority, 1 to 65,536. Default 512: at 50 a second and thread that
    /// is what 4 threads do in 3 s, after which a client has given up.
    pub waiting_max: usize,
    /// Attempts of one source that wait, per priority. Default 16: a house behind one address.
    pub waiting_per_source_max: usize,
}

impl Default for LaneSettings {
    fn default() -> Self {
        Self { threads: 4, reserved: 1, waiting_max: 512, waiting_per_source_max: 16 }
    }
}

/// For whom work is done.
#[derive(Clone, Copy, Debug)]
pub struct Place {
    /// How urgent it is.
    pub priority: Priority,
    /// Who asks.
    pub source: Prefix,
    /// Until when somebody waits.
    pub deadline: Instant,
}

/// What a lane is doing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LaneStatus {
    /// Attempts that wait, by priority.
    pub waiting: [usize; 4],
    /// Attempts that a thread works on, or that wait for others without one.
    pub in_flight: usize,
    /// Of these, past their deadline.
    pub hanging: usize,
    /// Threads started.
    pub threads: usize,
    /// Whether it is left alone.
    pub is_open: bool,
}

/// The lane.
#[derive(Debug)]
pub struct Lane {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    name: &'static str,
    settings: LaneSettings,
    state: Mutex<State>,
    work: Condvar,
}

#[derive(Debug)]
struct State {
    queue: FairQueue<Job>,
    breaker: Breaker,
    busy: BTreeMap<u64, Busy>,
    /// Who waits without a thread, by source.
    waiters: BTreeMap<Prefix, usize>,
    threads: usize,
    idle: usize,
    /// How long work takes lately. What could not be done before its deadline is not begun: an
    /// overloaded lane would otherwise do nothing but work that nobody waits for any more.
    expected: Duration,
    next: u64,
    is_over: bool,
}

#[derive(Clone, Copy, Debug)]
struct Busy {
    asked: Instant,
    begun: Instant,
    deadline: Instant,
    is_urgent: bool,
    /// What it was to the breaker; none when its caller has told already that it hangs.
    admission: Option<Admission>,
}

type Run = Box<dyn FnOnce(&Abort) -> Answer + Send>;
type Stage = Box<dyn FnOnce(&Abort) -> Work + Send>;

struct Job {
    number: u64,
    asked: Instant,
    run: Stage,
    abort: Abort,
    place: Place,
    admission: Admission,
    answer: oneshot::Sender<Work>,
}

impl std::fmt::Debug for Job {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Job").field("number", &self.number).finish_non_exhaustive()
    }
}

impl Lane {
    /// A lane without threads: they are started when there is work.
    #[must_use]
    pub fn new(name: &'static str, settings: LaneSettings) -> Self {
        let threads = settings.threads.clamp(1, 64);
        let reserved = settings.reserved.min(threads - 1);
        let bounds = Bounds {
            total: settings.waiting_max.clamp(1, 1 << 16),
            per_source: settings.waiting_per_source_max.max(1),
        };
        let state = State {
            queue: FairQueue::new(bounds),
            breaker: Breaker::new(),
            busy: BTreeMap::new(),
            waiters: BTreeMap::new(),
            threads: 0,
            idle: 0,
            expected: Duration::ZERO,
            next: 0,
            is_over: false,
        };
        let shared = Shared {
            name,
            settings: LaneSettings { threads, reserved, ..settings },
            state: Mutex::new(state),
            work: Condvar::new(),
        };
        Self { shared: Arc::new(shared) }
    }

    /// Its back end's name.
    #[must_use]
    pub fn name(&self) -> &'static str {
        self.shared.name
    }

    /// What it is doing at `now`.
    #[must_use]
    pub fn status(&self, now: Instant) -> LaneStatus {
        let state = self.shared.lock();
        LaneStatus {
            waiting: state.queue.lengths(),
            in_flight: state.busy.len() + state.waiters.values().sum::<usize>(),
            hanging: state.hanging(now),
            threads: state.threads,
            is_open: state.breaker.is_open(),
        }
    }

    /// Runs `run` on a thread and waits for its answer, until the deadline of `place`.
    pub async fn run(&self, place: Place, run: Run) -> Answer {
        match self.stage(place, Box::new(|abort| Work::Done(run(abort)))).await {
            Work::Done(answer) => answer,
            // It was wrapped above.
            Work::Blocking(_) | Work::Stage(_) | Work::Waiting(_) => {
                Answer::Refused(Reason::BackEndFailed)
            }
        }
    }

    /// As [`Self::run`], for work that says what is left to do.
    pub async fn stage(&self, place: Place, run: Stage) -> Work {
        let refused = |reason| Work::Done(Answer::Refused(reason));
        let abort = Abort::default();
        let (sender, receiver) = oneshot::channel();
        let (number, admission) = match self.submit(place, run, abort.clone(), sender) {
            Ok(submitted) => submitted,
            Err(reason) => return refused(reason),
        };
        // Whoever does not wait any more, for whatever reason, says so.
        let shared = &self.shared;
        let mut guard = Guard { shared, number, admission, abort, is_answered: false };
        match tokio::time::timeout_at(place.deadline.into(), receiver).await {
            Ok(answer) => {
                guard.is_answered = true;
                answer.unwrap_or_else(|_| refused(Reason::BackEndFailed))
            }
            Err(_) => refused(Reason::BackEndTimeout),
        }
    }

    /// Waits for `waiting` without a thread, until the deadline of `place`. As many may wait as
    /// have a place in the queue, in all and for one source.
    ///
    /// # Errors
    ///
    /// Why nothing came of it.
    pub async fn wait(&self, place: Place, waiting: Eventually<Work>) -> Result<Work, Reason> {
        let admission = self.enter(place)?;
        let mut guard =
            Waiter { shared: &self.shared, source: place.source, admission, outcome: None };
        let result = tokio::time::timeout_at(place.deadline.into(), waiting).await;
        guard.outcome = Some(match &result {
            Ok(Work::Done(Answer::Refused(reason))) => !reason.is_outage(),
            Ok(Work::Done(_) | Work::Blocking(_) | Work::Stage(_) | Work::Waiting(_)) => true,
            Err(_) => false,
        });
        result.map_err(|_| Reason::BackEndTimeout)
    }

    fn enter(&self, place: Place) -> Result<Admission, Reason> {
        let LaneSettings { waiting_max, waiting_per_source_max, .. } = self.shared.settings;
        let mut state = self.shared.lock();
        let own = state.waiters.get(&place.source).copied().unwrap_or(0);
        if own >= waiting_per_source_max.max(1) && place.source != Prefix::Local {
            return Err(Reason::SourceQueueFull);
        }
        if state.waiters.values().sum::<usize>() >= waiting_max.max(1) {
            return Err(Reason::QueueFull);
        }
        let admission = state.breaker.admit(Instant::now());
        if admission == Admission::Shut {
            return Err(Reason::BackEndDown);
        }
        state.waiters.insert(place.source, own + 1);
        Ok(admission)
    }

    fn submit(
        &self,
        place: Place,
        run: Stage,
        abort: Abort,
        answer: oneshot::Sender<Work>,
    ) -> Result<(u64, Admission), Reason> {
        let now = Instant::now();
        let mut state = self.shared.lock();
        if state.all_hang(&self.shared.settings, place.priority, now) {
            return Err(Reason::BackEndDown);
        }
        let admission = state.breaker.admit(now);
        if admission == Admission::Shut {
            return Err(Reason::BackEndDown);
        }
        let number = state.next;
        state.next += 1;
        let job = Job { number, asked: now, run, abort, place, admission, answer };
        match state.queue.push(place.priority, place.source, job) {
            Ok(None) => {}
            Ok(Some(displaced)) => {
                state.breaker.forgotten(displaced.admission);
                let refusal = Work::Done(Answer::Refused(Reason::QueueFull));
                let _ = displaced.answer.send(refusal);
            }
            Err((job, reason)) => {
                state.breaker.forgotten(job.admission);
                return Err(reason);
            }
        }
        let start = state.idle == 0 && state.threads < self.shared.settings.threads;
        state.threads += usize::from(start);
        drop(state);
        if start {
            self.start_thread();
        }
        // All of them: an urgent job may be for another thread than the one that a single call
        // wakes.
        self.shared.work.notify_all();
        Ok((number, admission))
    }

    fn start_thread(&self) {
        let shared = Arc::clone(&self.shared);
        let name = format!("auth-{}", self.shared.name);
        let started = thread::Builder::new().name(name).spawn(move || shared.serve());
        if let Err(error) = started {
            tracing::error!(back_end = self.shared.name, %error, "no thread for sign-in: is there a limit of tasks?");
            self.shared.lock().threads -= 1;
        }
    }
}

impl Drop for Lane {
    fn drop(&mut self) {
        self.shared.lock().is_over = true;
        self.shared.work.notify_all();
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The life of a thread.
    fn serve(&self) {
        if let Err(error) = rustix::process::setpriority_process(None, NICE) {
            tracing::debug!(back_end = self.name, %error, "sign-in runs at normal priority");
        }
        while let Some(job) = self.wait_for_job() {
            let Job { number, run, abort, answer, .. } = job;
            let outcome = catch_unwind(AssertUnwindSafe(|| run(&abort)));
            abort.disarm();
            if outcome.is_err() {
                tracing::error!(back_end = self.name, "broke while it looked at a credential");
            }
            let outcome =
                outcome.unwrap_or_else(|_| Work::Done(Answer::Refused(Reason::BackEndFailed)));
            self.finished(number, &outcome);
            // Nobody may be there any more.
            let _ = answer.send(outcome);
        }
    }

    fn wait_for_job(&self) -> Option<Job> {
        let mut state = self.lock();
        loop {
            if state.is_over {
                state.threads -= 1;
                return None;
            }
            let now = Instant::now();
            if let Some(job) = state.take(&self.settings, now) {
                return Some(job);
            }
            state.idle += 1;
            state = self.work.wait(state).unwrap_or_else(PoisonError::into_inner);
            state.idle -= 1;
        }
    }

    fn finished(&self, number: u64, outcome: &Work) {
        let now = Instant::now();
        let mut state = self.lock();
        let Some(busy) = state.busy.remove(&number) else { return };
        let took = now.saturating_duration_since(busy.begun);
        let is_slow = State::is_slow(&busy, now);
        // What hung says nothing about the next one.
        let counted = took.min(state.expected * 2 + Duration::from_millis(20));
        state.expected = (state.expected * 7 + counted) / 8;
        let Some(admission) = busy.admission else { return };
        let is_outage =
            matches!(outcome, Work::Done(Answer::Refused(reason)) if reason.is_outage());
        if is_outage || is_slow {
            state.breaker.failed(admission, now);
        } else {
            state.breaker.succeeded();
        }
    }
}

impl State {
    fn hanging(&self, now: Instant) -> usize {
        self.busy.values().filter(|busy| Self::is_slow(busy, now)).count()
    }

    /// Whether work that missed its deadline did so by itself, and not because it was begun late.
    fn is_slow(busy: &Busy, now: Instant) -> bool {
        let took = now.saturating_duration_since(busy.begun);
        let patience = busy.deadline.saturating_duration_since(busy.asked);
        busy.deadline <= now && took * 2 >= patience
    }

    /// Whether all threads hang that work of this priority may use.
    fn all_hang(&self, settings: &LaneSettings, priority: Priority, now: Instant) -> bool {
        let hanging = self.busy.values().filter(|busy| Self::is_slow(busy, now));
        if priority.is_urgent() {
            return hanging.count() >= settings.threads;
        }
        hanging.filter(|busy| !busy.is_urgent).count() >= settings.threads - settings.reserved
            || self.hanging(now) >= settings.threads
    }

    /// The next job that a thread may take, if any.
    fn take(&mut self, settings: &LaneSettings, now: Instant) -> Option<Job> {
        loop {
            let patient = self.busy.values().filter(|busy| !busy.is_urgent).count();
            let unreserved = settings.threads - settings.reserved;
            let may = |priority: Priority| priority.is_urgent() || patient < unreserved;
            let job = self.queue.pop(may)?;
            let needed = self.expected.min(EXPECTED_MAX);
            if job.answer.is_closed() || job.place.deadline < now + needed {
                self.breaker.forgotten(job.admission);
                continue;
            }
            let is_urgent = job.place.priority.is_urgent();
            let deadline = job.place.deadline;
            let admission = Some(job.admission);
            let busy = Busy { asked: job.asked, begun: now, deadline, is_urgent, admission };
            self.busy.insert(job.number, busy);
            return Some(job);
        }
    }
}

/// Tells the lane when a caller goes away without an answer.
struct Guard<'a> {
    shared: &'a Shared,
    number: u64,
    admission: Admission,
    abort: Abort,
    is_answered: bool,
}

impl Drop for Guard<'_> {
    fn drop(&mut self) {
        if self.is_answered {
            return;
        }
        self.abort.fire();
        let now = Instant::now();
        let mut state = self.shared.lock();
        let known = state.busy.get(&self.number).copied();
        let is_slow = known.is_some_and(|busy| State::is_slow(&busy, now));
        let State { busy, breaker, queue, .. } = &mut *state;
        match busy.get_mut(&self.number) {
            // It was worked on and the deadline passed: the back end hangs.
            Some(busy) if is_slow => {
                if let Some(admission) = busy.admission.take() {
                    breaker.failed(admission, now);
                }
            }
            Some(_) => {}
            None => {
                queue.retain(|job| job.number != self.number);
                breaker.forgotten(self.admission);
            }
        }
    }
}

/// Counts one who waits without a thread, and tells the breaker what came of it.
struct Waiter<'a> {
    shared: &'a Shared,
    source: Prefix,
    admission: Admission,
    outcome: Option<bool>,
}

impl Drop for Waiter<'_> {
    fn drop(&mut self) {
        let mut state = self.shared.lock();
        if let Some(own) = state.waiters.get_mut(&self.source) {
            *own -= 1;
            if *own == 0 {
                state.waiters.remove(&self.source);
            }
        }
        match self.outcome {
            Some(true) => state.breaker.succeeded(),
            Some(false) => state.breaker.failed(self.admission, Instant::now()),
            None => state.breaker.forgotten(self.admission),
        }
    }
}

#[cfg(test)]
#[path = "lane_tests.rs"]
mod tests;
