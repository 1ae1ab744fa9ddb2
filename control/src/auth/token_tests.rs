use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, OnceLock};
use std::thread;
use std::time::{Duration, Instant};

use jsonwebtoken::{Algorithm, EncodingKey};
use proptest::prelude::*;
use rcgen::{KeyPair, PublicKeyData as _, RsaKeySize};
use serde_json::json;

use super::super::backend::{Abort, Credentials, Protocol};
use super::super::source::Source;
use super::*;
use crate::scratch::Scratch;

const NOW: Timestamp = Timestamp(1_800_000_000_000);
const NOW_S: i64 = NOW.0 / 1000;

/// A signer, and its public key as a set has it.
struct Signer {
    alg: Algorithm,
    key: EncodingKey,
    jwk: Value,
    public: Vec<u8>,
}

fn base64(bytes: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

fn signer(alg: Alg, kid: &str) -> Signer {
    let pair = match alg {
        Alg::EdDsa => KeyPair::generate_for(&rcgen::PKCS_ED25519),
        Alg::Es256 => KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256),
        Alg::Es384 => KeyPair::generate_for(&rcgen::PKCS_ECDSA_P384_SHA384),
        Alg::Rs256 | Alg::Ps256 => {
            KeyPair::generate_rsa_for(&rcgen::PKCS_RSA_SHA256, RsaKeySize::_2048)
        }
    }
    .unwrap();
    let raw = pair.der_bytes().to_vec();
    let pem = pair.serialize_pem();
    let (key, jwk) = match alg {
        Alg::EdDsa => {
            let jwk = json!({"kty": "OKP", "crv": "Ed25519", "kid": kid, "x": base64(&raw)});
            (EncodingKey::from_ed_pem(pem.as_bytes()), jwk)
        }
        Alg::Es256 | Alg::Es384 => {
            let (x, y) = raw[1..].split_at(raw.len() / 2);
            let curve = if alg == Alg::Es256 { "P-256" } else { "P-384" };
            let (x, y) = (base64(x), base64(y));
            let jwk = json!({"kty": "EC", "crv": curve, "kid": kid, "x": x, "y": y, "use": "sig"});
            (EncodingKey::from_ec_pem(pem.as_bytes()), jwk)
        }
        Alg::Rs256 | Alg::Ps256 => {
            // SEQUENCE { INTEGER 257 bytes, INTEGER 3 bytes }
            let (n, e) = (&raw[9..265], &raw[raw.len() - 3..]);
            let jwk = json!({"kty": "RSA", "kid": kid, "n": base64(n), "e": base64(e)});
            (EncodingKey::from_rsa_pem(pem.as_bytes()), jwk)
        }
    };
    Signer { alg: alg.verifier(), key: key.unwrap(), jwk, public: raw }
}

/// One for each algorithm; RSA keys take long to make.
fn signers() -> &'static [(Alg, Signer)] {
    static SIGNERS: OnceLock<Vec<(Alg, Signer)>> = OnceLock::new();
    SIGNERS.get_or_init(|| Alg::ALL.map(|alg| (alg, signer(alg, alg.word()))).into())
}

fn of(alg: Alg) -> &'static Signer {
    &signers().iter().find(|(own, _)| *own == alg).unwrap().1
}

fn signed(signer: &Signer, header: &Value, claims: &Value) -> String {
    let message = format!(
        "{}.{}",
        base64(header.to_string().as_bytes()),
        base64(claims.to_string().as_bytes())
    );
    let signature =
        jsonwebtoken::crypto::sign(message.as_bytes(), &signer.key, signer.alg).unwrap();
    format!("{message}.{signature}")
}

fn claims() -> Value {
    json!({
        "iss": "https://idp.example.org", "aud": ["other", "ringway"], "exp": NOW_S + 600,
        "nbf": NOW_S - 5, "iat": NOW_S - 5, "preferred_username": "Ann", "groups": ["crew", "staff"],
        "scope": "dial exit",
    })
}

fn with(changes: Value) -> Value {
    let mut claims = claims();
    for (name, value) in changes.as_object().unwrap() {
        if value.is_null() {
            claims.as_object_mut().unwrap().remove(name);
        } else {
            claims[name] = value.clone();
        }
    }
    claims
}

fn header(alg: Alg) -> Value {
    json!({"alg": alg.word(), "kid": alg.word(), "typ": "JWT"})
}

fn settings(keys: KeySource) -> IssuerSettings {
    IssuerSettings {
        algorithms: Alg::ALL.to_vec(),
        permissions_claim: Some("scope".to_owned()),
        ..IssuerSettings::new("https://idp.example.org", "ringway", Alg::Es256, keys)
    }
}

fn set() -> String {
    let keys: Vec<&Value> = signers().iter().map(|(_, signer)| &signer.jwk).collect();
    json!({ "keys": keys }).to_string()
}

fn run<F: Future>(test: F) -> F::Output {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(test)
}

async fn answer(tokens: &Tokens, token: &str, now: Timestamp) -> Answer {
    let request = Request {
        name: String::new(),
        person: None,
        credentials: Arc::new(Credentials {
            token: Some(Secret::new(token)),
            ..Credentials::default()
        }),
        source: Source::Local(0),
        protocol: Protocol::API,
        state: None,
        now,
        deadline: Instant::now() + Duration::from_secs(60),
    };
    let mut work = tokens.begin(request);
    loop {
        work = match work {
            Work::Done(answer) => return answer,
            Work::Blocking(run) => return run(&Abort::default()),
            Work::Stage(run) => run(&Abort::default()),
            Work::Waiting(waiting) => waiting.await,
        };
    }
}

fn from_file(scratch: &Scratch) -> Tokens {
    let path = scratch.path().join("keys.json");
    std::fs::write(&path, set()).unwrap();
    Tokens::new(vec![settings(KeySource::File(path))]).unwrap()
}

#[test]
fn a_token_of_each_algorithm_says_who_it_is() {
    let scratch = Scratch::new("auth_tokens");
    let tokens = from_file(&scratch);
    run(async {
        for (alg, signer) in signers() {
            let token = signed(signer, &header(*alg), &claims());
            let Answer::Accepted(proof) = answer(&tokens, &token, NOW).await else {
                panic!("{alg:?} is refused")
            };
            assert_eq!(proof.user.as_deref(), Some("ann"));
            assert_eq!(proof.attributes.groups, ["crew", "staff"]);
            assert_eq!(proof.attributes.permissions, ["dial", "exit"]);
            assert_eq!(proof.attributes.valid_until, Some(NOW.plus_ms(600_000)));
        }
    });
}

/// Each is refused for its reason, and a right one is still accepted.
fn all_refused(name: &str, cases: &[(&str, String, Reason)]) {
    let scratch = Scratch::new(name);
    let tokens = from_file(&scratch);
    let right = signed(of(Alg::Es256), &header(Alg::Es256), &claims());
    run(async {
        for (what, token, reason) in cases {
            assert_eq!(answer(&tokens, token, NOW).await, Answer::Refused(*reason), "{what}");
        }
        assert!(matches!(answer(&tokens, &right, NOW).await, Answer::Accepted(_)));
    });
}

#[test]
fn a_signature_of_another_kind_key_or_text_is_refused() {
    let plain = signed(of(Alg::Es256), &header(Alg::Es256), &claims());
    let parts: Vec<&str> = plain.split('.').collect();
    let joined =
        |header: &str, claims: &str, signature: &str| format!("{header}.{claims}.{signature}");
    let head = |header: Value| base64(header.to_string().as_bytes());
    // With the public key as the secret of an HMAC: as DER and as the text in the set.
    let hmac = |secret: &[u8]| {
        let message = format!("{}.{}", head(json!({"alg": "HS256", "kid": "RS256"})), parts[1]);
        let key = EncodingKey::from_secret(secret);
        let signature =
            jsonwebtoken::crypto::sign(message.as_bytes(), &key, Algorithm::HS256).unwrap();
        format!("{message}.{signature}")
    };
    let none = |alg: &str, signature: &str| {
        joined(&head(json!({"alg": alg, "kid": "ES256"})), parts[1], signature)
    };
    let other = signed(&signer(Alg::Es256, "ES256"), &header(Alg::Es256), &claims());
    let (own, foreign) = (parts[2], other.split('.').next_back().unwrap());
    let root = base64(with(json!({"preferred_username": "root"})).to_string().as_bytes());
    use Reason as R;
    let cases = [
        ("none", none("none", ""), R::TokenAlgorithm),
        ("nOnE", none("nOnE", own), R::TokenAlgorithm),
        ("HS256 with the key", hmac(&of(Alg::Rs256).public), R::TokenAlgorithm),
        ("HS256 with its text", hmac(set().as_bytes()), R::TokenAlgorithm),
        ("no signature", joined(parts[0], parts[1], ""), R::TokenSignature),
        ("another signature", joined(parts[0], parts[1], foreign), R::TokenSignature),
        ("other claims", joined(parts[0], &root, own), R::TokenSignature),
        ("another key", other, R::TokenSignature),
        ("two parts", format!("{}.{}", parts[0], parts[1]), R::TokenMalformed),
        ("four parts", format!("{plain}.x"), R::TokenMalformed),
        ("padding", joined(&format!("{}=", parts[0]), parts[1], own), R::TokenMalformed),
        ("nothing", String::new(), R::TokenMalformed),
        ("too long", "a".repeat(TOKEN_BYTES_MAX + 1), R::TokenOversized),
    ];
    all_refused("auth_token_signatures", &cases);
}

#[test]
fn a_header_decides_nothing_about_how_it_is_verified() {
    let of_header = |header: Value| signed(of(Alg::Es256), &header, &claims());
    let own = signer(Alg::Es256, "new").jwk;
    let plain = of_header(header(Alg::Es256));
    let twice = base64(b"{\"alg\":\"ES256\",\"alg\":\"none\"}");
    let twice = format!("{twice}.{}", plain.split_once('.').unwrap().1);
    let es256 = |more: Value| {
        let mut header = json!({"alg": "ES256", "kid": "ES256"});
        header.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        of_header(header)
    };
    use Reason as R;
    let cases = [
        ("key of another kind", es256(json!({"kid": "RS256"})), R::TokenAlgorithm),
        ("unknown key", es256(json!({"kid": "new"})), R::TokenKeyUnknown),
        ("own key", es256(json!({"kid": "new", "jwk": own})), R::TokenKeyUnknown),
        ("critical", es256(json!({"crit": ["x"]})), R::TokenMalformed),
        ("not encoded", es256(json!({"b64": false})), R::TokenMalformed),
        ("another type", es256(json!({"typ": "secevent+jwt"})), R::TokenMalformed),
        ("two algorithms", twice, R::TokenMalformed),
    ];
    all_refused("auth_token_headers", &cases);
}

#[test]
fn what_a_token_says_must_hold_now_and_be_meant_for_us() {
    let scratch = Scratch::new("auth_token_claims");
    let tokens = from_file(&scratch);
    let accepted = [
        json!({"exp": NOW_S - 29}),
        json!({"nbf": NOW_S + 30}),
        json!({"iat": NOW_S + 30}),
        json!({"aud": "ringway"}),
        json!({"nbf": null, "iat": null, "groups": null}),
        json!({"exp": NOW_S as f64 + 0.5}),
        json!({"groups": "crew staff"}),
    ];
    let refused = [
        (json!({"exp": NOW_S - 30}), Reason::TokenExpired),
        (json!({"exp": null}), Reason::TokenClaims),
        (json!({"exp": "1900000000"}), Reason::TokenClaims),
        (json!({"exp": -1}), Reason::TokenClaims),
        (json!({"nbf": NOW_S + 31}), Reason::TokenNotYet),
        (json!({"iat": NOW_S + 31}), Reason::TokenNotYet),
        (json!({"iat": {}}), Reason::TokenClaims),
        (json!({"aud": "other"}), Reason::TokenAudience),
        (json!({"aud": null}), Reason::TokenAudience),
        (json!({"aud": 7}), Reason::TokenAudience),
        (json!({"aud": ["ringway2"]}), Reason::TokenAudience),
        (json!({"iss": "https://idp.example.org/"}), Reason::TokenIssuer),
        (json!({"iss": null}), Reason::TokenIssuer),
        (json!({"preferred_username": null}), Reason::TokenClaims),
        (json!({"preferred_username": ""}), Reason::TokenClaims),
        (json!({"preferred_username": "a b"}), Reason::TokenClaims),
        (json!({"preferred_username": 7}), Reason::TokenClaims),
        (json!({"groups": {"a": 1}}), Reason::TokenClaims),
        (json!({"groups": [1]}), Reason::TokenClaims),
    ];
    run(async {
        let of =
            |changes: &Value| signed(of(Alg::EdDsa), &header(Alg::EdDsa), &with(changes.clone()));
        for changes in &accepted {
            let answer = answer(&tokens, &of(changes), NOW).await;
            assert!(matches!(answer, Answer::Accepted(_)), "{changes}: {answer:?}");
        }
        for (changes, reason) in &refused {
            let answer = answer(&tokens, &of(changes), NOW).await;
            assert_eq!(answer, Answer::Refused(*reason), "{changes}");
        }
    });
}

#[test]
fn keys_that_prove_nothing_are_left_out() {
    let rsa = &of(Alg::Rs256).jwk;
    let small = json!({"kty": "RSA", "n": base64(&[0xff; 128]), "e": "AQAB"});
    let refused = [
        json!({"kty": "oct", "k": "c2VjcmV0"}),
        small,
        json!({"kty": "RSA", "n": base64(&[0xff; 1025]), "e": "AQAB"}),
        json!({"kty": "RSA", "n": rsa["n"], "e": "AQ"}),
        json!({"kty": "RSA", "n": rsa["n"]}),
        json!({"kty": "EC", "crv": "secp256k1", "x": base64(&[1; 32]), "y": base64(&[1; 32])}),
        json!({"kty": "EC", "crv": "P-256", "x": base64(&[1; 31]), "y": base64(&[1; 32])}),
        json!({"kty": "OKP", "crv": "X25519", "x": base64(&[1; 32])}),
        json!({"kty": "OKP", "crv": "Ed25519", "x": base64(&[1; 32]), "use": "enc"}),
        json!({"kty": "OKP", "crv": "Ed25519", "x": base64(&[1; 32]), "key_ops": ["sign"]}),
        json!({"kty": "OKP", "crv": "Ed25519", "x": base64(&[1; 32]), "d": base64(&[1; 32])}),
        json!(7),
    ];
    for key in &refused {
        let set = json!({ "keys": [key] }).to_string();
        assert!(matches!(KeySet::parse(set.as_bytes()), Err(SetError::Empty(_))), "{key}");
    }
    let mut all = refused.to_vec();
    all.push(rsa.clone());
    let set = KeySet::parse(json!({ "keys": all }).to_string().as_bytes()).unwrap();
    assert_eq!((set.len(), set.left_out.len()), (1, refused.len()));
    let many = json!({ "keys": vec![rsa; KEYS_MAX + 1] }).to_string();
    assert_eq!(KeySet::parse(many.as_bytes()).unwrap_err(), SetError::Many(KEYS_MAX + 1));
    assert_eq!(KeySet::parse(&vec![b' '; SET_BYTES_MAX + 1]).unwrap_err(), SetError::Large);
    for text in ["", "{}", "[]", "{\"keys\": 1}"] {
        assert!(matches!(KeySet::parse(text.as_bytes()), Err(SetError::Malformed(_))), "{text}");
    }
}

#[test]
fn keys_come_from_https_loopback_or_a_file_and_settings_are_checked() {
    for good in
        ["https://idp.example.org/jwks", "http://127.0.0.1:1/x", "http://[::1]/x", "/etc/keys.json"]
    {
        assert!(KeySource::parse(good).is_ok(), "{good}");
    }
    for bad in
        ["http://idp.example.org/jwks", "http://127.0.0.1.example.org/", "ftp://x/", "http://"]
    {
        assert!(KeySource::parse(bad).is_err(), "{bad}");
    }
    let file = || KeySource::File("x".into());
    let leeway = IssuerSettings { leeway_s: 61, ..settings(file()) };
    let nobody = IssuerSettings { audiences: Vec::new(), ..settings(file()) };
    for wrong in [vec![leeway], vec![nobody], vec![settings(file()), settings(file())]] {
        assert!(Tokens::new(wrong).is_err());
    }
}

/// A server of keys that answers what it is told and counts.
struct Server {
    url: String,
    answer: Arc<Mutex<Vec<u8>>>,
    served: Arc<AtomicUsize>,
}

impl Server {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/jwks", listener.local_addr().unwrap());
        let (answer, served) = (Arc::new(Mutex::new(Vec::new())), Arc::new(AtomicUsize::new(0)));
        let (give, count) = (Arc::clone(&answer), Arc::clone(&served));
        thread::spawn(move || {
            for mut stream in listener.incoming().flatten() {
                let _ = stream.read(&mut [0; 4096]);
                count.fetch_add(1, Ordering::SeqCst);
                let answer = give.lock().unwrap().clone();
                // Whoever has enough hangs up in the middle.
                let _ = stream.write_all(&answer);
            }
        });
        Self { url, answer, served }
    }

    fn answers(&self, status: &str, body: &str) {
        let head =
            format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n", body.len());
        *self.answer.lock().unwrap() = format!("{head}\r\n{body}").into_bytes();
    }

    fn served(&self) -> usize {
        self.served.load(Ordering::SeqCst)
    }
}

#[test]
fn keys_are_fetched_rarely_and_old_ones_serve_while_the_server_is_down() {
    let server = Server::start();
    let tokens = Tokens::new(vec![settings(KeySource::parse(&server.url).unwrap())]).unwrap();
    let token = |kid: &str, signer: &Signer, at: Timestamp| {
        let claims = with(json!({"exp": at.0 / 1000 + 600, "iat": at.0 / 1000, "nbf": null}));
        signed(signer, &json!({"alg": "EdDSA", "kid": kid}), &claims)
    };
    let (old, new) = (signer(Alg::EdDsa, "old"), signer(Alg::EdDsa, "new"));
    let set = |keys: &[&Signer]| {
        json!({ "keys": keys.iter().map(|signer| &signer.jwk).collect::<Vec<_>>() }).to_string()
    };
    let refused = Answer::Refused;
    run(async {
        let mut now = NOW;
        // Down from the start; then a redirect, junk and far too much, each tried once per
        // interval.
        let huge = " ".repeat(SET_BYTES_MAX + 1);
        let answers = [("503 Oops", ""), ("302 Found", ""), ("200 OK", "junk"), ("200 OK", &huge)];
        for (tries, (status, body)) in answers.into_iter().enumerate() {
            server.answers(status, body);
            for _ in 0..50 {
                let answer = answer(&tokens, &token("old", &old, now), now).await;
                assert_eq!(answer, refused(Reason::TokenKeysStale));
            }
            assert_eq!(server.served(), tries + 1);
            now = now.plus_ms(30_000);
        }
        server.answers("200 OK", &set(&[&old]));
        assert!(matches!(
            answer(&tokens, &token("old", &old, now), now).await,
            Answer::Accepted(_)
        ));
        let served = server.served();
        // Unknown keys do not make us fetch more often than once per interval.
        server.answers("200 OK", &set(&[&old, &new]));
        for number in 0..100 {
            let token = token(&format!("junk{number}"), &new, now);
            assert_eq!(answer(&tokens, &token, now).await, refused(Reason::TokenKeyUnknown));
        }
        assert_eq!(server.served(), served);
        now = now.plus_ms(30_000);
        let tries = (0..20).map(|_| token("new", &new, now)).collect::<Vec<_>>();
        let tries = tries.iter().map(|token| answer(&tokens, token, now));
        for answer in futures_util::future::join_all(tries).await {
            assert!(matches!(answer, Answer::Accepted(_)), "{answer:?}");
        }
        assert_eq!(server.served(), served + 1, "all waited for one fetch");
        // In the background they are fetched when they are old, and not before.
        tokens.refresh(now.plus_ms(599_000)).await;
        assert_eq!(server.served(), served + 1);
        now = now.plus_ms(600_000);
        tokens.refresh(now).await;
        assert_eq!(server.served(), served + 2);
        server.answers("500 Oops", "");
        let last = now;
        for minutes in [60, 12 * 60, 24 * 60] {
            now = last.plus_ms(minutes * 60_000);
            tokens.refresh(now).await;
            let answer = answer(&tokens, &token("old", &old, now), now).await;
            assert!(matches!(answer, Answer::Accepted(_)), "after {minutes} min: {answer:?}");
        }
        now = now.plus_ms(60_000);
        let answer = answer(&tokens, &token("old", &old, now), now).await;
        assert_eq!(answer, refused(Reason::TokenKeysStale));
    });
}

proptest! {
    #[test]
    fn whatever_comes_is_refused_and_breaks_nothing(text in "[A-Za-z0-9_.{}\":-]{0,200}") {
        prop_assert!(Parsed::read(&Secret::new(text)).is_err());
    }

    #[test]
    fn no_changed_byte_goes_unnoticed(at: prop::sample::Index, to in "[A-Za-z0-9_-]") {
        let signer = of(Alg::EdDsa);
        let token = signed(signer, &header(Alg::EdDsa), &claims());
        let at = at.index(token.len());
        let mut changed = token.clone();
        changed.replace_range(at..=at, &to);
        prop_assume!(changed != token);
        let set = KeySet::parse(set().as_bytes()).unwrap();
        let settings = settings(KeySource::File("x".into()));
        let verified = Parsed::read(&Secret::new(changed))
            .and_then(|parsed| parsed.verify(&settings, &set));
        prop_assert!(verified.is_err());
    }
}
