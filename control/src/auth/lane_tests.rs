use std::net::{IpAddr, Ipv4Addr};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc;
use std::time::Duration;

use super::super::backend::Proof;
use super::super::source::Source;
use super::*;

const SOON: Duration = Duration::from_millis(60);
const LATE: Duration = Duration::from_secs(60);

fn settings(threads: usize, reserved: usize) -> LaneSettings {
    LaneSettings { threads, reserved, ..LaneSettings::default() }
}

fn place(source: u32, priority: Priority, patience: Duration) -> Place {
    let source = Source::Address(IpAddr::V4(Ipv4Addr::from_bits(source))).prefix();
    Place { priority, source, deadline: Instant::now() + patience }
}

fn accept() -> Answer {
    Answer::Accepted(Proof::default())
}

fn quick() -> Run {
    Box::new(|_: &Abort| accept())
}

/// Work that hangs until the gate is opened.
struct Door {
    open: Arc<(Mutex<bool>, Condvar)>,
    entered: Arc<AtomicUsize>,
}

impl Door {
    fn new() -> Self {
        Self {
            open: Arc::new((Mutex::new(false), Condvar::new())),
            entered: Arc::new(AtomicUsize::new(0)),
        }
    }

    fn wait(&self) -> Run {
        let (open, entered) = (Arc::clone(&self.open), Arc::clone(&self.entered));
        Box::new(move |_: &Abort| {
            entered.fetch_add(1, Ordering::SeqCst);
            let mut is_open = open.0.lock().unwrap();
            while !*is_open {
                is_open = open.1.wait(is_open).unwrap();
            }
            accept()
        })
    }

    fn open(&self) {
        *self.open.0.lock().unwrap() = true;
        self.open.1.notify_all();
    }
}

impl Drop for Door {
    fn drop(&mut self) {
        self.open();
    }
}

async fn until(what: &str, is_so: impl Fn() -> bool) {
    let deadline = Instant::now() + LATE;
    while !is_so() {
        assert!(Instant::now() < deadline, "never: {what}");
        tokio::task::yield_now().await;
    }
}

fn run<F: Future>(test: F) -> F::Output {
    tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(test)
}

#[test]
fn a_back_end_that_hangs_fills_its_own_threads_and_answers_at_the_deadline() {
    run(async {
        let (hangs, works) =
            (Lane::new("hangs", settings(3, 1)), Lane::new("works", settings(2, 0)));
        let door = Door::new();
        for number in 0..2 {
            let answer = hangs.run(place(number, Priority::Login, SOON), door.wait()).await;
            assert_eq!(answer, Answer::Refused(Reason::BackEndTimeout));
        }
        let status = hangs.status(Instant::now());
        assert_eq!((status.in_flight, status.hanging), (2, 2));
        // The third thread is not for new sign-ins: they hear at once, however patient they are.
        let answer = hangs.run(place(7, Priority::Login, LATE), quick()).await;
        assert_eq!(answer, Answer::Refused(Reason::BackEndDown));
        let answer = hangs.run(place(7, Priority::Administration, LATE), quick()).await;
        assert_eq!(answer, accept());
        let answer = hangs.run(place(7, Priority::Renewal, SOON), door.wait()).await;
        assert_eq!(answer, Answer::Refused(Reason::BackEndTimeout));
        let answer = hangs.run(place(7, Priority::Renewal, LATE), quick()).await;
        assert_eq!(answer, Answer::Refused(Reason::BackEndDown));
        assert_eq!(hangs.status(Instant::now()).hanging, 3);
        assert_eq!(door.entered.load(Ordering::SeqCst), 3);
        // Another back end has not noticed.
        for number in 0..200 {
            assert_eq!(works.run(place(number, Priority::Login, LATE), quick()).await, accept());
        }
        door.open();
        until("the threads come back", || hangs.status(Instant::now()).hanging == 0).await;
        let answer = hangs.run(place(7, Priority::Login, LATE), quick()).await;
        assert_eq!(answer, accept());
        assert!(hangs.status(Instant::now()).threads <= 3);
    });
}

#[test]
fn a_thousand_attempts_of_one_source_are_one_turn_in_front_of_another() {
    run(async {
        let lane = Arc::new(Lane::new("fair", settings(1, 0)));
        let door = Door::new();
        let (served, order) = mpsc::channel();
        let first = lane.run(place(1, Priority::Login, LATE), door.wait());
        let work = |who: u32| -> Run {
            let served = served.clone();
            Box::new(move |_: &Abort| {
                served.send(who).unwrap();
                accept()
            })
        };
        let flood: Vec<_> =
            (0..1000).map(|_| lane.run(place(1, Priority::Login, LATE), work(1))).collect();
        let honest = lane.run(place(2, Priority::Login, LATE), work(2));
        let boss = lane.run(place(3, Priority::Administration, LATE), work(3));
        let after = async {
            until("the first one runs", || lane.status(Instant::now()).in_flight == 1).await;
            tokio::join!(futures_util::future::join_all(flood), honest, boss)
        };
        let opener = async {
            let waiting = || lane.status(Instant::now()).waiting;
            until("all wait", || waiting()[2] >= 17 && waiting()[0] == 1).await;
            door.open();
        };
        let (_, (flood, honest, boss), ()) = tokio::join!(first, after, opener);
        assert_eq!((honest, boss), (accept(), accept()));
        let refused = Answer::Refused(Reason::SourceQueueFull);
        assert_eq!(flood.iter().filter(|answer| **answer == refused).count(), 1000 - 16);
        drop(served);
        let order: Vec<u32> = order.try_iter().collect();
        assert_eq!(order.first(), Some(&3), "{order:?}");
        assert!(order.iter().position(|who| *who == 2) <= Some(2), "{order:?}");
    });
}

#[test]
fn failures_in_a_row_shut_a_back_end_and_a_panic_is_one() {
    run(async {
        let lane = Lane::new("breaks", settings(1, 0));
        let reached = Arc::new(AtomicUsize::new(0));
        let mut answers = Vec::new();
        for number in 0..20 {
            let reached = Arc::clone(&reached);
            let work: Run = Box::new(move |_: &Abort| {
                let before = reached.fetch_add(1, Ordering::SeqCst);
                assert_ne!(before % 2, 1, "broken on purpose");
                Answer::Refused(Reason::StoreUnavailable)
            });
            answers.push(lane.run(place(number, Priority::Login, LATE), work).await);
        }
        assert_eq!(reached.load(Ordering::SeqCst), 5);
        assert!(answers.contains(&Answer::Refused(Reason::BackEndFailed)));
        assert_eq!(answers.last(), Some(&Answer::Refused(Reason::BackEndDown)));
        assert!(lane.status(Instant::now()).is_open);
        // The while is a second; then one probe decides.
        let deadline = Instant::now() + LATE;
        loop {
            let answer = lane.run(place(9, Priority::Login, LATE), quick()).await;
            if answer == accept() {
                break;
            }
            assert!(Instant::now() < deadline);
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        assert!(!lane.status(Instant::now()).is_open);
    });
}

#[test]
fn a_wrong_credential_is_no_failure_of_the_back_end() {
    run(async {
        let lane = Lane::new("works", settings(1, 0));
        for number in 0..50 {
            let work: Run = Box::new(|_: &Abort| Answer::Refused(Reason::PasswordWrong));
            let answer = lane.run(place(number, Priority::Login, LATE), work).await;
            assert_eq!(answer, Answer::Refused(Reason::PasswordWrong));
        }
        assert!(!lane.status(Instant::now()).is_open);
    });
}

#[test]
fn a_helper_is_killed_at_the_deadline_or_when_the_client_goes_away() {
    run(async {
        let lane = Lane::new("helper", settings(2, 0));
        for goes_away in [false, true] {
            let killed = Arc::new(AtomicBool::new(false));
            let started = Arc::new(AtomicBool::new(false));
            let (flag, start) = (Arc::clone(&killed), Arc::clone(&started));
            let work: Run = Box::new(move |abort: &Abort| {
                let (kill, waits) = mpsc::channel();
                abort.on_fire(move || {
                    let _ = kill.send(());
                });
                start.store(true, Ordering::SeqCst);
                flag.store(waits.recv().is_ok(), Ordering::SeqCst);
                Answer::Refused(Reason::BackEndFailed)
            });
            let patience = if goes_away { LATE } else { SOON };
            let mut attempt = Box::pin(lane.run(place(1, Priority::Login, patience), work));
            if goes_away {
                tokio::select! {
                    _ = &mut attempt => panic!("answered"),
                    () = until("it runs", || started.load(Ordering::SeqCst)) => {}
                }
                drop(attempt);
            } else {
                assert_eq!(attempt.await, Answer::Refused(Reason::BackEndTimeout));
            }
            until("it is killed", || killed.load(Ordering::SeqCst)).await;
            until("it is free", || lane.status(Instant::now()).in_flight == 0).await;
        }
    });
}

#[test]
fn who_does_not_wait_any_more_is_not_served() {
    run(async {
        let lane = Lane::new("busy", settings(1, 0));
        let door = Door::new();
        let first = lane.run(place(1, Priority::Login, LATE), door.wait());
        let waiter = async {
            until("it runs", || lane.status(Instant::now()).in_flight == 1).await;
            let late = lane.run(place(2, Priority::Login, SOON), Box::new(|_: &Abort| panic!()));
            assert_eq!(late.await, Answer::Refused(Reason::BackEndTimeout));
            assert_eq!(lane.status(Instant::now()).waiting, [0; 4]);
            door.open();
        };
        let (first, ()) = tokio::join!(first, waiter);
        assert_eq!(first, accept());
        assert!(!lane.status(Instant::now()).is_open);
    });
}

#[test]
fn an_overloaded_lane_goes_on_to_serve_those_who_still_wait() {
    run(async {
        let lane = Lane::new("busy", settings(1, 0));
        // Twice as much as one thread does, for ten times as long as anybody waits.
        let work = || -> Run {
            Box::new(|_: &Abort| {
                thread::sleep(Duration::from_millis(8));
                accept()
            })
        };
        let attempts = (0..500_u32).map(|number| {
            let (lane, begin) = (&lane, Duration::from_millis(u64::from(number) * 4));
            async move {
                tokio::time::sleep(begin).await;
                let place = place(number, Priority::Login, Duration::from_millis(200));
                lane.run(place, work()).await
            }
        });
        let answers = futures_util::future::join_all(attempts).await;
        let served = answers.iter().filter(|answer| **answer == accept()).count();
        assert!(served > 100, "{served} of about 240");
        assert!(!answers.contains(&Answer::Refused(Reason::BackEndDown)));
        assert!(!lane.status(Instant::now()).is_open);
    });
}

#[test]
fn one_issuer_without_keys_does_not_shut_out_the_others() {
    run(async {
        let lane = Lane::new("tokens", settings(1, 0));
        for reason in [Reason::TokenKeysStale, Reason::CertificateStatus] {
            for number in 0..20 {
                let work: Run = Box::new(move |_: &Abort| Answer::Refused(reason));
                let answer = lane.run(place(number, Priority::Login, LATE), work).await;
                assert_eq!(answer, Answer::Refused(reason));
            }
        }
        assert_eq!(lane.run(place(1, Priority::Login, LATE), quick()).await, accept());
    });
}
