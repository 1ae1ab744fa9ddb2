use std::time::{Duration, Instant};

use super::super::backend::{Abort, Credentials, Protocol};
use super::super::memory::{Memory, person};
use super::super::people::Person;
use super::super::source::Source;
use super::*;
use crate::store::records::Timestamp;

/// Cheap, so that thousands can be computed.
const CHEAP: PasswordSettings =
    PasswordSettings { memory_kib: 64, passes: 1, lanes: 1, at_once: 4 };

fn hasher() -> Hasher {
    Hasher::new(CHEAP).unwrap()
}

fn with_password(name: &str, hash: Option<String>) -> Person {
    let mut person = person(name);
    person.secrets.password_hash = hash;
    person
}

fn request(person: Option<&Person>, password: &str) -> Request {
    of(person.map(|person| Arc::new(person.clone())), password)
}

fn of(person: Option<Arc<Person>>, password: &str) -> Request {
    Request {
        name: "ann".to_owned(),
        person,
        credentials: Arc::new(Credentials {
            password: Some(Secret::new(password)),
            ..Credentials::default()
        }),
        source: Source::Local(0),
        protocol: Protocol::API,
        state: None,
        now: Timestamp(1_800_000_000_000),
        deadline: Instant::now() + Duration::from_secs(60),
    }
}

fn answer(back_end: &LocalPasswords, request: Request) -> Answer {
    match back_end.begin(request) {
        Work::Blocking(run) => run(&Abort::default()),
        other @ (Work::Done(_) | Work::Stage(_) | Work::Waiting(_)) => panic!("{other:?}"),
    }
}

#[test]
fn a_password_is_right_or_wrong_or_not_there() {
    let hasher = hasher();
    let back_end = LocalPasswords::new(hasher.clone(), Arc::new(Memory::default()), None);
    let hash = hasher.hash(&Secret::new("three small boats")).unwrap();
    assert!(hash.starts_with("$argon2id$v=19$m=64,t=1,p=1$"), "{hash}");
    let password_print = Some(print(Some(&hash)));
    let ann = with_password("ann", Some(hash));
    let none = with_password("ann", None);
    let damaged = with_password("ann", Some("$argon2id$nonsense".to_owned()));
    let accepted = Answer::Accepted(Proof { password_print, ..Proof::default() });
    assert_eq!(answer(&back_end, request(Some(&ann), "three small boats")), accepted);
    for (person, password, reason) in [
        (Some(&ann), "three small boat", Reason::PasswordWrong),
        (Some(&ann), "", Reason::PasswordWrong),
        (Some(&none), "three small boats", Reason::PasswordMissing),
        (Some(&damaged), "three small boats", Reason::PasswordWrong),
        (None, "three small boats", Reason::UserUnknown),
        (None, "no password of anybody", Reason::UserUnknown),
    ] {
        assert_eq!(answer(&back_end, request(person, password)), Answer::Refused(reason));
    }
}

#[test]
fn the_same_password_has_another_hash_each_time() {
    let password = Secret::new("three small boats");
    assert_ne!(hasher().hash(&password).unwrap(), hasher().hash(&password).unwrap());
}

#[test]
fn a_hash_of_other_parameters_is_right_and_outdated() {
    let password = Secret::new("three small boats");
    let old = hasher().hash(&password).unwrap();
    let newer = Hasher::new(PasswordSettings { passes: 2, ..CHEAP }).unwrap();
    let checked = newer.check(&password, Some(&old));
    assert_eq!(checked, Checked { is_right: true, is_outdated: true });
    let new = newer.hash(&password).unwrap();
    let checked = newer.check(&password, Some(&new));
    assert_eq!(checked, Checked { is_right: true, is_outdated: false });
}

#[test]
fn an_outdated_hash_is_replaced_after_a_success() {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let password = Secret::new("three small boats");
    let old = hasher().hash(&password).unwrap();
    let newer = Hasher::new(PasswordSettings { passes: 2, ..CHEAP }).unwrap();
    let memory = Memory::default();
    let ann = with_password("ann", Some(old.clone()));
    memory.put(ann.clone());
    let back_end = LocalPasswords::new(
        newer.clone(),
        Arc::new(memory.clone()),
        Some(runtime.handle().clone()),
    );
    answer(&back_end, request(Some(&ann), "wrong wrong wrong"));
    let said = answer(&back_end, request(Some(&ann), "three small boats"));
    let kept = memory.person("ann").unwrap().secrets.password_hash.unwrap();
    assert_ne!(kept, old);
    let Answer::Accepted(proof) = said else { panic!("{said:?}") };
    assert_eq!(proof.password_print, Some(print(Some(&kept))), "what is stored was proved");
    let checked = newer.check(&password, Some(&kept));
    assert_eq!(checked, Checked { is_right: true, is_outdated: false });
}

#[test]
fn parameters_beyond_any_bound_are_not_computed() {
    for settings in [
        PasswordSettings { memory_kib: 1 << 21, ..CHEAP },
        PasswordSettings { memory_kib: 1, ..CHEAP },
        PasswordSettings { passes: 0, ..CHEAP },
        PasswordSettings { passes: 1000, ..CHEAP },
    ] {
        assert!(matches!(Hasher::new(settings), Err(HashError::Parameters(_))), "{settings:?}");
    }
    let hash = hasher().hash(&Secret::new("three small boats")).unwrap();
    let greedy = hash.replace("m=64", "m=4000000000");
    let start = Instant::now();
    assert!(!hasher().check(&Secret::new("three small boats"), Some(&greedy)).is_right);
    assert!(start.elapsed() < Duration::from_secs(5));
}

#[test]
fn memory_is_bounded_by_how_many_hashes_are_computed_at_once() {
    let hasher = Hasher::new(PasswordSettings { at_once: 2, ..CHEAP }).unwrap();
    let permits = [hasher.permit(), hasher.permit()];
    let waits = std::thread::spawn({
        let hasher = hasher.clone();
        move || hasher.hash(&Secret::new("three small boats")).is_ok()
    });
    assert_eq!(*hasher.0.free.lock().unwrap(), 0);
    assert!(!waits.is_finished());
    drop(permits);
    assert!(waits.join().unwrap());
    assert_eq!(*hasher.0.free.lock().unwrap(), 2);
}

/// Welch's t of two classes of times, the slowest twentieth of each left out: those are interrupts.
fn welch(times: &mut [Vec<f64>; 2]) -> f64 {
    let [(n0, mean0, variance0), (n1, mean1, variance1)] = times.each_mut().map(|times| {
        times.sort_by(f64::total_cmp);
        times.truncate(times.len() * 19 / 20);
        let count = times.len() as f64;
        let mean = times.iter().sum::<f64>() / count;
        let squares = times.iter().map(|time| (time - mean).powi(2)).sum::<f64>();
        (count, mean, squares / (count - 1.0))
    });
    (mean0 - mean1) / (variance0 / n0 + variance1 / n1).sqrt()
}

/// The smallest |t| of some tries: a real difference is there each time, a disturbance is not.
fn smallest_t(mut measure: impl FnMut(usize) -> f64) -> f64 {
    let try_once = |measure: &mut dyn FnMut(usize) -> f64| {
        let mut times = [Vec::new(), Vec::new()];
        let mut random = 0x9e37_79b9_u32;
        for _ in 0..3000 {
            random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let class = (random >> 31) as usize;
            times[class].push(measure(class));
        }
        welch(&mut times).abs()
    };
    (0..5).map(|_| try_once(&mut measure)).fold(f64::INFINITY, f64::min)
}

/// Whoever measures holds this: two that measure at once disturb each other.
pub(in crate::auth) static MEASURING: Mutex<()> = Mutex::new(());

/// Beyond this, times differ by more than chance (one in a hundred thousand).
const SUSPICIOUS: f64 = 4.5;

#[test]
fn time_does_not_tell_whether_a_user_exists() {
    let _alone = MEASURING.lock().unwrap_or_else(PoisonError::into_inner);
    let hasher = hasher();
    let back_end = LocalPasswords::new(hasher.clone(), Arc::new(Memory::default()), None);
    let hash = hasher.hash(&Secret::new("three small boats")).unwrap();
    let ann = Arc::new(with_password("ann", Some(hash.clone())));
    let none = Arc::new(with_password("ann", None));
    let time = |request: Request| {
        let start = Instant::now();
        std::hint::black_box(answer(&back_end, request));
        start.elapsed().as_nanos() as f64
    };
    for other in [None, Some(&none)] {
        let t = smallest_t(|class| {
            let person = if class == 0 { Some(&ann) } else { other };
            time(of(person.cloned(), "wrong wrong wrong"))
        });
        assert!(t < SUSPICIOUS, "{t}: {:?}", other.map(|_| "no password"));
    }
    // The method sees a back end that has no dummy, and one whose dummy is a tenth cheaper.
    let cheaper = Hasher::new(PasswordSettings { memory_kib: 56, ..CHEAP }).unwrap();
    let cheaper_hash = cheaper.hash(&Secret::new("x")).unwrap();
    let wrong = Secret::new("wrong wrong wrong");
    for leak in ["no dummy", "cheaper dummy"] {
        let t = smallest_t(|class| {
            let start = Instant::now();
            match (class, leak) {
                (0, _) => drop(std::hint::black_box(hasher.check(&wrong, Some(&hash)))),
                (_, "no dummy") => {}
                _ => drop(std::hint::black_box(hasher.check(&wrong, Some(&cheaper_hash)))),
            }
            start.elapsed().as_nanos() as f64
        });
        assert!(t > SUSPICIOUS, "{leak} is not seen: {t}");
    }
}
