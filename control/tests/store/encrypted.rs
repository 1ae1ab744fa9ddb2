//! A PostgreSQL server that is reached by TLS, with certificates as an operator makes them.

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::path::Path;
use std::process::Command;

use ringway_control::store::{Store, StoreError, StoreUrl};

use crate::made;
use crate::server::{NOBODY, Server, fresh, is_root, scratch};
use crate::world::World;

/// Makes an authority `ca` and certificates of it: NAME.pem with NAME.key, for a subject and with
/// what else is asked for.
fn certificates(folder: &Path, made: &[(&str, &str, &str)]) {
    let openssl = |arguments: &[&str]| {
        let done = Command::new("openssl").args(arguments).current_dir(folder).output().unwrap();
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    };
    let key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "30"];
    let new = ["req", "-x509", "-keyout", "ca.key", "-out", "ca.pem", "-subj", "/CN=ours"];
    openssl(&[&new[..], &key].concat());
    for (name, subject, extension) in made {
        let (secret, out) = (format!("{name}.key"), format!("{name}.pem"));
        let new = ["req", "-x509", "-CA", "ca.pem", "-CAkey", "ca.key"];
        let files = ["-keyout", &secret, "-out", &out, "-subj", subject, "-addext", extension];
        // Not an authority, which is what a certificate is that nobody says anything of.
        let leaf = ["-addext", "basicConstraints=critical,CA:FALSE"];
        openssl(&[&new[..], &files, &leaf, &key].concat());
        fs::set_permissions(folder.join(secret), fs::Permissions::from_mode(0o600)).unwrap();
    }
}

/// A server on a port of this host, with TLS or without, and with clients that show a certificate.
fn server(certificates: &Path, encrypted: bool, asks: bool) -> (Server, u16) {
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let server = Server::start_with(port, |own| {
        let mut settings = vec!["listen_addresses=127.0.0.1".to_owned()];
        if !encrypted {
            return settings;
        }
        for file in ["server.key", "server.pem", "ca.pem"] {
            fs::copy(certificates.join(file), own.join(file)).unwrap();
            fs::set_permissions(own.join(file), fs::Permissions::from_mode(0o600)).unwrap();
            if is_root() {
                chown(own.join(file), Some(NOBODY), Some(NOBODY)).unwrap();
            }
        }
        let method = if asks { "cert" } else { "trust" };
        // Whoever comes without TLS is turned away.
        let doors = format!("local all all trust\nhostssl all all 127.0.0.1/32 {method}\n");
        fs::write(own.join("doors.conf"), doors).unwrap();
        let at = own.display();
        settings.extend([
            "ssl=on".to_owned(),
            format!("ssl_cert_file={at}/server.pem"),
            format!("ssl_key_file={at}/server.key"),
            format!("ssl_ca_file={at}/ca.pem"),
            format!("hba_file={at}/doors.conf"),
        ]);
        settings
    });
    (server, port)
}

/// Opens the store, writes and reads.
fn works(url: &str) -> Result<(), StoreError> {
    let world = World::at(url);
    let store = world.open()?;
    world.wait(store.write(|db| {
        made::with_device(db, "ada");
        Ok(())
    }))?;
    assert_eq!(world.wait(store.read(|db| db.count_users()))?, 1);
    Ok(())
}

fn refusal(url: &str) -> String {
    let world = World::at(url);
    let options = crate::world::options();
    match world.wait(Store::open(&StoreUrl::parse(url).unwrap(), &options)) {
        Ok(_) => panic!("{url} is let in"),
        Err(error) => error.to_string(),
    }
}

#[test]
fn a_server_is_reached_by_tls_if_it_is_the_one_that_is_meant() {
    let folder = scratch().join(fresh("certificates"));
    let others = folder.join("others");
    fs::create_dir_all(&others).unwrap();
    let name = "subjectAltName=DNS:localhost";
    certificates(&folder, &[("server", "/CN=localhost", name)]);
    certificates(&others, &[]);
    let (server, port) = server(&folder, true, false);
    let database = database(&server);
    let at =
        |host: &str, more: &str| format!("postgresql://ringway@{host}:{port}/{database}{more}");
    let ours = format!("?sslmode=verify-full&sslrootcert={}/ca.pem", folder.display());
    works(&at("localhost", &ours)).unwrap();

    let without = refusal(&at("localhost", ""));
    assert!(without.contains("no encryption"), "{without}");
    let theirs = ours.replace("/ca.pem", "/others/ca.pem");
    let stranger = refusal(&at("localhost", &theirs));
    assert!(stranger.contains("certificate") && stranger.contains("sslrootcert"), "{stranger}");
    // Not less is looked at, although libpq would.
    let stranger = refusal(&at("localhost", &theirs.replace("verify-full", "require")));
    assert!(stranger.contains("certificate"), "{stranger}");
    let misnamed = refusal(&at("127.0.0.1", &ours));
    assert!(misnamed.contains("certificate"), "{misnamed}");
    let absent = refusal(&at("localhost", &ours.replace("/ca.pem", "/none.pem")));
    assert!(absent.contains("none.pem cannot be used"), "{absent}");
}

#[test]
fn a_server_that_asks_gets_a_certificate_and_one_without_tls_gets_no_password() {
    let folder = scratch().join(fresh("certificates"));
    fs::create_dir_all(&folder).unwrap();
    let client = "extendedKeyUsage=clientAuth";
    let name = "subjectAltName=IP:127.0.0.1";
    let made = [("server", "/CN=db", name), ("client", "/CN=ringway", client)];
    certificates(&folder, &made);
    let (asking, port) = server(&folder, true, true);
    let at = folder.display();
    let database = database(&asking);
    let address = format!(
        "postgresql://ringway@127.0.0.1:{port}/{database}?sslmode=verify-full&sslrootcert={at}/ca.pem"
    );
    let nobody = refusal(&address);
    assert!(nobody.contains("certificate"), "{nobody}");
    works(&format!("{address}&sslcert={at}/client.pem&sslkey={at}/client.key")).unwrap();

    let (_open, port) = server(&folder, false, false);
    let address = format!(
        "postgresql://ringway:s3cret@127.0.0.1:{port}/x?sslmode=verify-full&sslrootcert={at}/ca.pem"
    );
    let plain = refusal(&address);
    assert!(plain.contains("postgresql.conf") && !plain.contains("s3cret"), "{plain}");
}

/// A new database; its name.
fn database(server: &Server) -> String {
    let url = server.database();
    let name = url.strip_prefix("postgresql:///").unwrap();
    name.split('?').next().unwrap().to_owned()
}
