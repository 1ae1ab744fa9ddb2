//! An authority for client certificates, as an operator has one with `openssl ca`, and its
//! responder (`openssl ocsp`). For tests: what others have made is understood, not only what we
//! would make. It must not know how certificates are judged.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// An authority and what it made, in a folder.
pub(crate) struct Authority {
    folder: PathBuf,
    key: &'static [&'static str],
}

/// A responder; it ends when dropped.
pub(crate) struct Responder(Child);

impl Responder {
    /// A port for one.
    pub(crate) fn port() -> u16 {
        TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
    }

    /// Stops it, so that it takes connections and does nothing more.
    pub(crate) fn freeze(&self) {
        self.signal(Signal::SIGSTOP);
    }

    /// Lets it go on.
    pub(crate) fn thaw(&self) {
        self.signal(Signal::SIGCONT);
    }

    fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(i32::try_from(self.0.id()).unwrap()), signal).unwrap();
    }
}

impl Drop for Responder {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

const CONFIG: &str = "\
[ca]\ndefault_ca = own\n\
[own]\ndatabase = index.txt\nserial = serial\ncrlnumber = crlnumber\nnew_certs_dir = .\n\
certificate = ca.pem\nprivate_key = ca.key\ndefault_md = sha256\ndefault_days = 365\n\
default_crl_days = 30\npolicy = any\nunique_subject = no\n\
[any]\ncommonName = supplied\norganizationalUnitName = optional\n\
[client]\nbasicConstraints = critical,CA:FALSE\nkeyUsage = critical,digitalSignature\n\
extendedKeyUsage = clientAuth\n\
[authority]\nbasicConstraints = critical,CA:TRUE\nkeyUsage = critical,keyCertSign,cRLSign\n\
[server]\nbasicConstraints = critical,CA:FALSE\nkeyUsage = critical,digitalSignature\n\
extendedKeyUsage = serverAuth\n\
[answers]\nbasicConstraints = critical,CA:FALSE\nkeyUsage = critical,digitalSignature\n\
extendedKeyUsage = OCSPSigning\nnoCheck = ignored\n\
[answers_checked]\nbasicConstraints = critical,CA:FALSE\nkeyUsage = critical,digitalSignature\n\
extendedKeyUsage = OCSPSigning\n";

impl Authority {
    /// Makes one of this name.
    pub(crate) fn new(folder: &Path, name: &str) -> Self {
        Self::with_key(folder, name, KEY)
    }

    /// Makes one of this name with another key than P-256, as `openssl req` wants it said; so are
    /// the keys of whom it certifies.
    pub(crate) fn with_key(folder: &Path, name: &str, key: &'static [&'static str]) -> Self {
        let own = Self { key, ..Self::empty(folder) };
        let subject = format!("/CN={name}");
        own.openssl(&[
            &["req", "-x509", "-days", "3650", "-keyout", "ca.key", "-out", "ca.pem"],
            key,
            &["-subj", &subject, "-addext", "basicConstraints=critical,CA:TRUE"],
            &["-addext", "keyUsage=critical,keyCertSign,cRLSign"],
        ]);
        own
    }

    /// Makes one of this name below this one, in a folder of its own in the folder of this one.
    pub(crate) fn below(&self, name: &str) -> Self {
        self.below_for(name, "authority")
    }

    /// As [`Self::below`], with another section of the configuration.
    pub(crate) fn below_for(&self, name: &str, section: &str) -> Self {
        let own = Self { key: self.key, ..Self::empty(&self.folder.join(name)) };
        let subject = format!("/CN={name}");
        let request = ["req", "-new", "-keyout", "ca.key", "-out", "ca.csr", "-subj", &subject];
        own.openssl(&[&request, own.key]);
        let (request, certificate) = (format!("{name}/ca.csr"), format!("{name}/ca.pem"));
        self.openssl(&[
            &["ca", "-batch", "-notext", "-config", "ca.cnf", "-extensions", section],
            &["-in", &request, "-out", &certificate],
        ]);
        own
    }

    /// As [`Self::issue`], by an authority [below](Self::below) this one; its certificate is in the
    /// file too.
    pub(crate) fn issue_below(&self, below: &Self, file: &str, user: &str) {
        below.issue(file, user);
        let read = |name| fs::read_to_string(below.file(name, "pem")).unwrap();
        fs::write(self.file(file, "pem"), format!("{}{}", read(file), read("ca"))).unwrap();
        fs::copy(below.file(file, "key"), self.file(file, "key")).unwrap();
    }

    /// Makes a certificate for `user` and its key, in files of this name.
    pub(crate) fn issue(&self, file: &str, user: &str) {
        self.issue_for(file, user, "client", &[]);
    }

    /// As [`Self::issue`], for something else (`server`) or another time (`-startdate`,
    /// `-enddate`).
    pub(crate) fn issue_for(&self, file: &str, user: &str, purpose: &str, more: &[&str]) {
        let (key, request) = (format!("{file}.key"), format!("{file}.csr"));
        let subject = format!("/CN={user}");
        self.openssl(&[
            &["req", "-new", "-keyout", &key, "-out", &request, "-subj", &subject],
            self.key,
        ]);
        let certificate = format!("{file}.pem");
        self.openssl(&[
            &["ca", "-batch", "-notext", "-config", "ca.cnf", "-extensions", purpose],
            &["-in", &request, "-out", &certificate],
            more,
        ]);
    }

    /// Takes the certificate in the files of this name back. Nobody knows before [`Self::publish`].
    pub(crate) fn revoke(&self, file: &str) {
        self.openssl(&[&["ca", "-config", "ca.cnf", "-revoke", &format!("{file}.pem")]]);
    }

    /// Puts the list of what was taken back in place, as one act.
    pub(crate) fn publish(&self) {
        self.openssl(&[&["ca", "-config", "ca.cnf", "-gencrl", "-out", "ca.crl.new"]]);
        fs::rename(self.folder.join("ca.crl.new"), self.folder.join("ca.crl")).unwrap();
    }

    /// A file that was made.
    pub(crate) fn file(&self, name: &str, ending: &str) -> PathBuf {
        self.folder.join(format!("{name}.{ending}"))
    }

    fn empty(folder: &Path) -> Self {
        fs::create_dir_all(folder).unwrap();
        for (file, text) in
            [("ca.cnf", CONFIG), ("index.txt", ""), ("serial", "1000\n"), ("crlnumber", "01\n")]
        {
            fs::write(folder.join(file), text).unwrap();
        }
        Self { folder: folder.to_owned(), key: KEY }
    }

    /// Has what it certifies from now on under `asked_client` and `asked_authority` name a
    /// responder.
    pub(crate) fn name_responder(&self, address: &str) {
        let mut text = CONFIG.to_owned();
        for (section, of) in [("client", "asked_client"), ("authority", "asked_authority")] {
            let (_, rest) = CONFIG.split_once(&format!("[{section}]\n")).unwrap();
            let lines = rest.split('[').next().unwrap();
            text += &format!("[{of}]\n{lines}authorityInfoAccess = OCSP;URI:{address}\n");
        }
        fs::write(self.folder.join("ca.cnf"), text).unwrap();
    }

    /// What `openssl ocsp` answers to a question, signed with the certificate and key in the files
    /// of this name (`ca` is its own).
    pub(crate) fn answer(&self, question: &[u8], signer: &str, more: &[&str]) -> Vec<u8> {
        fs::write(self.folder.join("question.der"), question).unwrap();
        let (certificate, key) = (format!("{signer}.pem"), format!("{signer}.key"));
        self.openssl(&[
            &["ocsp", "-reqin", "question.der", "-index", "index.txt", "-CA", "ca.pem"],
            &["-rsigner", &certificate, "-rkey", &key, "-respout", "answer.der"],
            more,
        ]);
        fs::read(self.folder.join("answer.der")).unwrap()
    }

    /// Starts a responder, signing as in [`Self::answer`].
    pub(crate) fn respond(&self, port: u16, signer: &str, more: &[&str]) -> Responder {
        self.respond_in(None, port, signer, more)
    }

    /// As [`Self::respond`], in a network namespace.
    pub(crate) fn respond_in(
        &self,
        namespace: Option<&str>,
        port: u16,
        signer: &str,
        more: &[&str],
    ) -> Responder {
        let mut command = match namespace {
            None => Command::new("openssl"),
            Some(namespace) => {
                let mut command = Command::new("ip");
                command.args(["netns", "exec", namespace, "openssl"]);
                command
            }
        };
        command.args(["ocsp", "-port", &port.to_string()]);
        self.started(command, signer, more)
    }

    fn started(&self, mut command: Command, signer: &str, more: &[&str]) -> Responder {
        let (certificate, key) = (format!("{signer}.pem"), format!("{signer}.key"));
        command.current_dir(&self.folder);
        command.args(["-index", "index.txt", "-CA", "ca.pem", "-ignore_err"]);
        command.args(["-rsigner", &certificate, "-rkey", &key]).args(more);
        let log = fs::File::create(self.folder.join("responder.log")).unwrap();
        let child = command.stdout(log.try_clone().unwrap()).stderr(log).spawn();
        let responder = Responder(child.expect("openssl is missing: run tools/setup test"));
        // A connection that comes to nothing would keep it busy for ever.
        let begun = Instant::now();
        while !self.responder_log().contains("waiting for OCSP client connections") {
            assert!(begun.elapsed() < Duration::from_secs(20), "{}", self.responder_log());
            std::thread::yield_now();
        }
        responder
    }

    fn responder_log(&self) -> String {
        fs::read_to_string(self.folder.join("responder.log")).unwrap_or_default()
    }

    fn openssl(&self, arguments: &[&[&str]]) {
        let mut command = Command::new("openssl");
        command.current_dir(&self.folder).args(arguments.concat());
        let done = command.output().expect("openssl is missing: run tools/setup test");
        assert!(done.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&done.stderr));
    }
}

/// A new key that is not locked.
const KEY: &[&str] = &["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"];
