//! Whether certificates and lists of revoked ones can be read, and how long they are good.

use super::Finding;
use crate::api::server::holders::Clients;
use crate::api::server::tls::{Tls, TlsFiles};
use crate::auth::certificate::{CertificateSettings, Certificates, Expiry, Kind};
use crate::config::Config;
use crate::store::ids::Timestamp;

const AREA: &str = "certificates";

pub(super) fn examine(config: &Config, now: Timestamp) -> Vec<Finding> {
    let mut findings = Vec::new();
    let (sign_in, api) = (&config.sign_in, &config.api);
    if let Some(authorities) = &sign_in.certificate_authorities {
        let lists = sign_in.revocation_lists.clone();
        match Certificates::new(CertificateSettings::new(authorities.clone(), lists)) {
            Ok(certificates) => findings.extend(certificates.expiries(now).iter().map(life)),
            Err(why) => findings.push(unreadable("authorities and lists", why)),
        }
    }
    if let Some((certificate, key)) = api.certificate_file.clone().zip(api.key_file.clone()) {
        match Tls::load(TlsFiles { certificate, key }, Clients::NotAsked) {
            Ok(tls) => {
                findings.extend(tls.expiry(now).as_ref().map(life));
                findings.extend(tls.remarks(now).into_iter().map(remark));
            }
            Err(failure) => {
                let fix = "mend it as said; the gateway reads the files by itself, and opens its \
                           addresses for HTTPS then";
                let name = "certificate of the API";
                findings.push(Finding::missing(AREA, name, failure.message, fix));
            }
        }
    }
    findings
}

fn unreadable(name: &str, why: String) -> Finding {
    Finding::missing(AREA, name, why, "put the file where the configuration says, readable")
}

/// What the gateway can use and clients will not take.
fn remark(text: String) -> Finding {
    let fix = "put a certificate in place that clients take; it is read by itself";
    Finding::advice(AREA, "certificate of the API", text, fix)
}

fn life(expiry: &Expiry) -> Finding {
    let name = format!("{} {}", expiry.kind.title(), expiry.name);
    let days = expiry.days_left;
    let fix = match expiry.kind {
        Kind::Authority => "add the next authority to certificate_authorities in [sign_in]",
        Kind::RevocationList => "have the authority make the next list, and put it in place",
        Kind::Api => "renew it: the gateway reads the new file by itself",
    };
    if days < 0 {
        Finding::missing(AREA, name, format!("has ended {} day(s) ago", -days), fix)
    } else if expiry.is_near {
        Finding::advice(AREA, name, format!("ends in {days} day(s)"), fix)
    } else {
        Finding::ok(AREA, name, format!("good for {days} days"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::State;

    const DAY_MS: i64 = 86_400_000;

    #[test]
    fn what_ends_within_two_weeks_or_the_last_quarter_of_a_short_life_is_named() {
        for (life_days, left_days, state) in [
            (365, 15, State::Ok),
            (365, 13, State::Advice),
            (365, -1, State::Missing),
            (7, 3, State::Ok),
            (7, 1, State::Advice),
            (40, 11, State::Ok),
            (40, 9, State::Advice),
        ] {
            let ends = Timestamp(left_days * DAY_MS);
            let begins = ends.plus_ms(-life_days * DAY_MS);
            let name = "CN=CA".to_owned();
            let expiry = Expiry::of(Kind::RevocationList, name, (begins, ends), Timestamp(0));
            assert_eq!(life(&expiry).state, state, "{life_days} {left_days}");
        }
    }

    #[test]
    fn what_is_wrong_with_the_certificate_of_the_api_is_said() {
        let folder = crate::scratch::Scratch::new("doctor_api");
        let file = |name: &str| folder.path().join(name).display().to_string();
        let text = format!(
            "[api]\nlisten = [\"192.0.2.1:443\"]\ncertificate_file = \"{}\"\nkey_file = \"{}\"\n",
            file("api-certificate.pem"),
            file("api-key.pem")
        );
        let config = crate::doctor::tests::config(&text);
        let missing = &examine(&config, Timestamp(0))[0];
        assert_eq!(missing.state, State::Missing);
        assert!(missing.text.contains(&file("api-certificate.pem")), "{missing:?}");
        let names = vec!["localhost".to_owned()];
        Tls::self_made(folder.path(), names, 2026).unwrap();
        let early = examine(&config, Timestamp(0));
        assert!(early[1].text.contains("clock"), "{early:?}");
        assert_eq!(early[1].state, State::Advice);
        std::fs::write(file("api-key.pem"), "nothing").unwrap();
        let broken = &examine(&config, Timestamp(0))[0];
        assert_eq!(broken.state, State::Missing);
        assert!(broken.text.contains(&file("api-key.pem")), "{broken:?}");
        assert!(broken.text.contains("PEM form"), "{broken:?}");
    }

    #[test]
    fn a_file_that_is_not_there_is_named() {
        let text = "[sign_in]\ncertificate_authorities = \"/nonexistent/ca.pem\"\n";
        let config = crate::doctor::tests::config(text);
        let findings = examine(&config, Timestamp(0));
        assert_eq!(findings.len(), 1);
        assert!(findings[0].text.contains("/nonexistent/ca.pem"), "{findings:?}");
        assert_eq!(findings[0].state, State::Missing);
    }
}
