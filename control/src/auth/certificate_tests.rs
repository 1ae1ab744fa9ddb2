use std::path::Path;
use std::process::Command;

use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, CertifiedIssuer,
    CustomExtension, DnType, ExtendedKeyUsagePurpose, IsCa, KeyIdMethod, KeyPair, KeyUsagePurpose,
    OtherNameValue, RevokedCertParams, SanType, SerialNumber, date_time_ymd,
};

use super::super::reason::Told;
use super::*;
use crate::scratch::Scratch;

/// 2027-01-15.
const NOW: Timestamp = Timestamp(1_800_000_000_000);
const DAY_MS: i64 = 86_400_000;

type Authority = CertifiedIssuer<'static, KeyPair>;

fn key() -> KeyPair {
    KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap()
}

fn params(name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    params.not_before = date_time_ymd(2026, 1, 1);
    params.not_after = date_time_ymd(2028, 1, 1);
    params
}

fn ca_params(name: &str) -> CertificateParams {
    let mut params = params(name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params
}

fn authority(name: &str) -> Authority {
    CertifiedIssuer::self_signed(ca_params(name), key()).unwrap()
}

fn client_params(name: &str, serial: u64) -> CertificateParams {
    let mut params = params(name);
    params.distinguished_name.push(DnType::OrganizationalUnitName, "crew");
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    params.serial_number = Some(SerialNumber::from(serial));
    params
}

fn issue(params: CertificateParams, by: &Authority) -> CertificateDer<'static> {
    params.signed_by(&key(), by).unwrap().der().clone()
}

fn list(by: &Authority, revoked: &[u64], until: (i32, u8, u8)) -> String {
    let entry = |serial: &u64| RevokedCertParams {
        serial_number: SerialNumber::from(*serial),
        revocation_time: date_time_ymd(2026, 6, 1),
        reason_code: None,
        invalidity_date: None,
    };
    let params = CertificateRevocationListParams {
        this_update: date_time_ymd(2026, 6, 1),
        next_update: date_time_ymd(until.0, until.1, until.2),
        crl_number: SerialNumber::from(1_u64),
        issuing_distribution_point: None,
        revoked_certs: revoked.iter().map(entry).collect(),
        key_identifier_method: KeyIdMethod::Sha256,
    };
    params.signed_by(by).unwrap().pem().unwrap()
}

const FRESH: (i32, u8, u8) = (2027, 6, 1);
const OLD: (i32, u8, u8) = (2026, 7, 1);

/// Trust in `ca`, with a revocation list if there is one.
fn trust(scratch: &Scratch, ca: &[&Authority], crl: Option<&str>) -> CertificateSettings {
    let write = |name: &str, text: &str| {
        let path = scratch.path().join(name);
        std::fs::write(&path, text).unwrap();
        path
    };
    let pem: String = ca.iter().map(|ca| ca.pem()).collect();
    let lists = crl.map(|crl| write("ca.crl", crl)).into_iter().collect();
    CertificateSettings::new(write("ca.pem", &pem), lists)
}

fn refused(certificates: &Certificates, chain: &[CertificateDer<'static>]) -> Reason {
    certificates.verify(chain, NOW).unwrap_err()
}

#[test]
fn a_certificate_says_who_it_is() {
    let scratch = Scratch::new("auth_certificate");
    let ca = authority("CA");
    let mut settings = trust(&scratch, &[&ca], Some(&list(&ca, &[7], FRESH)));
    settings.permissions.insert("1.3.6.1.4.1.99999.1".to_owned(), "dial".to_owned());
    let mut params = client_params("Ann", 5);
    params.distinguished_name.push(DnType::OrganizationName, "Example");
    let upn = OtherNameValue::Utf8String("ann@corp.example.org".to_owned());
    params.subject_alt_names = vec![
        SanType::Rfc822Name("Ann.Smith@Example.org".try_into().unwrap()),
        SanType::OtherName((vec![1, 3, 6, 1, 4, 1, 311, 20, 2, 3], upn)),
    ];
    // Two policies: one that is known, one that is not.
    let policies = [
        0x30, 0x1a, 0x30, 0x0b, 0x06, 0x09, 0x2b, 0x06, 0x01, 0x04, 0x01, 0x86, 0x8d, 0x1f, 0x01,
        0x30, 0x0b, 0x06, 0x09, 0x2b, 0x06, 0x01, 0x04, 0x01, 0x86, 0x8d, 0x1f, 0x02,
    ];
    params.custom_extensions =
        vec![CustomExtension::from_oid_content(&[2, 5, 29, 32], policies.to_vec())];
    let chain = [issue(params, &ca)];
    for (user_from, user) in [
        (UserFrom::CommonName, "ann"),
        (UserFrom::Email, "ann.smith@example.org"),
        (UserFrom::PrincipalName, "ann@corp.example.org"),
    ] {
        let settings = CertificateSettings { user_from, ..settings.clone() };
        let proof = Certificates::new(settings).unwrap().verify(&chain, NOW).unwrap();
        assert_eq!(proof.user.as_deref(), Some(user));
        assert_eq!(proof.attributes.groups, ["crew"]);
        assert_eq!(proof.attributes.permissions, ["dial"]);
        assert_eq!(proof.attributes.certificates[0].serial, [5]);
        assert_eq!(proof.attributes.valid_until.unwrap().to_string(), "2028-01-01T00:00:00.000Z");
    }
    assert_eq!(days_left(&chain[0], NOW), Some(350));
    assert_eq!(days_left(&chain[0], NOW.plus_ms(351 * DAY_MS)), Some(-1));
}

#[test]
fn a_chain_that_leads_nowhere_is_refused() {
    use Reason as R;

    let scratch = Scratch::new("auth_certificate_chains");
    let (ca, other) = (authority("CA"), authority("CA"));
    let settings = trust(&scratch, &[&ca], Some(&list(&ca, &[7], FRESH)));
    let certificates = Certificates::new(settings).unwrap();
    let ann = || client_params("ann", 5);
    let own = ann().self_signed(&key()).unwrap().der().clone();
    let between = CertifiedIssuer::signed_by(ca_params("Between"), key(), &ca).unwrap();
    let client = CertifiedIssuer::signed_by(params("ann"), key(), &ca).unwrap();
    let below_client = vec![issue(client_params("eve", 9), &client), client.der().clone()];
    let mut damaged = issue(ann(), &ca).to_vec();
    let last = damaged.len() - 1;
    damaged[last] ^= 1;
    let junk = CertificateDer::from(vec![0x30, 0x03, 1, 2, 3]);
    let many = vec![CertificateDer::from(vec![0x30, 0x00]); CHAIN_MAX + 1];
    for (what, chain, reason) in [
        ("none", vec![], R::CertificateNone),
        ("self-signed", vec![own], R::CertificateUntrusted),
        ("another authority", vec![issue(ann(), &other)], R::CertificateUntrusted),
        ("no intermediate", vec![issue(ann(), &between)], R::CertificateUntrusted),
        ("issued by a client", below_client, R::CertificateUntrusted),
        ("damaged", vec![CertificateDer::from(damaged)], R::CertificateUntrusted),
        ("junk", vec![junk], R::CertificateMalformed),
        ("too many", many, R::CertificateMalformed),
    ] {
        assert_eq!(refused(&certificates, &chain), reason, "{what}");
    }
    // With its intermediate it would do, but for that one there is no revocation list.
    let chain = [issue(ann(), &between), between.der().clone()];
    assert_eq!(refused(&certificates, &chain), R::CertificateStatus);
    let without = Certificates::new(trust(&scratch, &[&ca], None)).unwrap();
    assert!(without.verify(&chain, NOW).is_ok());
}

#[test]
fn a_certificate_that_does_not_hold_now_or_for_this_is_refused() {
    use Reason as R;

    let scratch = Scratch::new("auth_certificate_fields");
    let ca = authority("CA");
    let settings = trust(&scratch, &[&ca], Some(&list(&ca, &[7], FRESH)));
    let certificates = Certificates::new(settings).unwrap();
    let common_name = || DnType::CustomDnType(vec![2, 5, 4, 3]);
    type Change<'a> = &'a dyn Fn(&mut CertificateParams);
    let cases: [(&str, Change<'_>, Reason); 7] = [
        ("expired", &|p| p.not_after = date_time_ymd(2027, 1, 1), R::CertificateExpired),
        ("not yet", &|p| p.not_before = date_time_ymd(2027, 2, 1), R::CertificateNotYet),
        (
            "for servers",
            &|p| p.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth],
            R::CertificatePurpose,
        ),
        ("revoked", &|p| p.serial_number = Some(7_u64.into()), R::CertificateRevoked),
        ("two names", &|p| p.distinguished_name.push(common_name(), "root"), R::CertificateName),
        ("no name", &|p| p.distinguished_name = Default::default(), R::CertificateName),
        (
            "no plain name",
            &|p| p.distinguished_name.push(DnType::CommonName, "a b"),
            R::CertificateName,
        ),
    ];
    for (what, change, reason) in cases {
        let mut params = client_params("ann", 5);
        change(&mut params);
        assert_eq!(refused(&certificates, &[issue(params, &ca)]), reason, "{what}");
    }
    assert!(certificates.verify(&[issue(client_params("ann", 5), &ca)], NOW).is_ok());
}

#[test]
fn the_client_hears_three_sentences() {
    let told: Vec<&str> = [Told::NoCertificate, Told::BadCertificate, Told::RevokedCertificate]
        .iter()
        .map(|told| told.text())
        .collect();
    let sentences =
        ["no certificate provided", "certificate validation failed", "certificate revoked"];
    assert_eq!(told, sentences);
    let of = |reason: &Reason| reason.code().starts_with("certificate_");
    for reason in Reason::ALL.iter().filter(|reason| of(reason)) {
        assert!(sentences.contains(&reason.told().text()), "{reason:?}");
    }
}

#[test]
fn an_old_list_refuses_or_warns_as_configured() {
    let scratch = Scratch::new("auth_crl_policy");
    let ca = authority("CA");
    let settings = trust(&scratch, &[&ca], Some(&list(&ca, &[7], OLD)));
    let (good, bad) =
        ([issue(client_params("ann", 5), &ca)], [issue(client_params("eve", 7), &ca)]);
    let strict = Certificates::new(settings.clone()).unwrap();
    assert_eq!(refused(&strict, &good), Reason::CertificateStatus);
    let warn = Certificates::new(CertificateSettings { list_policy: ListPolicy::Warn, ..settings });
    let warn = warn.unwrap();
    assert!(warn.verify(&good, NOW).is_ok());
    assert_eq!(refused(&warn, &bad), Reason::CertificateRevoked);
    let expiries = warn.expiries(NOW);
    assert_eq!(expiries[0].kind, Kind::RevocationList);
    assert_eq!((expiries[0].days_left, expiries[1].days_left), (-199, 350));
    // A list that somebody else signed says nothing.
    let other = authority("CA");
    let forged = trust(&scratch, &[&ca], Some(&list(&other, &[], FRESH)));
    let forged = Certificates::new(forged).unwrap();
    assert_eq!(refused(&forged, &good), Reason::CertificateStatus);
}

#[test]
fn a_new_list_ends_live_sessions_and_half_a_list_changes_nothing() {
    let scratch = Scratch::new("auth_crl_reload");
    let ca = authority("CA");
    let settings = trust(&scratch, &[&ca], Some(&list(&ca, &[7], FRESH)));
    let path = settings.lists[0].clone();
    let certificates = Certificates::new(settings).unwrap();
    let chains = [5_u64, 6].map(|serial| [issue(client_params("ann", serial), &ca)]);
    let live: Vec<CertificateId> = chains
        .iter()
        .flat_map(|chain| certificates.verify(chain, NOW).unwrap().attributes.certificates)
        .collect();
    assert!(certificates.revoked_now(&live).is_empty());
    assert_eq!(certificates.reload(), Ok(false));
    let new = list(&ca, &[5, 7, 900_000], FRESH);
    std::fs::write(&path, &new[..new.len() / 2]).unwrap();
    assert!(certificates.reload().is_err());
    assert!(certificates.verify(&chains[0], NOW).is_ok());
    std::fs::write(&path, &new).unwrap();
    assert_eq!(certificates.reload(), Ok(true));
    assert_eq!(certificates.revoked_now(&live), live[..1]);
    assert_eq!(refused(&certificates, &chains[0]), Reason::CertificateRevoked);
    assert!(certificates.verify(&chains[1], NOW).is_ok());
    let elsewhere = CertificateId { issuer: vec![1], serial: live[0].serial.clone() };
    assert!(certificates.revoked_now(&[elsewhere]).is_empty());
}

#[test]
fn files_that_are_no_trust_are_refused_with_their_name() {
    let scratch = Scratch::new("auth_trust_files");
    let ca = authority("CA");
    let good = trust(&scratch, &[&ca], Some(&list(&ca, &[], FRESH)));
    let junk = scratch.path().join("junk");
    std::fs::write(&junk, "junk").unwrap();
    for settings in [
        CertificateSettings { authorities: junk.clone(), ..good.clone() },
        CertificateSettings { authorities: scratch.path().join("none"), ..good.clone() },
        CertificateSettings { authorities: scratch.path().to_owned(), ..good.clone() },
        CertificateSettings { lists: vec![junk.clone()], ..good.clone() },
        CertificateSettings { lists: vec![good.authorities.clone()], ..good.clone() },
    ] {
        let error = Certificates::new(settings).unwrap_err();
        assert!(error.contains(&*scratch.path().to_string_lossy()), "{error}");
    }
}

/// Runs `openssl` in the folder of the test.
fn openssl(folder: &Path, arguments: &str) {
    let output = Command::new("openssl").args(arguments.split(' ')).current_dir(folder).output();
    let output = output.expect("openssl is there: run tools/setup test");
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "openssl {arguments}: {error}");
}

fn read_pem(path: &Path) -> CertificateDer<'static> {
    use rustls::pki_types::pem::PemObject as _;

    CertificateDer::from_pem_slice(&std::fs::read(path).unwrap()).unwrap()
}

#[test]
fn certificates_and_lists_of_openssl_are_understood() {
    let scratch = Scratch::new("auth_openssl");
    let folder = scratch.path();
    std::fs::write(
        folder.join("ca.cnf"),
        "[ca]\ndefault_ca = d\n[d]\ndatabase = index.txt\nserial = serial\nnew_certs_dir = .\n\
         certificate = ca.pem\nprivate_key = ca.key\ndefault_md = sha256\npolicy = p\n\
         default_days = 300\ndefault_crl_days = 200\ncrlnumber = number\nx509_extensions = x\n\
         [p]\ncommonName = supplied\norganizationalUnitName = optional\n\
         [x]\nextendedKeyUsage = clientAuth\nbasicConstraints = CA:FALSE\n",
    )
    .unwrap();
    for (name, text) in [("index.txt", ""), ("serial", "1000\n"), ("number", "01\n")] {
        std::fs::write(folder.join(name), text).unwrap();
    }
    openssl(
        folder,
        "req -x509 -newkey rsa:2048 -nodes -keyout ca.key -out ca.pem -days 400 -subj /CN=Test-CA -addext keyUsage=critical,keyCertSign,cRLSign",
    );
    for (name, key) in [("ann", "rsa:2048"), ("weak", "rsa:1024"), ("eve", "rsa:2048")] {
        openssl(
            folder,
            &format!(
                "req -newkey {key} -nodes -keyout {name}.key -out {name}.csr -subj /OU=crew/CN={name}"
            ),
        );
        openssl(
            folder,
            &format!("ca -batch -config ca.cnf -notext -in {name}.csr -out {name}.pem"),
        );
    }
    openssl(folder, "ca -config ca.cnf -revoke eve.pem");
    openssl(folder, "ca -config ca.cnf -gencrl -out ca.crl");
    openssl(folder, "crl -in ca.crl -outform DER -out ca.der");
    let now = Timestamp(jiff::Timestamp::now().as_millisecond() + 60_000);
    for file in ["ca.crl", "ca.der"] {
        let settings = CertificateSettings::new(folder.join("ca.pem"), vec![folder.join(file)]);
        let certificates = Certificates::new(settings).unwrap();
        let verify = |name: &str| certificates.verify(&[read_pem(&folder.join(name))], now);
        let ann = verify("ann.pem").unwrap();
        assert_eq!(
            (ann.user.as_deref(), ann.attributes.groups),
            (Some("ann"), vec!["crew".to_owned()])
        );
        assert_eq!(verify("weak.pem").unwrap_err(), Reason::CertificateWeak);
        assert_eq!(verify("eve.pem").unwrap_err(), Reason::CertificateRevoked);
        assert_eq!(verify("eve.pem").unwrap_err().told().text(), "certificate revoked");
    }
    let lists = Vec::new();
    let without =
        Certificates::new(CertificateSettings::new(folder.join("ca.pem"), lists)).unwrap();
    assert!(without.verify(&[read_pem(&folder.join("eve.pem"))], now).is_ok());
}
