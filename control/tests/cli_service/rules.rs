//! Groups, policies, pools, quotas, bans and the audit log.

use ringway_control::store::records::Ban;

use super::gateway::{Gateway, now, squeeze};

#[test]
fn a_group_lives_from_add_to_rm() {
    let gateway = Gateway::new("group");
    gateway.ok("policy add strict");
    gateway.ok("group add staff --policy strict --rate-down 1gbit --burst 256KiB");
    let list = gateway.ok("group list");
    assert!(list.contains("staff  strict  unlimited up, 1 Gbit/s down, burst 256 KiB"), "{list}");
    let set = gateway.ok("group set staff --rate-up 100mbit --policy none");
    assert!(set.contains("rate.up_bps  -") && set.contains("100 Mbit/s"), "{set}");
    assert!(squeeze(&gateway.ok("group show staff")).contains("Policy: -"));
    gateway.ok("user add ada --group staff");
    gateway.fails("group rm staff --yes", 12, &["(in-use)"]);
    gateway.ok("user set ada --group none");
    gateway.ok("group rm staff --yes");
    assert_eq!(gateway.ok("group list -q"), "");
    gateway.fails("group set staff", 2, &["ringway group set --help"]);
    gateway.fails("group add staff --rate-up 10mb", 2, &["bits or bytes", "10mbit"]);
    gateway.fails("group add staff --rate-up 1bit", 9, &["/rate/up_bps", "(invalid)"]);
}

#[test]
fn a_policy_lives_from_add_to_rm() {
    let gateway = Gateway::new("policy");
    let line = "policy add strict --factors password,totp --session-timeout 8h --idle-timeout 30m \
                --devices-max 2 --sessions-max 1 --excess kick-oldest --rate-down 200mbit \
                --session-rate-up 50mbit --quota 1TiB/month --routes 10.0.0.0/8 --dns 10.0.0.53";
    gateway.ok(line);
    let shown = gateway.ok("policy show strict");
    for part in [
        "Sign-in asks for:  password,totp",
        "Rate of a user:    unlimited up, 200 Mbit/s down",
        "Rate of a session: 50 Mbit/s up, unlimited down",
        "Quota of a user:   1 TiB/month, then disconnect",
        "Access lasts:      8h",
        "Idle access lasts: 30m",
        "One session more:  kick-oldest",
        "Routes:            10.0.0.0/8",
        "DNS:               10.0.0.53",
    ] {
        assert!(shown.contains(part), "lacks {part}:\n{shown}");
    }
    assert_eq!(gateway.ok("policy list -q"), "default\nstrict\n");
    assert!(gateway.ok("policy list").contains("password,totp"));
    let set = gateway.ok("policy set strict --session-timeout never --routes none --quota none");
    assert!(set.contains("session_timeout_s  28800") && set.contains("quota"), "{set}");
    let policy = gateway.json("policy show strict");
    assert_eq!(policy["session_timeout_s"], 0);
    assert!(policy["routes"].as_array().unwrap().is_empty());
    gateway.fails("policy add x --factors anonymous,password", 9, &["/factors"]);
    gateway.ok("policy rm strict --yes");
    gateway.fails("policy rm default --yes", 12, &["default"]);
}

#[test]
fn a_pool_lives_from_add_to_rm() {
    let gateway = Gateway::new("pool");
    gateway.ok("user add ada");
    gateway.ok("device add ada laptop");
    let shown = gateway.ok("pool show default");
    assert!(shown.contains("IPv4:             10.9.0.0/24"), "{shown}");
    let leases = gateway.ok("pool leases default");
    assert_eq!(leases.lines().count(), 2, "{leases}");
    gateway.fails("pool add guests --net4 10.200.0.0/24", 9, &["10.200.0.0/24"]);
    gateway.fails("pool add guests --range4 10.9.0.1", 2, &["is no range"]);
    let set = gateway.ok("pool set default --range4 10.9.0.2-10.9.0.200 --random");
    assert!(set.contains("random  no      yes"), "{set}");
    assert!(gateway.ok("pool list").contains("10.9.0.2-10.9.0.200"));
    gateway.fails("pool rm default --yes", 12, &["default"]);
    gateway.ok("pool add guests --net4 10.9.8.0/24 --net6 fd00:9:0:8::/64 --in-order");
    assert_eq!(gateway.ok("pool list -q"), "default\nguests\n");
    gateway.ok("pool set guests --name visitors --net6 none");
    assert!(gateway.json("pool show visitors")["pool"]["net6"].is_null());
    gateway.fails("pool rm visitors", 2, &["--yes"]);
    gateway.ok("pool rm visitors --yes");
    assert_eq!(gateway.ok("pool list -q"), "default\n");
}

#[test]
fn quotas_are_set_listed_reset_and_taken_away() {
    let gateway = Gateway::new("quota");
    gateway.ok("user add ada");
    gateway.ok("user add bob");
    let set = gateway.run("quota set ada 2GiB/week --throttle 1mbit");
    assert_eq!(set.code, 0, "{}", set.err);
    assert!(set.err.contains("may move 2 GiB/week, then throttle to 1 Mbit/s"), "{}", set.err);
    let list = gateway.ok("quota list");
    assert!(list.contains("ada   2 GiB/week, then throttle to 1 Mbit/s   0 B  2 GiB"), "{list}");
    assert!(list.contains("\nbob   -"), "{list}");
    assert_eq!(gateway.ok("quota list --exceeded").lines().count(), 1);
    let reset = gateway.run("quota reset ada");
    assert!(reset.err.contains("2 GiB are left"), "{}", reset.err);
    gateway.fails("quota reset bob", 12, &["has no quota"]);
    gateway.ok("quota rm ada");
    assert!(gateway.json("user show ada")["user"]["quota"].is_null());
    gateway.fails("quota set ada 2GiB", 2, &["50GiB/month"]);
    gateway.fails("quota set ada 1KiB/day", 9, &["/bytes"]);
}

#[test]
fn a_ban_is_listed_and_lifted() {
    let gateway = Gateway::new("ban");
    gateway.write(|db| {
        for subject in ["user:eve", "192.0.2.0/24"] {
            let ban = Ban {
                subject: subject.to_owned(),
                until: now().plus_ms(600_000),
                score: 12,
                reason: "sign-in".to_owned(),
            };
            db.put_ban(&ban).unwrap();
        }
    });
    let list = gateway.ok("ban list");
    assert!(list.contains("192.0.2.0/24") && list.contains("12  sign-in"), "{list}");
    gateway.ok("ban lift 192.0.2.0/24");
    assert_eq!(gateway.ok("ban list -q"), "user:eve\n");
    gateway.fails("ban lift 192.0.2.0/24", 11, &["(not-found)"]);
}

#[test]
fn the_audit_log_is_listed_filtered_and_verified() {
    let gateway = Gateway::new("audit");
    gateway.ok("user add ada");
    gateway.ok("user add bob");
    let list = gateway.ok("audit list --action user.created");
    assert_eq!(list.lines().count(), 3, "{list}");
    assert!(list.contains("local:0") && list.contains("user.created"), "{list}");
    let newest = gateway.json("audit list --newest-first --from 1h");
    assert_eq!(newest["items"][0]["detail"]["name"], "bob", "{newest}");
    assert!(newest["next"].is_null());
    let verified = gateway.ok("audit verify");
    assert!(verified.contains("Whole:      yes"), "{verified}");
    let hash = gateway.ok("audit verify -q");
    assert_eq!(hash.trim().len(), 64, "{hash}");
    assert_eq!(gateway.json("audit verify")["head_hash"], hash.trim());
}

#[test]
fn a_backup_is_a_file_that_did_not_exist() {
    let gateway = Gateway::new("backup");
    gateway.ok("user add ada");
    let file = gateway.folder.join("copy.db");
    gateway.ok(&format!("backup {}", file.display()));
    assert!(file.metadata().unwrap().len() > 0);
    let again = gateway.run(&format!("backup {}", file.display()));
    assert!(again.code == 12 || again.code == 9, "{again:?}");
}
