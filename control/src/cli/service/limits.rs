//! Rates and quotas as flags: those of users, groups and policies are written the same way.
//!
//! Absent flags change nothing, `none` takes a limit away; that is what a merge patch says in JSON.
//! Pure.

use clap::{Args, ValueEnum};
use serde_json::{Map, Value, json};

use crate::cli::given::{self, Volume, Wish};

/// A rate, each way apart.
#[derive(Args, Clone, Debug, Default)]
pub(crate) struct RateArgs {
    /// Most from the client, such as 20mbit, or "none" for unlimited
    #[arg(long, value_name = "RATE", value_parser = given::rate)]
    rate_up: Option<Wish<u64>>,
    /// Most to the client, such as 20mbit, or "none" for unlimited
    #[arg(long, value_name = "RATE", value_parser = given::rate)]
    rate_down: Option<Wish<u64>>,
    /// How much may pass at once before the rate counts, such as 256KiB, or "none" for what fits
    #[arg(long, value_name = "SIZE", value_parser = given::size)]
    burst: Option<Wish<u64>>,
}

impl RateArgs {
    /// The patch of a rate; none if no flag was given.
    pub(crate) fn json(&self) -> Option<Value> {
        patch(&[
            ("up_bps", self.rate_up),
            ("down_bps", self.rate_down),
            ("burst_bytes", self.burst),
        ])
    }
}

/// The rate of each session, beside the one of each user.
#[derive(Args, Clone, Debug, Default)]
pub(crate) struct SessionRateArgs {
    /// Most from the client in each session, such as 20mbit, or "none"
    #[arg(long, value_name = "RATE", value_parser = given::rate)]
    session_rate_up: Option<Wish<u64>>,
    /// Most to the client in each session, such as 20mbit, or "none"
    #[arg(long, value_name = "RATE", value_parser = given::rate)]
    session_rate_down: Option<Wish<u64>>,
}

impl SessionRateArgs {
    /// The patch of a rate; none if no flag was given.
    pub(crate) fn json(&self) -> Option<Value> {
        patch(&[("up_bps", self.session_rate_up), ("down_bps", self.session_rate_down)])
    }
}

fn patch(fields: &[(&str, Option<Wish<u64>>)]) -> Option<Value> {
    let mut map = Map::new();
    for (name, wish) in fields {
        if let Some(wish) = wish {
            map.insert((*name).to_owned(), wish.json(|number| json!(number)));
        }
    }
    (!map.is_empty()).then_some(Value::Object(map))
}

/// What happens when a quota is used up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum QuotaEnd {
    /// The user goes on at --throttle
    Throttle,
    /// The user's sessions end
    Disconnect,
    /// Only an event tells it
    Notify,
}

impl QuotaEnd {
    const fn word(self) -> &'static str {
        match self {
            Self::Throttle => "throttle",
            Self::Disconnect => "disconnect",
            Self::Notify => "notify",
        }
    }
}

/// How a quota ends.
#[derive(Args, Clone, Debug, Default)]
pub(crate) struct QuotaEndArgs {
    /// What happens at the end of the quota [default: throttle with --throttle, else disconnect]
    #[arg(long, value_name = "ACTION")]
    quota_action: Option<QuotaEnd>,
    /// Rate each way after the end of the quota, for the action throttle
    #[arg(long, value_name = "RATE", value_parser = given::bps)]
    throttle: Option<u64>,
}

impl QuotaEndArgs {
    /// Whether no flag was given.
    const fn is_empty(&self) -> bool {
        self.quota_action.is_none() && self.throttle.is_none()
    }

    /// The fields that the flags set. `is_new` is whether there is no quota yet, which then gets an
    /// action.
    fn fill(&self, map: &mut Map<String, Value>, is_new: bool) {
        let implied = if self.throttle.is_some() {
            Some(QuotaEnd::Throttle)
        } else {
            is_new.then_some(QuotaEnd::Disconnect)
        };
        if let Some(action) = self.quota_action.or(implied) {
            map.insert("action".to_owned(), json!(action.word()));
        }
        if let Some(rate) = self.throttle {
            map.insert("throttle_bps".to_owned(), json!(rate));
        }
    }

    /// The whole quota of a volume.
    pub(crate) fn quota(&self, volume: Volume) -> Value {
        let mut map = Map::new();
        map.insert("bytes".to_owned(), json!(volume.bytes));
        map.insert("period".to_owned(), json!(volume.period.word()));
        self.fill(&mut map, true);
        Value::Object(map)
    }
}

/// A quota.
#[derive(Args, Clone, Debug, Default)]
pub(crate) struct QuotaArgs {
    /// How much may be moved, both ways together: SIZE/day, /week, /month or /total, or "none"
    #[arg(long, value_name = "SIZE/PERIOD", value_parser = given::volume_or_none)]
    quota: Option<Wish<Volume>>,
    #[command(flatten)]
    end: QuotaEndArgs,
}

impl QuotaArgs {
    /// The patch of a quota; none if no flag was given. `is_new` is whether there is none yet.
    pub(crate) fn json(&self, is_new: bool) -> Option<Value> {
        match self.quota {
            None if self.end.is_empty() => None,
            Some(Wish::Clear) => Some(Value::Null),
            given => {
                let mut map = Map::new();
                if let Some(Wish::Set(volume)) = given {
                    map.insert("bytes".to_owned(), json!(volume.bytes));
                    map.insert("period".to_owned(), json!(volume.period.word()));
                }
                self.end.fill(&mut map, is_new);
                Some(Value::Object(map))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        rate: RateArgs,
        #[command(flatten)]
        quota: QuotaArgs,
    }

    fn read(line: &str) -> (Option<Value>, Option<Value>) {
        let line = Line::try_parse_from(format!("x {line}").split_whitespace()).unwrap();
        (line.rate.json(), line.quota.json(true))
    }

    #[test]
    fn flags_become_a_merge_patch_and_absent_ones_nothing() {
        assert_eq!(read(""), (None, None));
        let (rate, _) = read("--rate-up none --rate-down 20mbit");
        assert_eq!(rate, Some(json!({"up_bps": null, "down_bps": 20_000_000})));
        let (_, quota) = read("--quota 1GiB/day");
        let whole = json!({"bytes": 1 << 30, "period": "day", "action": "disconnect"});
        assert_eq!(quota, Some(whole));
        let (_, quota) = read("--quota 1GiB/day --throttle 1mbit");
        assert_eq!(
            quota.unwrap(),
            json!({"bytes": 1 << 30, "period": "day", "action": "throttle",
                   "throttle_bps": 1_000_000})
        );
        assert_eq!(read("--quota none").1, Some(Value::Null));
        let kept = QuotaArgs {
            end: QuotaEndArgs { quota_action: Some(QuotaEnd::Notify), throttle: None },
            quota: None,
        };
        assert_eq!(kept.json(false), Some(json!({"action": "notify"})));
    }
}
