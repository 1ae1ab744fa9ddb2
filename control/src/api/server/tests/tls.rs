use std::os::unix::fs::PermissionsExt as _;

use super::*;
use crate::api::server::tls::TlsFiles;
use crate::scratch::Scratch;

fn certificate(host: &Host) -> String {
    host.world.folder.path().join("api-certificate.pem").to_str().unwrap().to_owned()
}

#[test]
fn curl_comes_in_by_tls_and_gets_the_headers_of_a_page_that_stays_with_tls() {
    let host = Host::new("tls", Bounds::default());
    let url = format!("https://localhost:{}/api/v1/session", host.https().port());
    let certificate = certificate(&host);
    let trusting = ["--cacert", &certificate, "-H", "Authorization: Bearer token-vera", "-i"];
    for (flag, limit) in [("--tlsv1.3", "1.3"), ("--tlsv1.2", "1.2")] {
        let mut arguments = trusting.to_vec();
        arguments.extend([flag, "--tls-max", limit, &url]);
        let answer = text(&host.curl(&arguments));
        assert!(answer.starts_with("HTTP/1.1 200"), "{limit}: {answer}");
        assert!(answer.contains("strict-transport-security: max-age="), "{answer}");
        assert!(answer.contains("\"actor\":\"token:"), "{answer}");
    }
    // HTTP/2 is not spoken, nor TLS before 1.2, nor plain HTTP.
    let mut arguments = trusting.to_vec();
    arguments.extend(["--http2", &url]);
    assert!(text(&host.curl(&arguments)).starts_with("HTTP/1.1 200"));
    let port = host.https().port().to_string();
    let old = Command::new("openssl")
        .args(["s_client", "-tls1_1", "-cipher", "ALL@SECLEVEL=0", "-connect"])
        .arg(format!("127.0.0.1:{port}"))
        .stdin(std::process::Stdio::null())
        .output()
        .expect("openssl is missing: run tools/setup test");
    assert!(!old.status.success() && !text(&old).contains("Cipher is ECDHE"), "{old:?}");
    let plain = format!("http://localhost:{port}/health");
    assert!(!host.curl(&[&plain]).status.success());
    // A client that does not know the certificate does not come.
    assert!(!host.curl(&[&url]).status.success());
}

#[test]
fn the_fingerprint_that_is_printed_is_that_of_the_certificate() {
    let host = Host::new("fingerprint", Bounds::default());
    let said = Command::new("openssl")
        .args(["x509", "-noout", "-fingerprint", "-sha256", "-in", &certificate(&host)])
        .output()
        .expect("openssl is missing: run tools/setup test");
    let said = text(&said);
    assert_eq!(
        said.trim().split_once('=').map(|(_, print)| print.to_owned()),
        host.tls.fingerprint()
    );
    let key = host.world.folder.path().join("api-key.pem");
    assert_eq!(std::fs::metadata(key).unwrap().permissions().mode() & 0o777, 0o600);
    // The next start uses the same.
    let again = Tls::self_made(host.world.folder.path(), Vec::new(), 2026).unwrap();
    assert_eq!(again.fingerprint(), host.tls.fingerprint());
}

#[test]
fn a_renewed_certificate_is_used_and_a_broken_one_is_not() {
    let (folder, other) = (Scratch::new("tls_old"), Scratch::new("tls_new"));
    let files = |folder: &Scratch| TlsFiles {
        certificate: folder.path().join("api-certificate.pem"),
        key: folder.path().join("api-key.pem"),
    };
    let tls = Tls::self_made(folder.path(), vec!["localhost".to_owned()], 2026).unwrap();
    let new = Tls::self_made(other.path(), vec!["localhost".to_owned()], 2026).unwrap();
    let (old, renewed) = (tls.fingerprint(), new.fingerprint());
    assert_ne!(old, renewed);
    assert!(!tls.reload().unwrap(), "nothing has changed");
    let place = |from: &std::path::Path, to: &std::path::Path| {
        let aside = to.with_extension("aside");
        std::fs::copy(from, &aside).unwrap();
        std::fs::rename(&aside, to).unwrap();
    };
    // First only the certificate: it does not fit the key.
    place(&files(&other).certificate, &files(&folder).certificate);
    let failure = tls.reload().unwrap_err();
    assert!(failure.why.contains("does not belong to"), "{failure:?}");
    assert_eq!(tls.fingerprint(), old);
    assert!(!tls.reload().unwrap(), "said once");
    place(&files(&other).key, &files(&folder).key);
    assert!(tls.reload().unwrap());
    assert_eq!(tls.fingerprint(), renewed);
    // Torn, empty, gone.
    for text in ["", "-----BEGIN CERTIFICATE-----\nMIIB"] {
        std::fs::write(files(&folder).certificate, text).unwrap();
        assert!(tls.reload().is_err());
    }
    std::fs::remove_file(files(&folder).certificate).unwrap();
    assert!(tls.reload().is_err());
    assert_eq!(tls.fingerprint(), renewed);
}

#[test]
fn a_client_that_does_not_finish_its_handshake_is_cut() {
    let bounds = Bounds { head: Duration::from_millis(300), ..Bounds::default() };
    let host = Host::new("tls_slow", bounds);
    let mut stream = TcpStream::connect(host.https()).unwrap();
    stream.set_read_timeout(Some(SOON)).unwrap();
    stream.write_all(&[0x16, 3, 1]).unwrap();
    assert_eq!(drain(&mut stream), "");
    // And one that speaks something else.
    let mut stream = TcpStream::connect(host.https()).unwrap();
    stream.set_read_timeout(Some(SOON)).unwrap();
    stream.write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
    assert!(!drain(&mut stream).contains("HTTP"));
}
