//! Where the store is, as the configuration says it: a file, or a server.
//!
//! A password may stand in the address of a server; it is never shown again. This module must not
//! open anything.

use std::fmt;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::str::FromStr as _;

use postgres::config::Host;

use super::error::StoreError;
use super::tls::{self, Tls};

/// Where the store is.
#[derive(Clone, PartialEq, Eq)]
pub struct StoreUrl {
    place: Place,
}

#[derive(Clone)]
pub(crate) enum Place {
    /// SQLite, in this file.
    File(PathBuf),
    /// PostgreSQL, reached like this, encrypted or not.
    Server(Box<postgres::Config>, Option<Tls>),
}

impl StoreUrl {
    /// Reads `sqlite:/var/lib/ringway/ringway.db` or `postgresql://user@host/database`; a Unix
    /// socket is `postgresql:///database?host=/run/postgresql&user=ringway`. With
    /// `sslmode=verify-full` the way there is encrypted.
    ///
    /// # Errors
    /// [`StoreError::Invalid`] says what is wrong with it.
    pub fn parse(text: &str) -> Result<Self, StoreError> {
        if let Some(path) = text.strip_prefix("sqlite:") {
            return Self::file(Path::new(path));
        }
        if text.starts_with("postgresql://") || text.starts_with("postgres://") {
            return Self::server(text);
        }
        Err(StoreError::invalid(
            "the address of the store begins with neither \"sqlite:\" nor \"postgresql://\"; write \
             for example sqlite:/var/lib/ringway/ringway.db",
        ))
    }

    /// SQLite in a file.
    ///
    /// # Errors
    /// [`StoreError::Invalid`] if the path does not begin with `/` or names no file.
    pub fn file(path: &Path) -> Result<Self, StoreError> {
        if !path.is_absolute() || path.file_name().is_none() {
            let why = format!("the file of the store is named from / on, not {}", path.display());
            return Err(StoreError::Invalid { why });
        }
        Ok(Self { place: Place::File(path.to_owned()) })
    }

    fn server(text: &str) -> Result<Self, StoreError> {
        // The error of the parser may quote the address, and with it the password.
        let (text, tls) = tls::take_parameters(text)?;
        let mut config = postgres::Config::from_str(&text).map_err(|_| {
            StoreError::invalid(
                "the address of the PostgreSQL server cannot be read; write for example \
                 postgresql://ringway@db.example.org/ringway, with %40 for @ in a password",
            )
        })?;
        if config.get_hosts().is_empty() {
            config.host_path("/var/run/postgresql");
        }
        if tls.is_some() && config.get_hosts().iter().any(|host| matches!(host, Host::Unix(_))) {
            return Err(StoreError::invalid(
                "a Unix socket does not leave this host and is not encrypted: leave sslmode out",
            ));
        }
        Ok(Self { place: Place::Server(Box::new(config), tls) })
    }

    pub(crate) const fn place(&self) -> &Place {
        &self.place
    }

    /// Whether records and passwords leave this host as they are.
    #[must_use]
    pub fn is_in_clear(&self) -> bool {
        let Place::Server(config, None) = &self.place else { return false };
        config.get_hosts().iter().any(|host| match host {
            Host::Unix(_) => false,
            Host::Tcp(name) => {
                name != "localhost" && !name.parse::<IpAddr>().is_ok_and(|at| at.is_loopback())
            }
        })
    }

    /// `sqlite` or `postgresql`.
    #[must_use]
    pub const fn engine(&self) -> &'static str {
        match self.place {
            Place::File(_) => "sqlite",
            Place::Server(..) => "postgresql",
        }
    }
}

impl PartialEq for Place {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::File(one), Self::File(other)) => one == other,
            // The fields of a configuration are private; how it is shown, and the secret apart.
            (Self::Server(one, tls), Self::Server(other, other_tls)) => {
                format!("{one:?}") == format!("{other:?}")
                    && one.get_password() == other.get_password()
                    && tls == other_tls
            }
            (Self::File(_), Self::Server(..)) | (Self::Server(..), Self::File(_)) => false,
        }
    }
}

impl Eq for Place {}

impl fmt::Display for StoreUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let config = match &self.place {
            Place::File(path) => return write!(f, "sqlite:{}", path.display()),
            Place::Server(config, _) => config,
        };
        f.write_str("postgresql://")?;
        if let Some(user) = config.get_user() {
            write!(f, "{user}@")?;
        }
        for (index, host) in config.get_hosts().iter().enumerate() {
            let comma = if index == 0 { "" } else { "," };
            match host {
                Host::Tcp(name) => write!(f, "{comma}{name}")?,
                Host::Unix(path) => write!(f, "{comma}{}", path.display())?,
            }
            let ports = config.get_ports();
            if let Some(port) = ports.get(index).or_else(|| ports.first()) {
                write!(f, ":{port}")?;
            }
        }
        write!(f, "/{}", config.get_dbname().or_else(|| config.get_user()).unwrap_or_default())
    }
}

impl fmt::Debug for StoreUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "StoreUrl({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_named_from_the_root_on() {
        let url = StoreUrl::parse("sqlite:/var/lib/ringway/ringway.db").unwrap();
        assert_eq!(url.to_string(), "sqlite:/var/lib/ringway/ringway.db");
        assert_eq!(url.engine(), "sqlite");
        for wrong in ["sqlite:", "sqlite:ringway.db", "sqlite:/", "mysql://x", "", "/var/x.db"] {
            assert!(matches!(StoreUrl::parse(wrong), Err(StoreError::Invalid { .. })), "{wrong}");
        }
    }

    #[test]
    fn a_password_is_never_shown() {
        for text in [
            "postgresql://ada:s3cret@db.example.org:5433/ringway",
            "postgres:///ringway?host=/run/pg&user=ada&password=s3cret",
            "postgresql://ada:s3cret@h:notaport/ringway",
            "postgresql://ada:s3cret@h/ringway?sslmode=require",
        ] {
            let shown = match StoreUrl::parse(text) {
                Ok(url) => format!("{url} {url:?}"),
                Err(error) => format!("{error} {error:?}"),
            };
            assert!(!shown.contains("s3cret"), "{shown}");
        }
        let url = StoreUrl::parse("postgresql://ada:s3cret@db.example.org:5433/ringway").unwrap();
        assert_eq!(url.to_string(), "postgresql://ada@db.example.org:5433/ringway");
    }

    #[test]
    fn what_leaves_the_host_as_it_is_is_known() {
        for (address, clear) in [
            ("postgresql://r@db.example.org/x", true),
            ("postgresql://r@db.example.org/x?sslmode=disable", true),
            ("postgresql://r@192.0.2.1/x", true),
            ("postgresql://r@db.example.org/x?sslmode=verify-full", false),
            ("postgresql://r@localhost/x", false),
            ("postgresql://r@[::1]/x", false),
            ("postgresql:///x?host=/run/pg&user=r", false),
            ("sqlite:/var/lib/ringway.db", false),
        ] {
            assert_eq!(StoreUrl::parse(address).unwrap().is_in_clear(), clear, "{address}");
        }
        let refused = StoreUrl::parse("postgresql:///x?host=/run/pg&sslmode=require").unwrap_err();
        assert!(refused.to_string().contains("leave sslmode out"), "{refused}");
    }

    #[test]
    fn addresses_are_equal_only_with_the_same_password() {
        let url =
            |password| StoreUrl::parse(&format!("postgresql://ada:{password}@h/ringway")).unwrap();
        assert!(url("a") == url("a"));
        assert!(url("a") != url("b"));
    }
}
