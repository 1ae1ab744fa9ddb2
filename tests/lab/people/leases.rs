//! Addresses of devices over the life of a gateway.

use std::time::Duration;

use ringway_perf::programs::Program;
use serde_json::json;

use super::house::House;
use crate::setup::{LATER, stock_client};

#[test]
fn privileged_a_device_keeps_its_address_when_the_gateway_is_killed_and_when_it_is_restarted() {
    let mut house = House::new();
    house.user("ada", json!({}));
    house.user("bob", json!({}));
    let (laptop, phone) = (house.device("ada", "laptop"), house.device("bob", "phone"));
    let client = house.join(&laptop, Program::Gotatun, 0);
    let address = |house: &House, user: &str, device: &str| {
        let shown = house.api.get(&format!("/api/v1/users/{user}/devices/{device}"));
        shown["lease"]["address4"].as_str().unwrap_or_else(|| panic!("{shown}")).to_owned()
    };
    let before = [address(&house, "ada", "laptop"), address(&house, "bob", "phone")];
    assert_eq!(before[0], laptop.address().to_string());
    assert_eq!(before[1], phone.address().to_string());

    for killed in [true, false, true] {
        if killed {
            house.kill_and_start();
        } else {
            house.restart();
        }
        let after = [address(&house, "ada", "laptop"), address(&house, "bob", "phone")];
        assert_eq!(after, before);
        // The client was told nothing and has what it had.
        house.until_answered(0, LATER);
        assert_eq!(house.expect_session(&laptop)["tunnel"][0], format!("{}/32", before[0]));
    }

    // A device that is removed and added again gets an address that is free.
    house.api.delete("/api/v1/users/ada/devices/laptop");
    house.expect_no_session(&laptop, Duration::from_secs(5));
    assert!(!house.answers(0), "a removed device still gets through");
    let tablet = house.device("bob", "tablet");
    let again = house.device_with("ada", "laptop", laptop.keys.clone());
    let all = [phone.address(), tablet.address(), again.address()];
    for (number, one) in all.iter().enumerate() {
        assert!(!all[..number].contains(one), "{one} is leased twice");
    }
    drop(client);
    let _client = house.join(&again, stock_client(), 0);
}
