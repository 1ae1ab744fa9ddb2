use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use proptest::prelude::*;

use super::*;

const START: Timestamp = Timestamp(1_800_000_000_000);

fn at(text: &str) -> Source {
    Source::Address(text.parse().unwrap())
}

fn v4(number: u32) -> Source {
    Source::Address(IpAddr::V4(Ipv4Addr::from_bits(number)))
}

fn bans() -> Bans {
    Bans::new(BanSettings::default())
}

/// Guesses until somebody is kept out; how many it took and who it is.
fn guess(bans: &mut Bans, source: Source, user: &str, now: Timestamp) -> (u32, Vec<Ban>) {
    for count in 1..1000 {
        let new = bans.failed(source, Some(user), Reason::PasswordWrong, now);
        if !new.is_empty() {
            return (count, new);
        }
    }
    panic!("nobody is ever kept out");
}

#[test]
fn eight_wrong_passwords_at_once_keep_a_source_out_and_nobody_else() {
    let mut bans = bans();
    let (count, new) = guess(&mut bans, at("192.0.2.1"), "ann", START);
    assert_eq!(count, 8);
    assert_eq!(new[0].subject, "192.0.2.1/32");
    assert_eq!(new[0].until, START.plus_ms(300_000));
    let kept_out = bans.admit(at("192.0.2.1"), START).unwrap_err();
    assert_eq!((kept_out.reason, kept_out.until), (Reason::SourceBanned, new[0].until));
    assert!(bans.admit(at("192.0.2.2"), START).is_ok());
    assert!(bans.admit(at("192.0.2.1"), new[0].until).is_ok());
}

#[test]
fn one_mistake_every_five_minutes_is_forgiven_for_ever() {
    let mut bans = bans();
    for step in 0..1000 {
        let now = START.plus_ms(step * 300_000);
        assert!(bans.failed(at("192.0.2.1"), Some("ann"), Reason::PasswordWrong, now).is_empty());
    }
}

#[test]
fn each_ban_within_a_day_is_twice_as_long_up_to_a_bound() {
    let mut bans = bans();
    let mut now = START;
    let mut lengths = Vec::new();
    for round in 0..12 {
        let (_, new) = guess(&mut bans, at("192.0.2.1"), &format!("user{round}"), now);
        lengths.push(new[0].until.since(now) / 1000);
        now = new[0].until;
    }
    assert_eq!(lengths[..4], [300, 600, 1200, 2400]);
    assert_eq!(lengths[11], 86_400);
    let (_, new) = guess(&mut bans, at("192.0.2.1"), "ann", now.plus_ms(86_400_001));
    assert_eq!(new[0].until.since(now.plus_ms(86_400_001)), 300_000);
}

#[test]
fn a_user_is_locked_out_wherever_the_guesses_come_from_but_not_on_this_host() {
    let mut bans = bans();
    let mut new = Vec::new();
    let mut count = 0;
    while new.is_empty() {
        count += 1;
        new = bans.failed(v4(count << 8), Some("ann"), Reason::CodeWrong, START);
    }
    assert_eq!(count, 10);
    assert_eq!(new[0].subject, "user:ann");
    assert!(bans.is_locked_out("ann", at("198.51.100.1"), START));
    assert!(!bans.is_locked_out("bob", at("198.51.100.1"), START));
    assert!(!bans.is_locked_out("ann", Source::Local(0), START));
    assert!(!bans.is_locked_out("ann", at("198.51.100.1"), START.plus_ms(60_000)));
}

#[test]
fn a_process_of_this_host_is_never_kept_out() {
    let mut bans = bans();
    for _ in 0..1000 {
        assert!(
            bans.failed(Source::Local(0), Some("root"), Reason::PasswordWrong, START).is_empty()
        );
        assert!(bans.admit(Source::Local(0), START).is_ok());
    }
    assert!(bans.list(START).is_empty());
}

#[test]
fn hosts_of_one_site_cannot_share_the_guesses() {
    for host in [(|number: u32| v4(0xc633_6400 | number)) as fn(u32) -> Source, |number| {
        Source::Address(IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, number as u16, 9, 9, 9, 9)))
    }] {
        let mut bans = bans();
        let mut guesses = 0;
        'guessing: for round in 0..7 {
            for number in 1..200 {
                // Seven guesses of each host, and another name each time: no host and no user is
                // kept out.
                let user = format!("user{number}.{round}");
                let new = bans.failed(host(number), Some(&user), Reason::PasswordWrong, START);
                guesses += 1;
                if !new.is_empty() {
                    break 'guessing;
                }
            }
        }
        assert_eq!(guesses, 40);
        assert!(bans.admit(host(250), START).is_err(), "the whole site is out");
    }
}

#[test]
fn our_own_trouble_is_nobodys_fault() {
    let mut bans = bans();
    for reason in Reason::ALL.iter().filter(|reason| reason.is_trouble()) {
        for _ in 0..100 {
            assert!(bans.failed(v4(1), Some("ann"), *reason, START).is_empty());
        }
    }
}

#[test]
fn a_success_clears_the_user_and_washes_a_source_only_slowly() {
    let mut bans = bans();
    for _ in 0..9 {
        let source = v4(77 << 8);
        bans.failed(source, Some("ann"), Reason::PasswordWrong, START);
        bans.lift("0.0.77.0/32");
        bans.lift("0.0.77.0/24");
    }
    bans.succeeded(v4(1 << 8), "ann", START);
    let (count, new) = guess(&mut bans, v4(2 << 8), "ann", START);
    assert_eq!((count, new.len()), (8, 1), "the user begins anew, so the source is out first");
    // One account of his own does not give an attacker more than a guess a minute.
    let mut bans = self::bans();
    let mut guesses = 0;
    while bans.failed(v4(5), None, Reason::PasswordWrong, START).is_empty() {
        guesses += 1;
        for _ in 0..10 {
            bans.succeeded(v4(5), "mallory", START);
        }
    }
    assert!(guesses <= 9, "{guesses}");
}

#[test]
fn a_source_may_try_ten_times_a_second_and_twenty_at_once() {
    let mut bans = bans();
    let admitted = |bans: &mut Bans, now| bans.admit(at("192.0.2.1"), now).is_ok();
    let at_once = (0..10_000).filter(|_| admitted(&mut bans, START)).count();
    assert_eq!(at_once, 20);
    let in_ten_seconds = (1..=10_000).filter(|ms| admitted(&mut bans, START.plus_ms(*ms))).count();
    assert_eq!(in_ten_seconds, 100);
    assert!(bans.admit(at("192.0.2.2"), START).is_ok());
}

#[test]
fn what_is_remembered_is_taken_over_and_can_be_lifted() {
    let mut before = bans();
    let (_, mut new) = guess(&mut before, at("2001:db8::1"), "ann", START);
    for number in 0..10 {
        new.extend(before.failed(v4(number << 8), Some("bob"), Reason::PasswordWrong, START));
    }
    let mut after = bans();
    after.load(&new, START);
    assert_eq!(
        after.list(START).iter().map(|ban| ban.subject.as_str()).collect::<Vec<_>>(),
        ["2001:db8::/64", "user:bob"]
    );
    assert!(after.admit(at("2001:db8::2"), START).is_err());
    assert!(after.lift("2001:db8::/64") && !after.lift("2001:db8::/64"));
    assert!(after.lift("user:bob") && !after.lift("nonsense") && !after.lift("10.0.0.0/9"));
    assert_eq!(after.count(START), 0);
    assert!(after.admit(at("2001:db8::2"), START).is_ok());
}

#[test]
fn a_flood_of_sources_does_not_make_us_forget_who_failed_most() {
    let settings = BanSettings { sources_max: 1000, users_max: 1000, ..BanSettings::default() };
    let mut bans = Bans::new(settings);
    guess(&mut bans, at("192.0.2.1"), "ann", START);
    for number in 0..20_000 {
        let source = v4(0x0b00_0000 + number * 256);
        let _ = bans.admit(source, START);
        bans.failed(source, Some(&format!("user{number}")), Reason::PasswordWrong, START);
        assert!(bans.sources.entries.len() <= 1000 && bans.users.entries.len() <= 1000);
        assert_eq!(bans.sources.entries.len(), bans.sources.order.len());
    }
    assert!(bans.admit(at("192.0.2.1"), START).is_err());
}

proptest! {
    /// Whatever happens: tables agree with themselves, stay within bounds and empty with time.
    #[test]
    fn tables_stay_whole(
        steps in prop::collection::vec((0_u32..20, 0_usize..5, 0_i64..200_000), 0..200),
    ) {
        let settings = BanSettings { sources_max: 12, users_max: 5, ..BanSettings::default() };
        let mut bans = Bans::new(settings);
        let mut now = START;
        for (who, what, pause) in steps {
            now = now.plus_ms(pause);
            let (source, user) = (v4(who << 7), format!("user{}", who % 7));
            match what {
                0 => drop(bans.admit(source, now)),
                1 => bans.succeeded(source, &user, now),
                2 => drop(bans.lift(&source.prefix().to_string())),
                _ => for ban in bans.failed(source, Some(&user), Reason::PasswordWrong, now) {
                    prop_assert!(ban.until > now);
                },
            }
            for (entries, order, max) in [
                (bans.sources.entries.len(), bans.sources.order.len(), 12),
                (bans.users.entries.len(), bans.users.order.len(), 5),
            ] {
                prop_assert_eq!(entries, order);
                prop_assert!(entries <= max);
            }
        }
        let later = now.plus_ms(10 * 86_400_000);
        prop_assert_eq!(bans.count(later), 0);
        for number in 0..40 {
            let _ = bans.admit(v4(number), later.plus_ms(i64::from(number) * 1000));
        }
        prop_assert!(bans.sources.entries.len() <= 2);
    }
}

#[test]
fn a_user_of_this_host_who_guesses_is_kept_out_and_root_and_others_are_not() {
    let mut bans = bans();
    let (count, new) = guess(&mut bans, Source::Unix(1001), "ann", START);
    assert_eq!((count, new.len(), new[0].subject.as_str()), (8, 1, "local:1001"));
    assert!(bans.admit(Source::Unix(1001), START).is_err());
    for other in [Source::Unix(1002), Source::Local(0), Source::Local(1001)] {
        assert!(bans.admit(other, START).is_ok(), "{other:?}");
    }
    // It comes back with a restart, and an operator can lift it.
    let mut after = self::bans();
    after.load(&new, START);
    assert!(after.admit(Source::Unix(1001), START).is_err());
    assert!(after.lift("local:1001") && after.admit(Source::Unix(1001), START).is_ok());
}

#[test]
fn behind_a_proxy_of_this_host_only_the_user_who_is_guessed_at_is_locked_out() {
    for source in ["127.0.0.1", "127.9.9.9", "::1", "::ffff:127.0.0.1"].map(at) {
        let mut bans = bans();
        let (count, new) = guess(&mut bans, source, "ann", START);
        assert_eq!((count, new.len(), new[0].subject.as_str()), (10, 1, "user:ann"), "{source}");
        for _ in 0..1000 {
            assert!(bans.failed(source, None, Reason::TokenMalformed, START).is_empty());
            assert!(bans.admit(source, START).is_ok(), "{source}");
        }
        assert!(bans.is_locked_out("ann", source, START));
        assert!(!bans.is_locked_out("bob", source, START));
    }
}
