//! Secrets inside addresses: the password of a database, the user part of an address that keys are
//! fetched from. Whoever shows an address shows it masked.
//!
//! When in doubt more is masked than need be: an address that a parser reads otherwise than this
//! module must not let a password out. Pure; this module must not know sections or files.

/// What stands in the place of a secret.
pub const REDACTED: &str = "(redacted)";

/// Parameters of a PostgreSQL address that hold no secret; all others are masked.
const HARMLESS: &[&str] = &[
    "application_name",
    "connect_timeout",
    "dbname",
    "host",
    "hostaddr",
    "keepalives",
    "keepalives_idle",
    "load_balance_hosts",
    "port",
    "sslcert",
    "sslkey",
    "sslmode",
    "sslrootcert",
    "target_session_attrs",
    "user",
];

/// What names of secret parameters of other addresses contain.
const SECRET_WORDS: &[&str] = &["pass", "pwd", "secret", "token", "key", "auth", "sig", "cred"];

/// The address with its secrets masked; none if it holds no secret. A masked one stays as it is.
#[must_use]
pub fn mask_address(text: &str) -> Option<String> {
    if text.starts_with("sqlite:") {
        return None;
    }
    let (scheme, rest) = match text.split_once("://") {
        Some((scheme, rest)) => (Some(scheme), rest),
        None => (None, text),
    };
    let is_database = scheme.is_some_and(|scheme| scheme.starts_with("postgres"));
    let end = end_of_credentials(rest, scheme.is_some() && !is_database);
    let (credentials, place) = rest.split_at(end.unwrap_or(0));
    let mut masked = match scheme {
        Some(scheme) => format!("{scheme}://"),
        None => String::new(),
    };
    match credentials.split_once(':') {
        _ if credentials.is_empty() => (),
        Some((user, _)) => masked.extend([user, ":", REDACTED]),
        // A database knows its users by name; elsewhere the one word may be a token.
        None if is_database || scheme.is_none() => masked.push_str(credentials),
        None => masked.push_str(REDACTED),
    }
    match place.split_once('?') {
        Some((before, query)) if scheme.is_some() => {
            masked.extend([before, "?", &mask_query(query, is_database)]);
        }
        Some(_) | None => masked.push_str(place),
    }
    // In another form than that of an address, and of no use to the program: but it is shown.
    let lower = masked.to_ascii_lowercase().replace([' ', REDACTED_BEGIN], "");
    if lower.matches("password=").count() != lower.matches("password=redacted)").count() {
        return Some(format!("password={REDACTED}"));
    }
    (masked != text || text.contains(REDACTED)).then_some(masked)
}

/// The first letter of [`REDACTED`].
const REDACTED_BEGIN: char = '(';

/// Where the user part ends: at the last `@`, because a password may have letters in it that should
/// have been escaped.
fn end_of_credentials(rest: &str, is_web: bool) -> Option<usize> {
    let first = rest.find('@')?;
    let in_authority = !rest[..first].contains(['/', '?', '#']);
    if is_web && !in_authority && !rest[..first].contains(':') {
        return None;
    }
    rest.rfind('@')
}

fn mask_query(query: &str, is_database: bool) -> String {
    let parts = query.split('&').map(|part| {
        let Some((name, value)) = part.split_once('=') else { return part.to_owned() };
        let lower = name.to_ascii_lowercase();
        let is_secret = if is_database {
            !HARMLESS.contains(&name)
        } else {
            // An escaped name hides what it says.
            name.contains('%') || SECRET_WORDS.iter().any(|word| lower.contains(word))
        };
        if is_secret && !value.is_empty() { format!("{name}={REDACTED}") } else { part.to_owned() }
    });
    parts.collect::<Vec<String>>().join("&")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_secrets_of_an_address_are_masked_and_nothing_else() {
        for (address, shown) in [
            (
                "postgresql://ringway:hunter2@db/ringway",
                "postgresql://ringway:(redacted)@db/ringway",
            ),
            ("postgres://r:a:b@[::1]:5432/x", "postgres://r:(redacted)@[::1]:5432/x"),
            ("postgresql://r:p@ss/w?rd@db/x", "postgresql://r:(redacted)@db/x"),
            (
                "postgresql://r:p/w@db/x?sslmode=disable",
                "postgresql://r:(redacted)@db/x?sslmode=disable",
            ),
            (
                "postgresql:///x?host=/run/postgresql&user=r&password=hunter2",
                "postgresql:///x?host=/run/postgresql&user=r&password=(redacted)",
            ),
            ("postgresql:///x?pass%77ord=hunter2", "postgresql:///x?pass%77ord=(redacted)"),
            ("postgresql:///x?options=-c%20a", "postgresql:///x?options=(redacted)"),
            ("https://robot:hunter2@id.example/keys", "https://robot:(redacted)@id.example/keys"),
            ("https://hunter2@id.example/keys", "https://(redacted)@id.example/keys"),
            (
                "https://id.example/keys?p=b2c&access_token=hunter2",
                "https://id.example/keys?p=b2c&access_token=(redacted)",
            ),
            ("host=db password = hunter2", "password=(redacted)"),
        ] {
            assert_eq!(mask_address(address).as_deref(), Some(shown), "{address}");
            assert_eq!(mask_address(shown).as_deref(), Some(shown), "masked once more");
        }
    }

    #[test]
    fn what_has_no_secret_is_left_as_it_is() {
        for address in [
            "sqlite:/var/lib/a:b@c.db",
            "postgresql://ringway@db/ringway",
            "postgresql:///ringway?host=/run/postgresql&user=ringway",
            "https://id.example/keys?p=b2c_1",
            "https://id.example/people/anna@example.org",
            "/etc/ringway/jwks.json",
            "anna@example.org",
            "vpn.example.org:51820",
            "10.9.0.0/16",
        ] {
            assert_eq!(mask_address(address), None, "{address}");
        }
    }

    proptest! {
        #[test]
        fn no_password_gets_out_whatever_it_is_made_of(
            password in "[a-zA-Z0-9:/#&=%@!]{0,12}Sesame",
            scheme in prop::sample::select(vec!["postgresql", "postgres", "https", "http"]),
        ) {
            let shown = mask_address(&format!("{scheme}://ringway:{password}@db/ringway"));
            prop_assert!(!shown.unwrap().contains("Sesame"));
        }
    }
}
