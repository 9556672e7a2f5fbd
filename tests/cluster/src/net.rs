//! Addresses: what pods have in Kubernetes, and where their processes really listen.
//!
//! Each process that starts a cluster has one number `n`: pods are 198.18.n.h (a range for tests of networks, RFC 2544),
//! their processes listen on 127.44.n.h.

use std::fs::File;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU8, Ordering};

use crate::{ClusterError, Result};

/// The lock lives as long as the process.
static NUMBER: OnceLock<(u8, File)> = OnceLock::new();
static NEXT: AtomicU8 = AtomicU8::new(1);

/// A new pod address.
pub fn pod_ip() -> Result<Ipv4Addr> {
    let number = number()?;
    let host = NEXT.fetch_add(1, Ordering::Relaxed);
    if host == u8::MAX {
        return Err(ClusterError::Other(
            "one test process can have 254 pods: use fewer in this test, or split the test binary"
                .to_owned(),
        ));
    }
    Ok(Ipv4Addr::new(198, 18, number, host))
}

/// Where the processes of a pod listen; other addresses stay as they are.
pub fn local(address: Ipv4Addr) -> Ipv4Addr {
    match address.octets() {
        [198, 18, number, host] => Ipv4Addr::new(127, 44, number, host),
        _ => address,
    }
}

/// [`local`] of an address in text; other texts stay as they are.
pub fn local_text(address: &str) -> Option<String> {
    match address.parse().ok()? {
        IpAddr::V4(v4) if local(v4) != v4 => Some(local(v4).to_string()),
        _ => None,
    }
}

fn number() -> Result<u8> {
    if let Some((number, _)) = NUMBER.get() {
        return Ok(*number);
    }
    let user = std::env::var("USER").unwrap_or_else(|_| "any".to_owned());
    let directory = std::env::temp_dir().join(format!("trimtab-networks-{user}"));
    std::fs::create_dir_all(&directory).map_err(ClusterError::file(&directory))?;
    for number in 0..=u8::MAX {
        let Ok(file) = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(directory.join(number.to_string()))
        else {
            continue;
        };
        if file.try_lock().is_ok() {
            // A second thread that came first keeps its number, and this lock is dropped.
            return Ok(NUMBER.get_or_init(|| (number, file)).0);
        }
    }
    Err(ClusterError::Other(format!(
        "all 256 networks are in use by other test processes (locks in {})",
        directory.display()
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pods_have_addresses_of_their_own_that_map_to_loopback() {
        let (a, b) = (pod_ip().unwrap(), pod_ip().unwrap());
        assert_ne!(a, b);
        assert!(local(a).is_loopback() && local(b).is_loopback());
        assert_eq!(local_text("10.96.0.1"), None);
        assert_eq!(local_text("outbound|80||a"), None);
        assert_eq!(local_text("198.18.3.4"), Some("127.44.3.4".to_owned()));
    }
}
