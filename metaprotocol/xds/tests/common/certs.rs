//! Certificates, and the files that a server reads them from.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SanType,
};
use trimtab_xds::TlsFiles;

/// A certificate with its key, PEM.
#[derive(Clone)]
pub struct Pair {
    pub certificate: String,
    pub key: String,
}

pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pub pem: String,
}

impl Authority {
    pub fn new() -> Self {
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::new(vec![]).expect("parameters");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        params.distinguished_name.push(DnType::CommonName, "test");
        let pem = params.self_signed(&key).expect("a certificate").pem();
        Self {
            issuer: Issuer::new(params, key),
            pem,
        }
    }

    fn issue(&self, names: &[&str], uris: &[&str], usage: ExtendedKeyUsagePurpose) -> Pair {
        let names: Vec<String> = names.iter().map(ToString::to_string).collect();
        let mut params = CertificateParams::new(names).expect("parameters");
        let uri = |uri: &&str| SanType::URI((*uri).try_into().expect("a URI"));
        params.subject_alt_names.extend(uris.iter().map(uri));
        params.extended_key_usages = vec![usage];
        let key = KeyPair::generate().expect("a key");
        let certificate = params.signed_by(&key, &self.issuer).expect("a certificate");
        Pair {
            certificate: certificate.pem(),
            key: key.serialize_pem(),
        }
    }

    pub fn server(&self) -> Pair {
        self.issue(&["127.0.0.1"], &[], ExtendedKeyUsagePurpose::ServerAuth)
    }

    pub fn client(&self, uris: &[&str]) -> Pair {
        self.issue(&[], uris, ExtendedKeyUsagePurpose::ClientAuth)
    }
}

/// The three files of a server; removed at the end.
pub struct Files {
    pub directory: PathBuf,
}

impl Files {
    pub fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("trimtab-xds-tls-{}-{number}", std::process::id());
        let directory = std::env::temp_dir().join(name);
        std::fs::create_dir_all(&directory).expect("a directory");
        Self { directory }
    }

    pub fn write(&self, name: &str, content: &str) {
        // As a whole, as an update of a mounted secret does it.
        let new = self.directory.join(format!("{name}.new"));
        std::fs::write(&new, content).expect("a file");
        std::fs::rename(new, self.directory.join(name)).expect("a file in its place");
    }

    pub fn fill(&self, server: &Pair, client_ca: &str) {
        self.write("cert", &server.certificate);
        self.write("key", &server.key);
        self.write("ca", client_ca);
    }

    pub fn tls(&self) -> TlsFiles {
        TlsFiles {
            poll: Duration::from_millis(20),
            ..TlsFiles::new(
                self.directory.join("cert"),
                self.directory.join("key"),
                self.directory.join("ca"),
            )
        }
    }
}

impl Drop for Files {
    fn drop(&mut self) {
        // What is left in the temporary folder is no failure.
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}
