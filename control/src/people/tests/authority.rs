//! An authority for client certificates, as an operator has one with `openssl ca`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// An authority and what it made, in a folder.
pub(super) struct Authority {
    folder: PathBuf,
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
extendedKeyUsage = serverAuth\n";

impl Authority {
    /// Makes one of this name.
    pub(super) fn new(folder: &Path, name: &str) -> Self {
        let own = Self::empty(folder);
        let subject = format!("/CN={name}");
        own.openssl(&[
            &["req", "-x509", "-days", "3650", "-keyout", "ca.key", "-out", "ca.pem"],
            KEY,
            &["-subj", &subject, "-addext", "basicConstraints=critical,CA:TRUE"],
            &["-addext", "keyUsage=critical,keyCertSign,cRLSign"],
        ]);
        own
    }

    /// Makes one of this name below this one, in a folder of its own in the folder of this one.
    pub(super) fn below(&self, name: &str) -> Self {
        let own = Self::empty(&self.folder.join(name));
        let subject = format!("/CN={name}");
        let request = ["req", "-new", "-keyout", "ca.key", "-out", "ca.csr", "-subj", &subject];
        own.openssl(&[&request, KEY]);
        let (request, certificate) = (format!("{name}/ca.csr"), format!("{name}/ca.pem"));
        self.openssl(&[
            &["ca", "-batch", "-notext", "-config", "ca.cnf", "-extensions", "authority"],
            &["-in", &request, "-out", &certificate],
        ]);
        own
    }

    /// As [`Self::issue`], by an authority [below](Self::below) this one; its certificate is in the
    /// file too.
    pub(super) fn issue_below(&self, below: &Self, file: &str, user: &str) {
        below.issue(file, user);
        let read = |name| fs::read_to_string(below.file(name, "pem")).unwrap();
        fs::write(self.file(file, "pem"), format!("{}{}", read(file), read("ca"))).unwrap();
        fs::copy(below.file(file, "key"), self.file(file, "key")).unwrap();
    }

    /// Makes a certificate for `user` and its key, in files of this name.
    pub(super) fn issue(&self, file: &str, user: &str) {
        self.issue_for(file, user, "client", &[]);
    }

    /// As [`Self::issue`], for something else (`server`) or another time (`-startdate`,
    /// `-enddate`).
    pub(super) fn issue_for(&self, file: &str, user: &str, purpose: &str, more: &[&str]) {
        let (key, request) = (format!("{file}.key"), format!("{file}.csr"));
        let subject = format!("/CN={user}");
        self.openssl(&[
            &["req", "-new", "-keyout", &key, "-out", &request, "-subj", &subject],
            KEY,
        ]);
        let certificate = format!("{file}.pem");
        self.openssl(&[
            &["ca", "-batch", "-notext", "-config", "ca.cnf", "-extensions", purpose],
            &["-in", &request, "-out", &certificate],
            more,
        ]);
    }

    /// Takes the certificate in the files of this name back. Nobody knows before [`Self::publish`].
    pub(super) fn revoke(&self, file: &str) {
        self.openssl(&[&["ca", "-config", "ca.cnf", "-revoke", &format!("{file}.pem")]]);
    }

    /// Puts the list of what was taken back in place, as one act.
    pub(super) fn publish(&self) {
        self.openssl(&[&["ca", "-config", "ca.cnf", "-gencrl", "-out", "ca.crl.new"]]);
        fs::rename(self.folder.join("ca.crl.new"), self.folder.join("ca.crl")).unwrap();
    }

    /// A file that was made.
    pub(super) fn file(&self, name: &str, ending: &str) -> PathBuf {
        self.folder.join(format!("{name}.{ending}"))
    }

    fn empty(folder: &Path) -> Self {
        fs::create_dir_all(folder).unwrap();
        for (file, text) in
            [("ca.cnf", CONFIG), ("index.txt", ""), ("serial", "1000\n"), ("crlnumber", "01\n")]
        {
            fs::write(folder.join(file), text).unwrap();
        }
        Self { folder: folder.to_owned() }
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
