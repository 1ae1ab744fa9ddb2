//! Buckets against arithmetic that has no limits.

use proptest::prelude::*;

use super::*;

const fn at(ns: u64) -> Instant {
    Instant::from_nanos(ns)
}

#[test]
fn a_bucket_begins_full_and_gains_its_rate() {
    let rate = Rate { bytes_per_second: 1_000_000, burst: 100_000 };
    let mut bucket = Bucket::full(rate, at(5));
    assert_eq!(bucket.take_up_to(u64::MAX), 100_000);
    bucket.refill(at(5 + 50_000_000));
    assert_eq!(bucket.level(), 50_000);
    // A clock that goes back brings nothing and costs nothing.
    bucket.refill(at(3));
    bucket.refill(at(5 + 60_000_000));
    assert_eq!(bucket.level(), 60_000);
    bucket.refill(at(u64::MAX / 2));
    assert_eq!(bucket.level(), 100_000);
}

#[test]
fn nothing_is_lost_or_won_over_days_of_uneven_steps() {
    // Rates that divide nothing, in steps in which less than a byte is gained.
    for (bytes_per_second, step) in [(7, 999_999_937_u64), (1_234_577, 61), (999_999_937, 3)] {
        let rate = Rate { bytes_per_second, burst: u64::MAX };
        let mut bucket = Bucket::full(rate, at(0));
        bucket.take_up_to(u64::MAX);
        let mut now = 0;
        for round in 0..1_000_000_u64 {
            now += step + round % 3;
            bucket.refill(at(now));
        }
        let exact = u128::from(bytes_per_second) * u128::from(now) / 1_000_000_000;
        assert_eq!(u128::from(bucket.level()), exact, "{bytes_per_second} B/s for {now} ns");
    }
}

#[test]
fn another_rate_holds_from_then_on_and_clips_what_is_there() {
    let mut bucket = Bucket::full(Rate { bytes_per_second: 1_000_000, burst: 500_000 }, at(0));
    bucket.take_up_to(400_000);
    bucket.change(Rate { bytes_per_second: 10_000, burst: 150_000 }, at(20_000_000));
    assert_eq!(bucket.level(), 120_000);
    bucket.refill(at(1_020_000_000));
    assert_eq!(bucket.level(), 130_000);
    bucket.change(Rate { bytes_per_second: 10_000, burst: 1 }, at(1_020_000_000));
    assert_eq!(bucket.level(), BURST_MIN);
}

#[test]
fn a_rate_of_nothing_lets_the_burst_pass_and_no_more() {
    let mut bucket = Bucket::full(Rate { bytes_per_second: 0, burst: 20_000 }, at(0));
    assert_eq!(bucket.take_up_to(50_000), 20_000);
    bucket.refill(at(u64::MAX));
    assert_eq!(bucket.level(), 0);
}

#[test]
fn portions_are_a_super_packet_where_the_burst_allows() {
    let portion = |bytes_per_second, burst| Rate { bytes_per_second, burst }.portion();
    assert_eq!(portion(1_250_000, 1 << 20), 64 << 10);
    assert_eq!(portion(1_250_000, 100_000), 25_000);
    assert_eq!(portion(1_250_000_000, 1 << 30), 2_500_000);
    assert_eq!(portion(1_250_000_000, 1), BURST_MIN / 4);
    for rate in [Rate::of(0), Rate::of(125_000), Rate::of(1_250_000_000), Rate::of(u64::MAX)] {
        assert!(rate.reserve() <= rate.portion_max() && rate.portion() <= rate.portion_max());
    }
}

proptest! {
    #[test]
    fn what_passes_is_never_more_than_rate_and_burst_nor_less_while_something_is_wanted(
        bytes_per_second in prop_oneof![0..10_000_000_u64, any::<u64>()],
        burst in prop_oneof![0..1_000_000_u64, any::<u64>()],
        steps in proptest::collection::vec((any::<u32>(), any::<u32>(), any::<bool>()), 1..60),
    ) {
        let rate = Rate { bytes_per_second, burst };
        let mut bucket = Bucket::full(rate, at(0));
        let (mut now, mut passed, mut clipped) = (0_u64, 0_u128, false);
        for (gap, wanted, much) in steps {
            now += if much { u64::from(gap) << 20 } else { u64::from(gap) };
            bucket.refill(at(now));
            clipped |= bucket.level() == rate.burst();
            let before = bucket.level();
            let taken = bucket.take_up_to(u64::from(wanted));
            prop_assert_eq!(taken, u64::from(wanted).min(before));
            passed += u128::from(taken);
            let gained = u128::from(bytes_per_second) * u128::from(now) / 1_000_000_000;
            let allowed = gained + u128::from(rate.burst());
            prop_assert!(passed <= allowed);
            prop_assert!(bucket.level() <= rate.burst());
            if !clipped {
                prop_assert_eq!(passed + u128::from(bucket.level()), allowed);
            }
        }
    }

    #[test]
    fn giving_back_never_makes_more_than_was_taken(
        takes in proptest::collection::vec((0..50_000_u64, 0..50_000_u64, 0..2_000_000_u64), 1..60),
    ) {
        let rate = Rate { bytes_per_second: 3_000_000, burst: 40_000 };
        let mut bucket = Bucket::full(rate, at(0));
        let (mut now, mut out) = (0, 0_u64);
        for (take, give, gap) in takes {
            now += gap;
            bucket.refill(at(now));
            let taken = bucket.take_up_to(take);
            let given = give.min(taken);
            bucket.give_back(given);
            out += taken - given;
            prop_assert!(u128::from(out) <= 3_000_000 * u128::from(now) / 1_000_000_000 + 40_000);
        }
    }
}
