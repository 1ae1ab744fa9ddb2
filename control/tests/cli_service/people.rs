//! Users, devices, links and tokens.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use ringway_control::keys;
use ringway_control::store::records::{OtpKind, UserSecrets};
use ringway_proto::crypto::PrivateKey;
use serde_json::json;

use super::gateway::{Gateway, is_password, now, squeeze};

fn key(number: u8) -> String {
    keys::show_public(&PrivateKey::from_bytes([number; 32]).public())
}

#[test]
fn a_user_lives_from_add_to_erase() {
    let gateway = Gateway::new("user");
    gateway.ok("group add staff");
    let line = "user add Ada --display-name \"Ada Lovelace\" --group staff --rate-down 20mbit \
                --quota 50GiB/month --throttle 1mbit --expires 30d";
    let made = gateway.run(line);
    assert_eq!((made.code, made.out.as_str()), (0, ""), "{}", made.err);
    assert_eq!(made.err, "Made the user \"Ada\"\n");
    let view = gateway.json("user show ada");
    assert_eq!(view["user"]["rate"]["down_bps"], 20_000_000);
    assert_eq!(
        view["user"]["quota"],
        json!({"bytes": 50_u64 << 30, "period": "month",
        "action": "throttle", "throttle_bps": 1_000_000})
    );
    let expires: ringway_control::store::ids::Timestamp =
        view["user"]["expires_at"].as_str().unwrap().parse().unwrap();
    assert!((expires.since(now()) - 30 * 86_400_000).abs() < 60_000);
    let list = gateway.ok("user list");
    let lines: Vec<&str> = list.lines().collect();
    assert!(lines[0].starts_with("NAME  DISPLAY NAME  STATE   ROLE  GROUP"), "{list}");
    assert!(lines[1].starts_with("ada   Ada Lovelace  active  -     staff"), "{list}");
    let shown = squeeze(&gateway.ok("user show ada"));
    for part in [
        "Display name: Ada Lovelace",
        "Group: staff",
        "unlimited up, 20 Mbit/s down (from user)",
        "Quota: 50 GiB/month, then throttle to 1 Mbit/s (from user)",
        "Quota left: 50 GiB",
    ] {
        assert!(shown.contains(part), "lacks {part}:\n{shown}");
    }
    let set = gateway.run("user set ada --rate-down none --group none --quota-action notify");
    assert_eq!(set.code, 0, "{}", set.err);
    for part in ["group", "rate.down_bps       20 Mbit/s", "quota.action        throttle", "notify"]
    {
        assert!(set.out.contains(part), "lacks {part}:\n{}", set.out);
    }
    assert!(!set.out.contains("version") && !set.out.contains("display_name"), "{}", set.out);
    let again = gateway.run("user set ada --group none");
    assert_eq!((again.code, again.out.as_str()), (0, ""));
    assert!(again.err.contains("was so already"), "{}", again.err);
    gateway.ok("user set ada --name countess");
    assert_eq!(gateway.ok("user list -q"), "countess\n");
    let kept = gateway.json("user export countess");
    assert_eq!(kept["user"]["name"], "countess");
    let file = gateway.folder.join("countess.json");
    gateway.ok(&format!("user export countess --out {}", file.display()));
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    gateway.fails("user erase countess", 2, &["cannot be undone", "--yes"]);
    gateway.ok("user erase countess --yes");
    gateway.fails("user show countess", 11, &["There is no user \"countess\"", "(not-found)"]);
}

#[test]
fn states_of_a_user_are_set_and_lifted() {
    let gateway = Gateway::new("states");
    gateway.ok("user add ada");
    let state = || gateway.json("user show ada")["user"]["state"].as_str().unwrap().to_owned();
    for (verb, expected) in
        [("disable", "disabled"), ("enable", "active"), ("ban", "banned"), ("unban", "active")]
    {
        gateway.ok(&format!("user {verb} ada"));
        assert_eq!(state(), expected, "{verb}");
    }
    gateway.fails("user unban ada", 12, &["is not banned but active", "ringway user enable"]);
    gateway.ok("user expire ada 2099-12-31");
    let view = gateway.json("user show ada");
    assert_eq!(view["user"]["expires_at"], "2099-12-31T00:00:00.000Z");
    gateway.ok("user expire ada never");
    assert!(gateway.json("user show ada")["user"]["expires_at"].is_null());
    gateway.fails("user expire ada 2001-01-01", 9, &["/expires_at", "in the past", "(invalid)"]);
    gateway.fails("user expire ada soon", 2, &["2027-01-31", "30d"]);
    assert_eq!(gateway.ok("user list --state disabled -q"), "");
    assert_eq!(gateway.ok("user list --state active --name da -q"), "ada\n");
}

#[test]
fn passwords_come_from_files_or_standard_input_and_are_never_shown() {
    let gateway = Gateway::new("passwords");
    let file = gateway.file("password", "correct horse battery\n");
    let made = gateway.run(&format!("user add ada --password-file {file}"));
    assert_eq!(made.code, 0, "{}", made.err);
    assert!(!made.err.contains("correct") && made.out.is_empty());
    assert_eq!(gateway.json("user show ada")["user"]["has_password"], true);
    let set = gateway.run_with("user passwd ada --password-file -", "another staple here\n");
    assert_eq!((set.code, set.out.as_str()), (0, ""), "{}", set.err);
    let id = gateway.json("user show ada")["user"]["id"].as_str().unwrap().parse().unwrap();
    let hash = gateway.write(move |db| db.user_secrets(id).unwrap().password_hash);
    assert!(is_password(&hash.unwrap(), "another staple here"));
    let short = gateway.run_with("user passwd ada --password-file -", "pw-7c\n");
    short.failed("user passwd", 9, &["shorter than 10", "(invalid)"]);
    assert!(!short.err.contains("pw-7c"));
    gateway.fails("user passwd ada", 2, &["nobody is there to type it", "file"]);
    gateway.fails("user passwd ada --password-file /nowhere", 8, &["Cannot read /nowhere"]);
    // There is no flag that would put a password where everybody can read it.
    gateway.fails("user add eve --password hunter2hunter2", 2, &["unexpected argument"]);
}

#[test]
fn a_lost_second_factor_is_taken_away() {
    let gateway = Gateway::new("totp");
    gateway.ok("user add ada");
    assert_eq!(gateway.ok("user totp ada"), "no\n");
    gateway.fails("user totp ada --remove --yes", 11, &["second factor"]);
    let id = gateway.json("user show ada")["user"]["id"].as_str().unwrap().parse().unwrap();
    gateway.write(move |db| {
        let mut user = db.user(id).unwrap();
        user.has_totp = true;
        let totp_secret = Some(vec![5; 20]);
        db.set_user_secrets(id, &UserSecrets { totp_secret, ..UserSecrets::default() }).unwrap();
        db.update_user(&user).unwrap();
    });
    assert_eq!(gateway.ok("user totp ada"), "yes\n");
    gateway.write(move |db| {
        let (totp_secret, totp_kind) = (Some(vec![5; 20]), OtpKind::Counter);
        let secrets = UserSecrets { totp_secret, totp_kind, ..UserSecrets::default() };
        db.set_user_secrets(id, &secrets).unwrap();
    });
    assert_eq!(gateway.ok("user totp ada"), "yes, by a counter\n");
    assert!(gateway.ok("user show ada").contains("yes, by a counter"));
    assert_eq!(gateway.json("user totp ada")["totp_kind"], "counter");
    gateway.ok("user totp ada --remove --yes");
    assert_eq!(gateway.json("user totp ada")["totp_kind"], json!(null));
    assert_eq!(gateway.json("user totp ada")["has_totp"], false);
}

#[test]
fn a_device_whose_key_is_made_here_is_handed_out_once() {
    let gateway = Gateway::new("device_made");
    gateway.ok("user add ada");
    let added = gateway.run("device add ada laptop");
    assert_eq!(added.code, 0, "{}", added.err);
    assert!(added.out.starts_with("# laptop\n[Interface]\nPrivateKey = "), "{}", added.out);
    assert!(added.out.contains("Endpoint = vpn.example.org:51820\n"), "{}", added.out);
    assert!(added.err.contains("nowhere else"), "{}", added.err);
    let secret = added.out.lines().nth(2).unwrap().strip_prefix("PrivateKey = ").unwrap();
    for line in ["device show ada laptop", "device list", "device list --json", "user export ada"] {
        assert!(!gateway.ok(line).contains(secret), "{line}");
    }
    let file = gateway.folder.join("phone.conf");
    let out = gateway.run(&format!("device add ada phone --qr --out {}", file.display()));
    assert_eq!((out.code, out.out.as_str()), (0, ""), "{}", out.err);
    assert!(out.err.contains('█') && out.err.contains("Wrote "), "{}", out.err);
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    // Whatever is there stays, and no key is made in vain.
    let line = format!("device add ada tablet --out {}", file.display());
    gateway.fails(&line, 8, &["exists already"]);
    assert_eq!(gateway.ok("device list ada -q"), "ada laptop\nada phone\n");
}

#[test]
fn a_device_lives_from_add_to_rm() {
    let gateway = Gateway::new("device");
    gateway.ok("user add ada");
    let key_1 = key(1);
    let line = format!("device add ada laptop --public-key {key_1} --address4 10.9.0.77");
    let added = gateway.run(&line);
    assert_eq!(added.code, 0, "{}", added.err);
    assert!(added.out.contains("# PrivateKey = the client's own"), "{}", added.out);
    assert!(added.out.contains("Address = 10.9.0.77/32"), "{}", added.out);
    assert!(!added.err.contains("nowhere else"));
    let list = gateway.ok("device list");
    assert!(list.contains("ada   laptop  yes") && list.contains(&key_1), "{list}");
    let shown = squeeze(&gateway.ok("device show ada laptop"));
    assert!(shown.contains("User: ada\n") && shown.contains("Pool: default\n"), "{shown}");
    gateway.ok("device disable ada laptop");
    assert_eq!(gateway.ok("device list --disabled -q"), "ada laptop\n");
    assert_eq!(gateway.ok("device list --enabled -q"), "");
    gateway.ok("device enable ada laptop");
    let renamed = gateway.ok("device rename ada laptop desk");
    assert!(squeeze(&renamed).contains("name laptop desk"), "{renamed}");
    let file = gateway.ok("device config ada desk");
    assert!(file.starts_with("# desk\n") && !file.contains("\nPrivateKey"), "{file}");
    gateway.fails("device rotate ada desk", 2, &["--yes"]);
    let rotated = gateway.ok(&format!("device rotate ada desk --yes --public-key {}", key(2)));
    assert!(rotated.contains("Address = 10.9.0.77/32"), "{rotated}");
    assert_eq!(gateway.json("device show ada desk")["device"]["public_key"], key(2));
    let made = gateway.json("device rotate ada desk --yes");
    assert_eq!(made["has_private_key"], true);
    gateway.ok("device rm ada desk --yes");
    gateway.fails("device show ada desk", 11, &["There is no device \"desk\""]);
    let weak = format!("device add ada x --public-key AQ{}=", "A".repeat(41));
    gateway.fails(&weak, 9, &["known to be weak"]);
    gateway.fails("device add ada x --public-key abc", 2, &["44 characters"]);
    gateway.ok("policy set default --devices-max 1");
    gateway.ok("device add ada one");
    gateway.fails("device add ada two", 12, &["may have 1 ", "(limit-reached)"]);
}

#[test]
fn access_is_granted_and_ended_by_an_operator() {
    let gateway = Gateway::new("access");
    gateway.ok("user add ada");
    gateway.ok("device add ada laptop");
    let granted = gateway.run("user access ada --device laptop");
    assert_eq!(granted.code, 0, "{}", granted.err);
    assert!(granted.err.contains("\"ada\" has access until "), "{}", granted.err);
    assert!(gateway.json("device show ada laptop")["device"]["access_until"].is_string());
    gateway.ok("user access ada --end");
    assert!(gateway.json("device show ada laptop")["device"]["access_until"].is_null());
}

#[test]
fn a_link_is_made_shown_once_listed_and_taken_back() {
    let gateway = Gateway::new("enrol");
    gateway.ok("user add ada");
    let made = gateway.run("enrol ada phone --valid 2h");
    assert_eq!(made.code, 0, "{}", made.err);
    assert!(made.out.starts_with("https://vpn.example.org/enrol#re_"), "{}", made.out);
    assert!(made.err.contains("Good once until "), "{}", made.err);
    let list = gateway.ok("enrol --list");
    assert!(list.contains("ada   phone") && !list.contains("re_"), "{list}");
    let id = gateway.ok("enrol --list -q").trim().to_owned();
    gateway.ok(&format!("enrol --rm {id}"));
    assert_eq!(gateway.ok("enrol --list ada -q"), "");
    gateway.fails(&format!("enrol --rm {id}"), 11, &["(not-found)"]);
    gateway.fails("enrol ada --valid 1s", 9, &["/valid_s"]);
    gateway.fails("enrol", 2, &["required"]);
}

#[test]
fn a_token_is_shown_once_and_worth_nothing_when_it_is_revoked() {
    let gateway = Gateway::new("token");
    gateway.ok("user add ada --role viewer");
    let made =
        gateway.run("token add ada monitoring --scope users:read,sessions:read --expires 90d");
    assert_eq!(made.code, 0, "{}", made.err);
    let secret = made.out.trim().to_owned();
    assert!(secret.starts_with("rw_") && !made.err.contains(&secret), "{}", made.err);
    let list = gateway.ok("token list");
    assert!(list.contains("monitoring  users:read,sessions:read"), "{list}");
    assert!(!list.contains(&secret));
    assert_eq!(gateway.ok(&format!("user list -q --token {secret}")), "ada\n");
    let id = gateway.ok("token list ada -q").trim().to_owned();
    gateway.fails(&format!("token rm {id}"), 2, &["--yes"]);
    gateway.ok(&format!("token rm {id} --yes"));
    let gone = gateway.run(&format!("user list --token {secret}"));
    gone.failed("user list", 13, &["(unauthenticated)"]);
    assert!(!gone.err.contains(&secret), "{}", gone.err);
    gateway.fails("token add ada x --scope users:write", 9, &["needs the role operator"]);
}

#[test]
fn usage_is_shown_by_day_and_device() {
    use ringway_control::store::records::Usage;
    let gateway = Gateway::new("usage");
    gateway.ok("user add ada");
    gateway.ok("device add ada laptop");
    let view = gateway.json("device show ada laptop");
    let (user, device) = (view["device"]["user"].clone(), view["device"]["id"].clone());
    gateway.write(move |db| {
        let usage = Usage {
            user: user.as_str().unwrap().parse().unwrap(),
            device: device.as_str().unwrap().parse().unwrap(),
            day: i32::try_from(now().0 / 86_400_000).unwrap(),
            up_bytes: 1 << 20,
            down_bytes: 3 << 30,
            up_packets: 1,
            down_packets: 2,
        };
        db.add_usage(&[usage], &[]).unwrap();
    });
    let shown = gateway.ok("user usage ada --from 7d");
    let today = &now().to_string()[..10];
    assert!(shown.contains(&format!("{today}  laptop  1 MiB  3 GiB")), "{shown}");
    assert_eq!(gateway.json("user usage ada")[0]["down_bytes"], 3_u64 << 30);
}
