use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::AtomicUsize;
use std::thread;

use rustls::pki_types::pem::PemObject as _;

use super::super::backend::{Abort, Credentials, Protocol};
use super::super::source::Source;
use super::*;
use crate::authority::{Authority, Responder};
use crate::scratch::Scratch;

/// Longer than an answer counts that names no next update.
const LATER_MS: i64 = 11_000;

fn now() -> Timestamp {
    Timestamp(jiff::Timestamp::now().as_millisecond())
}

fn run<F: Future>(test: F) -> F::Output {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(test)
}

fn certificates(
    authority: &Authority,
    policy: OcspPolicy,
    responder: Option<&str>,
) -> Certificates {
    let ocsp = OcspSettings { policy, responder: responder.map(str::to_owned) };
    let settings = CertificateSettings::new(authority.file("ca", "pem"), Vec::new());
    Certificates::new(CertificateSettings { ocsp, ..settings }).unwrap()
}

fn chain(authority: &Authority, file: &str) -> Vec<CertificateDer<'static>> {
    let pem = std::fs::read(authority.file(file, "pem")).unwrap();
    CertificateDer::pem_slice_iter(&pem).collect::<Result<_, _>>().unwrap()
}

/// What the back end says, as the gate asks it.
async fn ask(own: &Certificates, chain: &[CertificateDer<'static>], at: Timestamp) -> Answer {
    ask_within(own, chain, at, Duration::from_secs(10)).await
}

async fn ask_within(
    own: &Certificates,
    chain: &[CertificateDer<'static>],
    now: Timestamp,
    patience: Duration,
) -> Answer {
    let mut work = own.begin(Request {
        name: String::new(),
        person: None,
        credentials: Arc::new(Credentials {
            certificates: chain.to_vec(),
            ..Credentials::default()
        }),
        source: Source::Local(0),
        protocol: Protocol::API,
        state: None,
        now,
        deadline: Instant::now() + patience,
    });
    loop {
        work = match work {
            Work::Done(answer) => return answer,
            Work::Blocking(run) => return run(&Abort::default()),
            Work::Stage(run) => run(&Abort::default()),
            Work::Waiting(waiting) => waiting.await,
        };
    }
}

fn is_in(answer: &Answer) -> bool {
    matches!(answer, Answer::Accepted(_))
}

fn count(own: &Certificates, word: &str) -> u64 {
    let counts = own.responders().unwrap().counts();
    counts.into_iter().find(|(known, _)| *known == word).unwrap().1
}

/// An HTTP server that says the same to everybody and counts them.
struct Parrot {
    address: String,
    asked: Arc<AtomicUsize>,
    lines: Arc<std::sync::Mutex<Vec<String>>>,
}

impl Parrot {
    fn new(say: impl Fn(&str) -> Vec<u8> + Send + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let (asked, lines) = (Arc::new(AtomicUsize::new(0)), Arc::default());
        let own = Self { address, asked: Arc::clone(&asked), lines: Arc::clone(&lines) };
        thread::spawn(move || {
            for stream in listener.incoming() {
                let Ok(mut stream) = stream else { continue };
                let line = head(&mut stream);
                asked.fetch_add(1, Ordering::SeqCst);
                lines.lock().unwrap().push(line.clone());
                let _ = stream.write_all(&say(&line));
            }
        });
        own
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }
}

/// The first line of a request; all of it is read.
fn head(stream: &mut TcpStream) -> String {
    let mut bytes = Vec::new();
    let mut one = [0; 1024];
    loop {
        let len = stream.read(&mut one).unwrap_or(0);
        bytes.extend_from_slice(&one[..len]);
        let text = String::from_utf8_lossy(&bytes).into_owned();
        let Some((head, body)) = text.split_once("\r\n\r\n") else {
            if len == 0 {
                return String::new();
            }
            continue;
        };
        let wanted = head.lines().find_map(|line| line.strip_prefix("content-length: "));
        let wanted: usize = wanted.map_or(0, |len| len.parse().unwrap());
        if len == 0 || body.chars().count() >= wanted || bytes.len() >= head.len() + 4 + wanted {
            return head.lines().next().unwrap_or_default().to_owned();
        }
    }
}

fn http(status: &str, more: &str, body: &[u8]) -> Vec<u8> {
    let len = body.len();
    let mut all =
        format!("HTTP/1.1 {status}\r\nConnection: close\r\nContent-Length: {len}\r\n{more}\r\n");
    let mut bytes = std::mem::take(&mut all).into_bytes();
    bytes.extend_from_slice(body);
    bytes
}

#[test]
fn each_certificate_of_a_chain_is_asked_about_at_the_responder_that_it_names() {
    run(async {
        let scratch = Scratch::new("asking_chain");
        let [top, low] = [Responder::port(), Responder::port()];
        let root = Authority::new(scratch.path(), "Root");
        root.name_responder(&format!("http://127.0.0.1:{top}"));
        let branch = root.below_for("branch", "asked_authority");
        branch.name_responder(&format!("http://127.0.0.1:{low}/branch"));
        for name in ["ann", "bob"] {
            branch.issue_for(name, name, "asked_client", &[]);
        }
        root.issue_for("answers", "Root answers", "answers", &[]);
        let with_branch = |file: &str| [chain(&branch, file), chain(&branch, "ca")].concat();
        let own = certificates(&root, OcspPolicy::Strict, None);
        let _of_root = root.respond(top, "answers", &[]);
        let of_branch = branch.respond(low, "ca", &[]);
        let begun = now();
        let (ann, bob) = (with_branch("ann"), with_branch("bob"));
        assert!(is_in(&ask(&own, &ann, begun).await));
        assert_eq!(count(&own, "good"), 2, "one answer for each certificate");
        assert!(is_in(&ask(&own, &bob, begun).await));
        assert_eq!(count(&own, "good"), 3, "of the branch it is known");
        branch.revoke("ann");
        drop(of_branch);
        let _of_branch = branch.respond(low, "ca", &[]);
        // What was said counts for its time.
        assert!(is_in(&ask(&own, &ann, begun).await));
        let later = begun.plus_ms(LATER_MS);
        assert_eq!(ask(&own, &ann, later).await, Answer::Refused(Reason::CertificateRevoked));
        assert!(is_in(&ask(&own, &bob, later).await));
        assert_eq!(Reason::CertificateRevoked.told().text(), "certificate revoked");
        // The authority in between: all below it is over.
        root.revoke("branch/ca");
        drop(_of_root);
        let _of_root = root.respond(top, "answers", &[]);
        let later = begun.plus_ms(2 * LATER_MS);
        assert_eq!(ask(&own, &bob, later).await, Answer::Refused(Reason::CertificateRevoked));
    });
}

#[test]
fn what_is_not_called_good_is_refused_or_let_in_and_counted() {
    run(async {
        let scratch = Scratch::new("asking_policy");
        let root = Authority::new(scratch.path(), "Root");
        for name in ["unknown", "ann"] {
            root.issue(name, "ann");
            if name == "unknown" {
                std::fs::write(scratch.path().join("index.txt"), "").unwrap();
            }
        }
        let stranger = Authority::new(&scratch.path().join("stranger"), "Root");
        for ending in ["pem", "key"] {
            std::fs::copy(stranger.file("ca", ending), root.file("stranger", ending)).unwrap();
        }
        let port = Responder::port();
        let good = root.respond(port, "ca", &["-nmin", "1"]);
        let address = format!("http://127.0.0.1:{port}");
        let wrong_port = Responder::port();
        let _wrong = root.respond(wrong_port, "stranger", &["-nmin", "1"]);
        let wrong = format!("http://127.0.0.1:{wrong_port}");
        let closed = format!("http://127.0.0.1:{}", Responder::port());
        let junk = Parrot::new(|_| http("200 OK", "", b"not an answer"));
        let huge = Parrot::new(|_| http("200 OK", "", &vec![0x30; 100_000]));
        let elsewhere = address.clone();
        let moved =
            Parrot::new(move |_| http("302 Found", &format!("Location: {elsewhere}\r\n"), b""));
        let refuses = Parrot::new(|_| http("200 OK", "", &[0x30, 0x03, 0x0a, 0x01, 0x03]));
        let expired = now().plus_ms(10 * 60_000);
        for (what, file, responder, at, reason) in [
            ("unknown", "unknown", Some(&address), now(), Reason::OcspUnknown),
            ("wrong signer", "ann", Some(&wrong), now(), Reason::OcspInvalid),
            ("old", "ann", Some(&address), expired, Reason::OcspInvalid),
            ("junk", "ann", Some(&junk.address), now(), Reason::OcspInvalid),
            ("too much", "ann", Some(&huge.address), now(), Reason::OcspSilent),
            ("a redirect", "ann", Some(&moved.address), now(), Reason::OcspSilent),
            ("try later", "ann", Some(&refuses.address), now(), Reason::OcspSilent),
            ("nobody there", "ann", Some(&closed), now(), Reason::OcspSilent),
            ("nobody named", "ann", None, now(), Reason::OcspSilent),
        ] {
            let responder = responder.map(String::as_str);
            let strict = certificates(&root, OcspPolicy::Strict, responder);
            let answer = ask(&strict, &chain(&root, file), at).await;
            assert_eq!(answer, Answer::Refused(reason), "{what}");
            assert_eq!(reason.told().text(), "certificate validation failed");
            assert_eq!(strict.responders().unwrap().unanswered(), 0);
            let warn = certificates(&root, OcspPolicy::Warn, responder);
            assert!(is_in(&ask(&warn, &chain(&root, file), at).await), "{what}");
            assert_eq!(warn.responders().unwrap().unanswered(), 1, "{what}");
        }
        assert!(moved.asked() > 0);
        root.revoke("ann");
        drop(good);
        let _good = root.respond(port, "ca", &["-nmin", "1"]);
        let warn = certificates(&root, OcspPolicy::Warn, Some(&address));
        let answer = ask(&warn, &chain(&root, "ann"), now()).await;
        assert_eq!(answer, Answer::Refused(Reason::CertificateRevoked));
        let off = certificates(&root, OcspPolicy::Off, Some(&address));
        assert!(is_in(&ask(&off, &chain(&root, "ann"), now()).await));
    });
}

#[test]
fn a_responder_that_hangs_costs_one_deadline_and_is_found_again() {
    run(async {
        let scratch = Scratch::new("asking_hangs");
        let root = Authority::new(scratch.path(), "Root");
        for name in ["ann", "bob", "carl"] {
            root.issue(name, name);
        }
        let port = Responder::port();
        let responder = root.respond(port, "ca", &[]);
        let own =
            certificates(&root, OcspPolicy::Strict, Some(&format!("http://127.0.0.1:{port}")));
        responder.freeze();
        let (begun, at) = (Instant::now(), now());
        let silent = Answer::Refused(Reason::OcspSilent);
        assert_eq!(ask(&own, &chain(&root, "ann"), at).await, silent);
        let first = begun.elapsed();
        assert!((2_500..8_000).contains(&first.as_millis()), "{first:?}");
        // The next ones are told at once, whoever they are.
        let begun = Instant::now();
        for name in ["ann", "bob", "carl"] {
            assert_eq!(ask(&own, &chain(&root, name), at.plus_ms(5_000)).await, silent);
        }
        let others = begun.elapsed();
        assert!(others < Duration::from_millis(1_500), "{others:?}");
        assert_eq!(count(&own, "silent"), 1);
        responder.thaw();
        assert_eq!(ask(&own, &chain(&root, "bob"), at.plus_ms(10_000)).await, silent);
        assert!(is_in(&ask(&own, &chain(&root, "bob"), at.plus_ms(31_000)).await));
    });
}

#[test]
fn whoever_has_less_patience_hears_in_time_that_the_responder_is_silent() {
    run(async {
        let scratch = Scratch::new("asking_patience");
        let root = Authority::new(scratch.path(), "Root");
        root.issue("ann", "ann");
        let port = Responder::port();
        let responder = root.respond(port, "ca", &[]);
        responder.freeze();
        let own =
            certificates(&root, OcspPolicy::Strict, Some(&format!("http://127.0.0.1:{port}")));
        let (begun, patience) = (Instant::now(), Duration::from_millis(700));
        let answer = ask_within(&own, &chain(&root, "ann"), now(), patience).await;
        assert_eq!(answer, Answer::Refused(Reason::OcspSilent));
        assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());
    });
}

#[test]
fn those_who_come_together_ask_once_and_a_stranger_has_nobody_asked() {
    run(async {
        let scratch = Scratch::new("asking_once");
        let root = Authority::new(scratch.path(), "Root");
        root.issue("ann", "ann");
        let strict = certificates(&root, OcspPolicy::Strict, Some("http://127.0.0.1:1"));
        let question =
            Arc::clone(&strict.examine(&chain(&root, "ann"), now()).unwrap().questions[0]);
        let answer = root.answer(&question.encoded().unwrap(), "ca", &["-nmin", "5"]);
        // Some know no other way than posts.
        let parrot = Parrot::new(move |line| {
            if line.starts_with("GET") {
                http("405 Method Not Allowed", "", b"")
            } else {
                http("200 OK", "", &answer)
            }
        });
        let own = certificates(&root, OcspPolicy::Strict, Some(&parrot.address));
        let ann = chain(&root, "ann");
        let at = now();
        let (a, b, c) = tokio::join!(ask(&own, &ann, at), ask(&own, &ann, at), ask(&own, &ann, at));
        assert!([a, b, c].iter().all(is_in));
        assert_eq!(count(&own, "good"), 1);
        let lines = parrot.lines.lock().unwrap().clone();
        assert!(lines[0].starts_with("GET /ME") && lines[1].starts_with("POST / "), "{lines:?}");
        assert_eq!(parrot.asked(), 2);
        // A chain that leads nowhere, and one that is over, name whom they like.
        let stranger = Authority::new(&scratch.path().join("stranger"), "Root");
        for authority in [&stranger, &root] {
            authority.name_responder(&parrot.address);
        }
        stranger.issue_for("eve", "eve", "asked_client", &[]);
        let past = ["-startdate", "20200101000000Z", "-enddate", "20210101000000Z"];
        root.issue_for("old", "ann", "asked_client", &past);
        root.issue_for("server", "ann", "server", &[]);
        let own = certificates(&root, OcspPolicy::Strict, None);
        for (chain, reason) in [
            (chain(&stranger, "eve"), Reason::CertificateUntrusted),
            (chain(&root, "old"), Reason::CertificateExpired),
            (chain(&root, "server"), Reason::CertificatePurpose),
        ] {
            assert_eq!(ask(&own, &chain, now()).await, Answer::Refused(reason));
        }
        assert_eq!(parrot.asked(), 2, "nobody is asked about them");
    });
}

#[test]
fn a_certificate_that_gives_access_is_asked_about_again_when_its_answer_is_over() {
    run(async {
        let scratch = Scratch::new("asking_again");
        let root = Authority::new(scratch.path(), "Root");
        for name in ["ann", "bob"] {
            root.issue(name, name);
        }
        let port = Responder::port();
        let responder = root.respond(port, "ca", &[]);
        let own = certificates(&root, OcspPolicy::Warn, Some(&format!("http://127.0.0.1:{port}")));
        let at = now();
        let mut live = Vec::new();
        for name in ["ann", "bob"] {
            let Answer::Accepted(proof) = ask(&own, &chain(&root, name), at).await else {
                panic!("{name} is not let in");
            };
            live.extend(proof.attributes.certificates);
        }
        let asking = own.responders().unwrap();
        assert!(asking.due(at.plus_ms(5_000)).is_empty());
        root.revoke("ann");
        drop(responder);
        let _responder = root.respond(port, "ca", &[]);
        assert!(own.revoked_now(&live).is_empty() && !asking.take_news());
        let later = at.plus_ms(LATER_MS);
        let due = asking.due(later);
        assert_eq!(due.len(), 2);
        asking.ask_again(&due, later);
        let begun = Instant::now();
        while count(&own, "good") + count(&own, "revoked") < 4 {
            assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", asking.counts());
            tokio::task::yield_now().await;
        }
        assert!(asking.take_news() && !asking.take_news());
        assert_eq!(own.revoked_now(&live), live[..1]);
        // Whose access is over loses the answer.
        let much_later = later.plus_ms(120_000);
        let due = asking.due(much_later);
        asking.forget(&due, much_later);
        assert_eq!(asking.kept(), 0);
    });
}
