//! Checks of single values. Each finds everything that is wrong and says where and what to write.
//!
//! What has passed them is plain, short and in range, so that nobody behind them has to look again.
//! Names are ASCII only: letters of other scripts that look alike must not make two accounts out of
//! what people read as one.

use std::net::IpAddr;

use ringway_proto::allowed_ips::IpNet;
use uuid::Uuid;

use super::Patch;
use crate::directory::refusal::{FieldProblem, Refusal};
use crate::store::records::{Factor, Quota, QuotaAction, Rate, Timestamp};

/// Characters of a name.
pub const NAME_CHARS_MAX: usize = 64;
/// Characters of what is shown to people.
pub(super) const DISPLAY_CHARS_MAX: usize = 128;
/// Slowest rate in bits per second: below it not even a handshake passes in its time.
pub const RATE_BPS_MIN: u64 = 8_000;
/// Fastest rate in bits per second: the fastest network cards there are.
pub const RATE_BPS_MAX: u64 = 400_000_000_000;
/// Smallest burst in bytes: one full packet must fit, or nothing passes.
pub(super) const BURST_BYTES_MIN: u64 = 2_000;
/// Largest burst in bytes: 1 GiB, more than a second at most rates.
pub(super) const BURST_BYTES_MAX: u64 = 1 << 30;
/// Smallest quota in bytes.
pub const QUOTA_BYTES_MIN: u64 = 1 << 20;
/// Largest quota in bytes: 1 EiB, so that sums of usage cannot overflow what a store keeps.
pub(super) const QUOTA_BYTES_MAX: u64 = 1 << 60;
/// Latest moment of an expiry: the end of the year 9999, the last one RFC 3339 writes.
pub(super) const TIME_MAX: Timestamp = Timestamp(253_402_300_799_000);
/// Most DNS servers in a client's file.
pub(super) const DNS_MAX: usize = 8;
/// Most routes in a client's file.
pub(super) const ROUTES_MAX: usize = 64;

/// What is written where there is to be nothing, so that nothing may be called that.
const NOTHING: &str = "none";

/// Collects what is wrong with an input.
#[derive(Debug, Default)]
pub struct Checks(Vec<FieldProblem>);

impl Checks {
    /// Notes that something is wrong at `pointer`.
    pub fn wrong(&mut self, pointer: &str, message: impl Into<String>) {
        self.0.push(FieldProblem { pointer: pointer.to_owned(), message: message.into() });
    }

    /// Nothing was wrong, or everything that was.
    ///
    /// # Errors
    /// [`Refusal::Invalid`].
    pub fn finish(self) -> Result<(), Refusal> {
        if self.0.is_empty() { Ok(()) } else { Err(Refusal::Invalid(self.0)) }
    }

    /// A name in lower case.
    pub fn name(&mut self, pointer: &str, given: &str) -> String {
        let name = given.to_ascii_lowercase();
        let allowed = |c: char| c.is_ascii_alphanumeric() || "._@-".contains(c);
        if name.is_empty() || name.chars().count() > NAME_CHARS_MAX {
            let count = name.chars().count();
            self.wrong(
                pointer,
                format!("A name has 1 to {NAME_CHARS_MAX} characters, not {count}"),
            );
        } else if let Some(other) = name.chars().find(|c| !allowed(*c)) {
            let message = format!(
                "\"{}\" (U+{:04X}) may not be in a name: use a-z, 0-9 and . _ @ -",
                other.escape_debug(),
                u32::from(other)
            );
            self.wrong(pointer, message);
        } else if !name.starts_with(|c: char| c.is_ascii_alphanumeric()) {
            self.wrong(pointer, "A name begins with a letter or a digit");
        } else if name == NOTHING {
            self.wrong(pointer, "\"none\" stands for nothing: choose another name");
        } else if Uuid::try_parse(&name).is_ok() {
            self.wrong(pointer, "A name may not look like an identifier: choose a word");
        }
        name
    }

    /// What is shown to people: no control characters and none that turn the direction of text.
    pub fn display(&mut self, pointer: &str, text: &str, chars_max: usize) {
        let count = text.chars().count();
        if count > chars_max {
            self.wrong(pointer, format!("At most {chars_max} characters, this has {count}"));
        }
        let turns = |c: char| matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2028}' | '\u{2029}' | '\u{2066}'..='\u{2069}');
        if let Some(other) = text.chars().find(|c| c.is_control() || turns(*c)) {
            let code = u32::from(other);
            self.wrong(pointer, format!("U+{code:04X} is a control character: leave it out"));
        }
    }

    /// A rate, each part of it.
    pub fn rate(&mut self, pointer: &str, rate: &Rate) {
        for (field, value) in [("up_bps", rate.up_bps), ("down_bps", rate.down_bps)] {
            if let Some(bps) = value {
                self.bps(&format!("{pointer}/{field}"), bps);
            }
        }
        if let Some(burst) = rate.burst_bytes {
            let pointer = format!("{pointer}/burst_bytes");
            if !(BURST_BYTES_MIN..=BURST_BYTES_MAX).contains(&burst) {
                let message = format!(
                    "A burst has {BURST_BYTES_MIN} to {BURST_BYTES_MAX} bytes, not {burst}"
                );
                self.wrong(&pointer, message);
            }
            if rate.up_bps.is_none() && rate.down_bps.is_none() {
                self.wrong(&pointer, "A burst without a rate means nothing: give a rate too");
            }
        }
    }

    /// A quota, each part of it.
    pub fn quota(&mut self, pointer: &str, quota: &Quota) {
        if !(QUOTA_BYTES_MIN..=QUOTA_BYTES_MAX).contains(&quota.bytes) {
            let message = format!(
                "A quota has {QUOTA_BYTES_MIN} (1 MiB) to {QUOTA_BYTES_MAX} (1 EiB) bytes, not {}",
                quota.bytes
            );
            self.wrong(&format!("{pointer}/bytes"), message);
        }
        let throttle = format!("{pointer}/throttle_bps");
        match (quota.action, quota.throttle_bps) {
            (QuotaAction::Throttle, Some(bps)) => self.bps(&throttle, bps),
            (QuotaAction::Throttle, None) => {
                self.wrong(&throttle, "The action \"throttle\" needs a rate to go on at");
            }
            (QuotaAction::Disconnect | QuotaAction::Notify, Some(_)) => {
                self.wrong(&throttle, "Only the action \"throttle\" has a rate: leave it out");
            }
            (QuotaAction::Disconnect | QuotaAction::Notify, None) => {}
        }
    }

    /// A moment that must be still to come.
    pub fn future(&mut self, pointer: &str, moment: Timestamp, now: Timestamp) {
        if moment <= now {
            self.wrong(pointer, format!("{moment} is in the past: give a later time"));
        } else if moment > TIME_MAX {
            self.wrong(pointer, format!("At most {TIME_MAX}: leave it out for no end"));
        }
    }

    /// What is asked for at sign-in.
    pub fn factors(&mut self, pointer: &str, factors: &[Factor]) {
        if factors.is_empty() {
            self.wrong(pointer, "At least one factor: \"anonymous\" lets in whoever comes");
        }
        for (index, factor) in factors.iter().enumerate() {
            if factors[..index].contains(factor) {
                let message = format!("\"{}\" is asked for twice", factor.word());
                self.wrong(&format!("{pointer}/{index}"), message);
            }
        }
        if factors.len() > 1 && factors.contains(&Factor::Anonymous) {
            self.wrong(pointer, "\"anonymous\" asks for nothing, so it stands alone");
        }
        if factors.first() == Some(&Factor::Totp) && factors.len() == 1 {
            self.wrong(pointer, "\"totp\" is a second factor: ask for another one before it");
        }
    }

    /// A number within bounds.
    pub fn within(&mut self, pointer: &str, value: u32, from: u32, to: u32, unit: &str) {
        if !(from..=to).contains(&value) {
            self.wrong(pointer, format!("{from} to {to} {unit}, not {value}"));
        }
    }

    /// A number of seconds within bounds, or 0 for never.
    pub fn seconds(&mut self, pointer: &str, value: u32, from: u32, to: u32) {
        if value != 0 {
            self.within(pointer, value, from, to, "seconds, or 0 for never");
        }
    }

    /// Prefixes in their canonical spelling, without duplicates.
    pub fn routes(&mut self, pointer: &str, routes: &[String]) {
        if routes.len() > ROUTES_MAX {
            self.wrong(pointer, format!("At most {ROUTES_MAX} routes, not {}", routes.len()));
        }
        for (index, route) in routes.iter().enumerate() {
            let pointer = format!("{pointer}/{index}");
            self.net(&pointer, route);
            if routes[..index].contains(route) {
                self.wrong(&pointer, format!("\"{route}\" stands here twice"));
            }
        }
    }

    /// A prefix in its canonical spelling: `10.8.0.0/24`, with no bit set beyond the length.
    pub fn net(&mut self, pointer: &str, text: &str) -> Option<IpNet> {
        let net = match text.parse::<IpNet>() {
            Ok(net) => net,
            Err(error) => {
                self.wrong(pointer, format!("{error}: write a prefix such as \"10.8.0.0/24\""));
                return None;
            }
        };
        let canonical = format!("{}/{}", net.address(), net.prefix());
        if text != canonical {
            self.wrong(pointer, format!("\"{text}\" is not canonical: write \"{canonical}\""));
            return None;
        }
        Some(net)
    }

    /// DNS servers: few, different, and addresses that something can be sent to.
    pub fn dns(&mut self, pointer: &str, servers: &[IpAddr]) {
        if servers.len() > DNS_MAX {
            self.wrong(pointer, format!("At most {DNS_MAX} DNS servers, not {}", servers.len()));
        }
        for (index, server) in servers.iter().enumerate() {
            let pointer = format!("{pointer}/{index}");
            if server.is_unspecified() || server.is_multicast() {
                self.wrong(&pointer, format!("No DNS server can answer at {server}"));
            }
            if servers[..index].contains(server) {
                self.wrong(&pointer, format!("{server} stands here twice"));
            }
        }
    }

    /// A field that must stay: the value of the patch, or the one before.
    pub fn required<T: Clone>(&mut self, pointer: &str, patch: &Patch<T>, before: &T) -> T {
        match patch {
            Patch::Set(value) => value.clone(),
            Patch::Keep => before.clone(),
            Patch::Clear => {
                self.wrong(pointer, "This cannot be null: leave it out to keep what is there");
                before.clone()
            }
        }
    }

    fn bps(&mut self, pointer: &str, bps: u64) {
        if !(RATE_BPS_MIN..=RATE_BPS_MAX).contains(&bps) {
            let message = format!(
                "A rate is {RATE_BPS_MIN} to {RATE_BPS_MAX} bits per second, not {bps}; leave it \
                 out for unlimited"
            );
            self.wrong(pointer, message);
        }
    }
}
