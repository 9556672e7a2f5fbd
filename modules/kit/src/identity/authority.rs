//! A certificate authority of our own.
//!
//! There are always two authorities, and proxies trust both: the one that signs, and the one that will sign when the first comes near
//! its end. So a change of the signer changes nothing in any proxy. Only then a new second one is made, which
//! proxies learn when the operator starts the next time, years before it is used.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SanType,
};
use time::OffsetDateTime;
use x509_parser::pem::parse_x509_pem;

/// Life of an authority.
const LIFE: Duration = Duration::from_secs(10 * 365 * 24 * 3600);
/// An authority with less life left does not sign any more.
const SPARE: Duration = Duration::from_secs(2 * 365 * 24 * 3600);
/// Clocks of proxies may be behind.
const BACKDATED: Duration = Duration::from_secs(300);
/// Life of a server certificate; it is renewed at half of it.
pub(super) const LEAF_LIFE: Duration = Duration::from_secs(24 * 3600);

/// Fields of the Secret: certificate and key of each authority.
const FIELDS: [[&str; 2]; 2] = [["current.crt", "current.key"], ["next.crt", "next.key"]];

/// Why authorities cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum AuthorityError {
    /// A field of the Secret is missing.
    #[error("the field {0} is missing: delete the Secret, and new authorities are made")]
    Missing(&'static str),
    /// A field of the Secret cannot be read.
    #[error("the field {0} cannot be used ({1}): delete the Secret, and new authorities are made")]
    Unusable(&'static str, String),
    /// A certificate could not be made.
    #[error("no certificate could be made: {0}")]
    Make(#[from] rcgen::Error),
}

/// An authority: certificate, key, end.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Authority {
    certificate: String,
    key: String,
    ends: Timestamp,
}

/// The authority that signs, and the one that signs after it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Authorities {
    current: Authority,
    next: Authority,
}

impl Authorities {
    /// Two new ones. The one that signs first ends first.
    pub fn new(now: Timestamp) -> Result<Self, AuthorityError> {
        Ok(Self {
            current: Authority::new(now, LIFE)?,
            next: Authority::new(now, LIFE * 2)?,
        })
    }

    /// Reads the fields of a Secret.
    pub fn read(fields: &BTreeMap<String, Vec<u8>>) -> Result<Self, AuthorityError> {
        let authority =
            |[certificate, key]: [&'static str; 2]| -> Result<Authority, AuthorityError> {
                let field = |name: &'static str| {
                    let bytes = fields.get(name).ok_or(AuthorityError::Missing(name))?;
                    String::from_utf8(bytes.clone())
                        .map_err(|error| AuthorityError::Unusable(name, error.to_string()))
                };
                let (pem, secret) = (field(certificate)?, field(key)?);
                let wrong = |why: String| AuthorityError::Unusable(certificate, why);
                let ends = ends_of(&pem).map_err(wrong)?;
                KeyPair::from_pem(&secret)
                    .map_err(|error| AuthorityError::Unusable(key, error.to_string()))
                    .and_then(|pair| {
                        Issuer::from_ca_cert_pem(&pem, pair).map_err(|e| wrong(e.to_string()))
                    })?;
                Ok(Authority {
                    certificate: pem,
                    key: secret,
                    ends,
                })
            };
        Ok(Self {
            current: authority(FIELDS[0])?,
            next: authority(FIELDS[1])?,
        })
    }

    /// The fields of a Secret.
    pub fn fields(&self) -> BTreeMap<String, Vec<u8>> {
        let both = FIELDS.into_iter().zip([&self.current, &self.next]);
        both.flat_map(|([certificate, key], authority)| {
            [
                (
                    certificate.to_owned(),
                    authority.certificate.clone().into_bytes(),
                ),
                (key.to_owned(), authority.key.clone().into_bytes()),
            ]
        })
        .collect()
    }

    /// What must be stored at `now`; `None`: what is stored will do.
    pub fn advanced(&self, now: Timestamp) -> Result<Option<Self>, AuthorityError> {
        if now + SPARE < self.current.ends {
            return Ok(None);
        }
        Ok(Some(Self {
            current: self.next.clone(),
            next: Authority::new(now, LIFE * 2)?,
        }))
    }

    /// PEM certificates that proxies must trust: both.
    pub fn roots(&self) -> String {
        format!("{}{}", self.current.certificate, self.next.certificate)
    }

    /// Whether proxies that trust `roots` accept a certificate that is issued now.
    pub fn is_trusted_by(&self, roots: &str) -> bool {
        roots.contains(&self.current.certificate)
    }

    /// Chain and key of a server, in PEM, for the DNS names and IP addresses under which proxies reach it.
    pub fn issue(
        &self,
        hosts: &[String],
        now: Timestamp,
    ) -> Result<(String, String), AuthorityError> {
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::default();
        for host in hosts {
            params.subject_alt_names.push(match host.parse() {
                Ok(address) => SanType::IpAddress(address),
                Err(_) => SanType::DnsName(host.as_str().try_into()?),
            });
        }
        params.distinguished_name.remove(DnType::CommonName);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        (params.not_before, params.not_after) = (date(now - BACKDATED), date(now + LEAF_LIFE));
        let signer = KeyPair::from_pem(&self.current.key)?;
        let issuer = Issuer::from_ca_cert_pem(&self.current.certificate, signer)?;
        let certificate = params.signed_by(&key, &issuer)?;
        Ok((certificate.pem(), key.serialize_pem()))
    }
}

impl Authority {
    fn new(now: Timestamp, life: Duration) -> Result<Self, AuthorityError> {
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let name = &mut params.distinguished_name;
        name.remove(DnType::CommonName);
        // Two roots of one name would be told apart by their keys alone, which not every client does.
        name.push(
            DnType::CommonName,
            format!("trimtab xDS until {}", now + life),
        );
        let ends = now + life;
        (params.not_before, params.not_after) = (date(now - BACKDATED), date(ends));
        Ok(Self {
            certificate: params.self_signed(&key)?.pem(),
            key: key.serialize_pem(),
            ends: Timestamp::from_second(ends.as_second()).unwrap_or(ends),
        })
    }
}

/// X.509 has whole seconds.
fn date(at: Timestamp) -> OffsetDateTime {
    OffsetDateTime::from_unix_timestamp(at.as_second()).unwrap_or(OffsetDateTime::UNIX_EPOCH)
}

/// When the first certificate of a PEM text ends.
pub(super) fn ends_of(pem: &str) -> Result<Timestamp, String> {
    let (_, pem) = parse_x509_pem(pem.as_bytes()).map_err(|error| error.to_string())?;
    let certificate = pem.parse_x509().map_err(|error| error.to_string())?;
    Timestamp::from_second(certificate.validity().not_after.timestamp())
        .map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    const YEAR: Duration = Duration::from_secs(365 * 24 * 3600);

    fn now() -> Timestamp {
        "2026-01-01T00:00:00Z".parse().unwrap()
    }

    #[test]
    fn what_is_stored_is_read_again_and_damage_is_named() {
        let made = Authorities::new(now()).unwrap();
        let mut fields = made.fields();
        assert_eq!(Authorities::read(&fields).unwrap(), made);
        fields.insert("next.crt".into(), b"no certificate".to_vec());
        let error = Authorities::read(&fields).unwrap_err().to_string();
        assert!(error.contains("next.crt"), "{error}");
        fields.remove("next.crt");
        let error = Authorities::read(&fields).unwrap_err().to_string();
        assert!(error.contains("next.crt is missing"), "{error}");
    }

    #[test]
    fn whoever_signs_was_trusted_before() {
        let mut known = Authorities::new(now()).unwrap();
        let mut changes = 0;
        for years in 0..60 {
            let at = now() + YEAR * years;
            if let Some(advanced) = known.advanced(at).unwrap() {
                assert!(advanced.is_trusted_by(&known.roots()));
                known = advanced;
                changes += 1;
            }
            assert!(known.current.ends > at + YEAR, "year {years}");
        }
        assert!((4..=7).contains(&changes), "{changes}");
        // After somebody deleted the Secret.
        let other = Authorities::new(now()).unwrap();
        assert!(!other.is_trusted_by(&known.roots()));
    }
}
