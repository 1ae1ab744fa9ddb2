//! Free addresses: order, exclusions, exhaustion, and that nobody shares one.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;
use crate::directory::surroundings::{FilePeer, Surroundings};
use crate::directory::tests::{pool, surroundings};

fn sheet(pool: &crate::store::records::Pool, here: &Surroundings) -> Sheet {
    Sheet::new(Plan::new(pool, here), &[])
}

fn pair(four: &str, six: &str) -> Pair {
    (four.parse().ok(), six.parse().ok())
}

#[test]
fn the_first_client_has_the_number_after_the_gateways_in_both_families() {
    let sheet = sheet(&pool("default", "10.77.0.0/24", "fd00:77::/64"), &surroundings());
    assert_eq!(sheet.next(None), Ok(pair("10.77.0.2", "fd00:77::2")));
}

#[test]
fn a_gap_is_filled_with_the_same_number_in_both_families() {
    let mut sheet = sheet(&pool("default", "10.77.0.0/24", "fd00:77::/64"), &surroundings());
    for taken in [pair("10.77.0.2", ""), pair("", "fd00:77::3"), pair("10.77.0.4", "fd00:77::4")] {
        sheet.take(taken);
    }
    assert_eq!(sheet.next(None), Ok(pair("10.77.0.5", "fd00:77::5")));
}

#[test]
fn numbers_differ_when_no_common_one_is_left() {
    let mut sheet = sheet(&pool("default", "10.77.0.0/29", "fd00:77::/64"), &surroundings());
    for number in 2..6 {
        sheet.take(pair(&format!("10.77.0.{number}"), ""));
    }
    sheet.take(pair("", "fd00:77::6"));
    assert_eq!(sheet.next(None), Ok(pair("10.77.0.6", "fd00:77::2")));
}

#[test]
fn what_peers_of_the_file_use_is_never_leased_not_even_when_released() {
    let mut here = surroundings();
    let nets = ["10.77.0.2/32", "10.77.0.4/30", "fd00:77::3/128", "192.168.0.0/16"];
    here.peers.push(FilePeer {
        name: "site".to_owned(),
        public: ringway_proto::crypto::PublicKey([9; 32]),
        nets: nets.iter().map(|net| net.parse().unwrap()).collect(),
    });
    let mut sheet = sheet(&pool("default", "10.77.0.0/28", "fd00:77::/64"), &here);
    assert_eq!(sheet.next(None), Ok(pair("10.77.0.8", "fd00:77::8")));
    sheet.release(pair("10.77.0.2", "fd00:77::3"));
    assert_eq!(sheet.next(None), Ok(pair("10.77.0.8", "fd00:77::8")));
    assert_eq!(sheet.free(), 8, "3 and 8 to 14 are free");
}

#[test]
fn a_range_holds_its_first_and_its_last_address() {
    let mut wished = pool("default", "10.8.0.0/24", "");
    wished.range4 = Some(("10.8.0.100".parse().unwrap(), "10.8.0.200".parse().unwrap()));
    let mut sheet = sheet(&wished, &surroundings());
    assert_eq!(sheet.free(), 101);
    assert_eq!(sheet.next(None), Ok(pair("10.8.0.100", "")));
    while let Ok(next) = sheet.next(None) {
        sheet.take(next);
    }
    sheet.release(pair("10.8.0.200", ""));
    assert_eq!(sheet.next(None), Ok(pair("10.8.0.200", "")));
}

#[test]
fn a_full_pool_names_the_prefix_that_is_full() {
    let mut sheet = sheet(&pool("default", "10.77.0.0/30", "fd00:77::/64"), &surroundings());
    sheet.take(sheet.next(None).unwrap());
    assert_eq!(sheet.next(None), Err("10.77.0.0/30".to_owned()));
    let six = Sheet::new(Plan::new(&pool("six", "", "fd00:78::/126"), &surroundings()), &[]);
    assert_eq!(six.free(), 3);
}

#[test]
fn a_million_addresses_are_given_in_order_and_quickly_enough() {
    let here = Surroundings { addresses: Vec::new(), ..surroundings() };
    let mut sheet = sheet(&pool("large", "10.0.0.0/8", "fd00::/48"), &here);
    assert_eq!(sheet.free(), u64::from(NUMBERS_MAX) - 1);
    // In order without a look at what is full: a search from the beginning would take hours.
    for number in 1..NUMBERS_MAX {
        let next = sheet.next(None).unwrap();
        assert_eq!(next.0, Some(Ipv4Addr::from_bits((10 << 24) + number)));
        sheet.take(next);
    }
    assert!(sheet.next(None).is_err());
}

#[test]
fn addresses_drawn_at_random_are_not_in_order_and_exhaust_the_pool_exactly() {
    let mut sheet = sheet(&pool("random", "10.77.0.0/24", ""), &surroundings());
    let mut state = 7_u32;
    let mut draw = |below: u32| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) % below
    };
    let mut given = Vec::new();
    while let Ok(next) = sheet.next(Some(&mut draw)) {
        sheet.take(next);
        given.push(next.0.unwrap());
    }
    assert!(!given.is_sorted());
    let unique: BTreeSet<_> = given.iter().copied().collect();
    assert_eq!((given.len(), unique.len()), (253, 253));
}

proptest! {
    #[test]
    fn no_two_clients_ever_share_an_address(
        prefix in 25_u8..=29, prefix6 in 121_u8..=126,
        steps in prop::collection::vec((any::<bool>(), any::<prop::sample::Index>()), 1..200)
    ) {
        let mut sheet = sheet(
            &pool("p", &format!("10.77.0.0/{prefix}"), &format!("fd00:77::/{prefix6}")),
            &surroundings(),
        );
        let capacity = sheet.free();
        let mut held: Vec<Pair> = Vec::new();
        for (add, which) in steps {
            if add || held.is_empty() {
                match sheet.next(None) {
                    Ok(next) => {
                        prop_assert!(held.iter().all(|one| one.0 != next.0 && one.1 != next.1));
                        prop_assert!(next.0.is_some() && next.1.is_some());
                        sheet.take(next);
                        held.push(next);
                    }
                    Err(_) => prop_assert_eq!(held.len() as u64, capacity),
                }
            } else {
                sheet.release(held.swap_remove(which.index(held.len())));
            }
            prop_assert_eq!(sheet.free(), capacity - held.len() as u64);
        }
    }
}
