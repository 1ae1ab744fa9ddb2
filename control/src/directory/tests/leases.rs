//! Addresses: nobody shares one, everybody keeps his, and full is full.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use proptest::prelude::*;

use super::*;
use crate::directory::input::{NewPolicy, NewPool, Patch, PolicyPatch};
use crate::directory::surroundings::FilePeer;
use crate::store::records::Lease;

async fn many(desk: &Desk, devices_max: u32) {
    let patch = PolicyPatch { devices_max: Patch::Set(devices_max), ..PolicyPatch::default() };
    desk.directory.patch_policy(&root(), "default", None, patch).await.unwrap();
    desk.user("ada", None).await;
}

fn small(pool4: &str, pool6: &str) -> Surroundings {
    Surroundings { pool4: pool4.parse().ok(), pool6: pool6.parse().ok(), ..surroundings() }
}

#[tokio::test]
async fn a_full_pool_is_full_exactly_and_says_what_to_do() {
    let desk = Desk::at("lease_full", small("10.77.0.0/28", "fd00:77::/64")).await;
    many(&desk, 100).await;
    for number in 0..13 {
        desk.device("ada", &format!("d{number}")).await;
    }
    let full = desk.directory.add_device(&root(), "ada", new_device("more")).await.unwrap_err();
    let text = full.to_string();
    assert_eq!(full.reason(), "pool_full");
    for part in ["IP allocation failed", "10.77.0.0/28", "\"default\"", "remove devices"] {
        assert!(text.contains(part), "{text} lacks {part}");
    }
    assert_eq!(desk.directory.devices_of("ada").await.unwrap().len(), 13, "nothing half-made");
    assert_eq!(desk.directory.pool("default").await.unwrap().1, 0);
    desk.directory.remove_device(&root(), "ada", "d5", None).await.unwrap();
    let again = desk.device("ada", "again").await.view.lease.unwrap();
    assert_eq!(again.address4, Some(Ipv4Addr::new(10, 77, 0, 7)));
}

#[tokio::test]
async fn an_address_that_another_gateway_gave_or_took_back_is_noticed() {
    let desk = Desk::at("lease_fleet", small("10.77.0.0/29", "")).await;
    many(&desk, 100).await;
    let first = desk.device("ada", "one").await.view;
    // Behind the back of the book, as another gateway of a fleet does it: .3 and .4 are given.
    for (number, last) in [(1, 3), (2, 4)] {
        let (user, pool) = (first.device.user, first.lease.clone().unwrap().pool);
        let lease = move |device| Lease {
            device,
            pool,
            address4: Some(Ipv4Addr::new(10, 77, 0, last)),
            address6: None,
            is_static: false,
            created_at: START,
        };
        let device = crate::store::records::Device {
            id: DeviceId::fresh(),
            name: format!("theirs{number}"),
            public_key: crate::keys::parse_public(&key(number)).unwrap(),
            user,
            ..first.device.clone()
        };
        let written = desk.directory.store().write(move |db| {
            db.insert_device(&device, &Default::default())?;
            db.insert_lease(&lease(device.id))
        });
        written.await.unwrap();
    }
    let next = desk.device("ada", "two").await.view.lease.unwrap();
    assert_eq!(next.address4, Some(Ipv4Addr::new(10, 77, 0, 5)));
    desk.device("ada", "three").await;
    let full = desk.directory.add_device(&root(), "ada", new_device("four")).await.unwrap_err();
    assert_eq!(full.reason(), "pool_full");
    // The other gateway takes one back: full must be looked at again.
    let theirs = desk.directory.device("ada", "theirs1").await.unwrap().device.id;
    desk.directory.store().write(move |db| db.remove_device(theirs)).await.unwrap();
    let next = desk.device("ada", "four").await.view.lease.unwrap();
    assert_eq!(next.address4, Some(Ipv4Addr::new(10, 77, 0, 3)));
}

#[tokio::test]
async fn a_chosen_address_is_given_if_it_is_free_and_the_pools_to_give() {
    let mut here = small("10.77.0.0/24", "fd00:77::/64");
    here.peers.push(FilePeer {
        name: "site".to_owned(),
        public: ringway_proto::crypto::PublicKey([9; 32]),
        nets: vec!["10.77.0.9/32".parse().unwrap()],
    });
    let desk = Desk::at("lease_chosen", here).await;
    many(&desk, 100).await;
    let wish = |name: &str, four: &str, six: &str| NewDevice {
        address4: four.parse().ok(),
        address6: six.parse().ok(),
        ..new_device(name)
    };
    let directory = &desk.directory;
    let both = directory.add_device(&root(), "ada", wish("a", "10.77.0.50", "fd00:77::77")).await;
    let lease = both.unwrap().view.lease.unwrap();
    assert!(lease.is_static);
    assert_eq!(lease.address6, "fd00:77::77".parse().ok());
    let one = directory.add_device(&root(), "ada", wish("b", "10.77.0.60", "")).await.unwrap();
    let lease = one.view.lease.unwrap();
    assert_eq!(
        (lease.address4, lease.address6),
        ("10.77.0.60".parse().ok(), "fd00:77::2".parse().ok())
    );
    for (four, six, place) in [
        ("10.77.0.50", "", "/address4"),
        ("", "fd00:77::77", "/address6"),
        ("10.77.0.0", "", "/address4"),
        ("10.77.0.1", "", "/address4"),
        ("10.77.0.255", "", "/address4"),
        ("10.77.0.9", "", "/address4"),
        ("10.78.0.9", "", "/address4"),
        ("", "fd00:78::1", "/address6"),
    ] {
        let refused = directory.add_device(&root(), "ada", wish("c", four, six)).await.unwrap_err();
        assert_eq!(places(&refused), [place], "{four} {six}: {refused}");
    }
    let ada = as_user(&directory.user("ada").await.unwrap());
    let own = directory.add_device(&ada, "ada", wish("c", "10.77.0.70", "")).await.unwrap_err();
    assert_eq!(own.reason(), "forbidden");
}

#[tokio::test]
async fn a_policy_leases_from_its_own_pool_at_random_if_the_pool_says_so() {
    let desk = Desk::new("lease_policy").await;
    let pool = NewPool {
        name: "guests".to_owned(),
        net4: Some("10.77.8.0/24".to_owned()),
        random: true,
        ..NewPool::default()
    };
    desk.directory.create_pool(&root(), pool).await.unwrap();
    let policy = NewPolicy {
        name: "guests".to_owned(),
        pool: Some("guests".to_owned()),
        devices_max: Some(100),
        ..NewPolicy::default()
    };
    desk.directory.create_policy(&root(), policy).await.unwrap();
    let guest = NewUser { policy: Some("guests".to_owned()), ..new_user("guest") };
    desk.directory.create_user(&root(), guest).await.unwrap();
    let mut given = Vec::new();
    for number in 0..20 {
        let lease = desk.device("guest", &format!("d{number}")).await.view.lease.unwrap();
        let address = lease.address4.unwrap();
        assert!(address.octets().starts_with(&[10, 77, 8]) && !given.contains(&address));
        assert_eq!(lease.address6, None);
        given.push(address);
    }
    // Twenty random addresses in order: one in 2 * 10^18.
    assert!(!given.is_sorted(), "{given:?}");
}

#[tokio::test]
async fn what_a_refused_change_took_is_free_again() {
    let desk = Desk::new("lease_undone").await;
    desk.user("ada", None).await;
    // A client file cannot be written, so a device whose key is made here is not made.
    let mut here = surroundings();
    here.endpoint = None;
    desk.directory.set_surroundings(here);
    let refused = desk.directory.add_device(&root(), "ada", new_device("one")).await.unwrap_err();
    assert!(refused.to_string().contains("endpoint"), "{refused}");
    desk.directory.set_surroundings(surroundings());
    let lease = desk.device("ada", "one").await.view.lease.unwrap();
    assert_eq!(lease.address4, Some(Ipv4Addr::new(10, 77, 0, 2)));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]

    #[test]
    fn devices_keep_their_addresses_whatever_happens_to_others(
        steps in prop::collection::vec((any::<bool>(), 0_u8..16), 1..60)
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let desk = Desk::at("lease_sticky", small("10.77.0.0/28", "fd00:77::/64")).await;
            many(&desk, 100).await;
            let mut model: BTreeMap<String, Lease> = BTreeMap::new();
            for (add, which) in steps {
                let name = format!("d{which}");
                if add {
                    match desk.directory.add_device(&root(), "ada", new_device(&name)).await {
                        Ok(added) => {
                            let lease = added.view.lease.unwrap();
                            assert!(model.values().all(|other| {
                                other.address4 != lease.address4 && other.address6 != lease.address6
                            }));
                            assert!(model.insert(name, lease).is_none());
                        }
                        Err(Refusal::PoolFull(_)) => assert_eq!(model.len(), 13),
                        Err(Refusal::Taken { .. }) => assert!(model.contains_key(&name)),
                        Err(other) => panic!("{other}"),
                    }
                } else {
                    let gone = desk.directory.remove_device(&root(), "ada", &name, None).await;
                    assert_eq!(gone.is_ok(), model.remove(&name).is_some());
                }
                for view in desk.directory.devices_of("ada").await.unwrap() {
                    assert_eq!(model.get(&view.device.name), view.lease.as_ref());
                }
            }
        });
    }
}
