use std::collections::BTreeSet;

use proptest::prelude::*;
use serde_json::json;

use super::*;

fn publish(hub: &Hub, subject: &str) -> u64 {
    hub.publish(Timestamp(1), Kind::Warning, subject, json!({}))
}

fn ids(listener: &mut Listener) -> Vec<u64> {
    let mut out = Vec::new();
    while let Some(heard) = listener.try_next() {
        match heard {
            Heard::Event(event) => out.push(event.id),
            Heard::Lagged(missed) => out.push(1_000_000 + missed),
            Heard::Restarted => out.push(0),
        }
    }
    out
}

#[test]
fn kinds_have_words_of_their_own_that_are_read_back() {
    let words: BTreeSet<&str> = Kind::ALL.iter().map(|kind| kind.word()).collect();
    assert_eq!(words.len(), Kind::ALL.len());
    for kind in Kind::ALL {
        assert_eq!(Kind::from_word(kind.word()), Some(*kind));
        assert_eq!(serde_json::to_value(kind).unwrap(), json!(kind.word()));
        assert!(kind.word().contains('.') && kind.meaning().ends_with('.'));
    }
    assert_eq!(Kind::from_word("session.eaten"), None);
}

#[test]
fn the_manual_lists_every_kind_with_its_meaning() {
    let manual = include_str!("../manual/events.md");
    for kind in Kind::ALL {
        let line = format!("| `{}` | {} |", kind.word(), kind.meaning());
        assert!(manual.contains(&line), "control/manual/events.md lacks: {line}");
    }
    let lines = manual.lines().filter(|line| line.starts_with("| `")).count();
    assert_eq!(lines, Kind::ALL.len(), "control/manual/events.md has kinds that do not exist");
}

#[test]
fn a_listener_hears_what_comes_after_it_began() {
    let hub = Hub::default();
    publish(&hub, "before");
    let mut listener = hub.listen();
    assert_eq!(listener.try_next(), None);
    publish(&hub, "after");
    assert_eq!(ids(&mut listener), [2]);
}

#[test]
fn a_listener_that_comes_back_hears_what_it_missed() {
    let hub = Hub::default();
    for _ in 0..5 {
        publish(&hub, "x");
    }
    assert_eq!(ids(&mut hub.listen_after(2)), [3, 4, 5]);
}

#[test]
fn a_listener_from_before_a_restart_is_told_so_and_hears_all_that_is_kept_since() {
    let start = Timestamp(1_764_500_000_000);
    let before = Hub::begun(start);
    let last = (0..700).fold(0, |_, _| publish(&before, "before"));
    // However many there are by now, and also if the calendar was set back or the clock stood.
    for (later_ms, count) in [(1, 0), (1, 5), (60_000, 1), (86_400_000, 1_000), (-5_000, 9)] {
        let hub = Hub::begun(start.plus_ms(later_ms));
        let own: Vec<u64> = (0..count).map(|_| publish(&hub, "after")).collect();
        let expected: Vec<u64> = std::iter::once(0).chain(own.iter().copied()).collect();
        assert_eq!(ids(&mut hub.listen_after(last)), expected, "{later_ms} ms later");
        for number in [1, 99, u64::MAX] {
            assert_eq!(ids(&mut hub.listen_after(number)), expected, "after {number}");
        }
        assert_eq!(ids(&mut hub.listen_after(0)), own, "who heard nothing missed nothing");
        if let [first, .., newest] = own[..] {
            let mut again = hub.listen_after(first);
            assert_eq!(ids(&mut again), own[1..], "of this life");
            assert!(ids(&mut hub.listen_after(newest)).is_empty());
        }
        assert!(own.iter().all(|id| *id < 1 << 53), "every reader of JSON has the number");
    }
    // More than are kept since: both gaps are told.
    let hub = Hub::begun(start.plus_ms(9_000));
    for _ in 0..KEPT + 3 {
        publish(&hub, "x");
    }
    let heard = ids(&mut hub.listen_after(last));
    assert_eq!((heard[0], heard[1], heard.len()), (0, 1_000_003, KEPT + 2));
}

#[test]
fn a_slow_listener_is_told_how_many_it_missed_and_holds_nobody_up() {
    let hub = Hub::default();
    let mut slow = hub.listen();
    for _ in 0..KEPT + 7 {
        publish(&hub, "x");
    }
    assert_eq!(slow.try_next(), Some(Heard::Lagged(7)));
    assert_eq!(ids(&mut slow).len(), KEPT);
}

#[tokio::test(flavor = "current_thread")]
async fn a_waiting_listener_is_woken_by_another_thread() {
    let hub = Hub::default();
    let mut listener = hub.listen();
    let teller = hub.clone();
    let thread = std::thread::spawn(move || publish(&teller, "x"));
    assert!(matches!(listener.next().await, Some(Heard::Event(event)) if event.id == 1));
    thread.join().unwrap();
}

proptest! {
    #[test]
    fn whatever_the_order_events_arrive_once_in_order_or_are_counted_as_missed(
        steps in prop::collection::vec(0usize..700, 1..12),
        from in 0u64..3000,
    ) {
        let hub = Hub::default();
        let mut listener = hub.listen();
        let (mut seen, mut published) = (0u64, 0u64);
        for step in steps {
            for _ in 0..step {
                publish(&hub, "x");
                published += 1;
            }
            // Every other round the listener sleeps.
            if step % 2 == 0 {
                while let Some(heard) = listener.try_next() {
                    match heard {
                        Heard::Event(event) => { seen += 1; prop_assert_eq!(event.id, seen); }
                        Heard::Lagged(missed) => seen += missed,
                        Heard::Restarted => prop_assert!(false, "it never left"),
                    }
                }
                prop_assert_eq!(seen, published);
            }
        }
        let again = ids(&mut hub.listen_after(from));
        prop_assert_eq!(again.first() == Some(&0), from > published);
        let first = if from > published { 0 } else { from };
        let kept_from = published.saturating_sub(KEPT as u64).max(first);
        let events: Vec<u64> = again.into_iter().filter(|id| (1..1_000_000).contains(id)).collect();
        prop_assert_eq!(events, (kept_from + 1..=published).collect::<Vec<_>>());
    }
}
