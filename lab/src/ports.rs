//! Free ports on the loopback interface.

use std::fs::File;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::sync::Mutex;

use crate::LabError;

/// Below the range from which Linux takes the ports of outgoing connections, so that a load generator cannot take a
/// port between the moment it is found free and the moment a process listens on it.
const FIRST: u16 = 20_000;
const END: u16 = 30_000;

/// The reservations of this process. Locks of files end with the process, so nothing has to be cleaned up.
static RESERVED: Mutex<Vec<File>> = Mutex::new(Vec::new());

/// A port of 127.0.0.1 that nothing listens on, and that no other caller on this machine gets while this process runs.
///
/// Asking the operating system for port 0 is not enough: Envoy listens with `SO_REUSEPORT`, so two proxies of two
/// tests that got the same number would silently share it.
pub fn free_port() -> Result<u16, LabError> {
    // One folder a user: nobody can write to the folder that another user made.
    let user = std::env::var("USER").unwrap_or_else(|_| "any".to_owned());
    let directory = std::env::temp_dir().join(format!("trimtab-ports-{user}"));
    std::fs::create_dir_all(&directory).map_err(LabError::file(&directory))?;
    let Ok(mut reserved) = RESERVED.lock() else {
        return Err(LabError::NoPort {
            from: FIRST,
            to: END,
        });
    };
    let span = u32::from(END - FIRST);
    // Processes begin at different places, so that they seldom meet.
    let begin = std::process::id()
        .wrapping_mul(97)
        .wrapping_add(u32::try_from(reserved.len()).unwrap_or(0));
    for step in 0..span {
        let offset = u16::try_from(begin.wrapping_add(step) % span).unwrap_or(0);
        let port = FIRST + offset;
        // A file that cannot be opened belongs to somebody else, and so does its port.
        let Ok(file) = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(directory.join(port.to_string()))
        else {
            continue;
        };
        if file.try_lock().is_ok() && TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            reserved.push(file);
            return Ok(port);
        }
    }
    Err(LabError::NoPort {
        from: FIRST,
        to: END,
    })
}

/// [`free_port`] as an address.
pub fn free_address() -> Result<SocketAddr, LabError> {
    Ok(loopback(free_port()?))
}

/// A port of 127.0.0.1 as an address.
pub fn loopback(port: u16) -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, port))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_port_is_given_once_although_nobody_listens_yet() {
        let ports: BTreeSet<u16> = (0..50).map(|_| free_port().unwrap()).collect();
        assert_eq!(ports.len(), 50);
        assert!(ports.iter().all(|port| (FIRST..END).contains(port)));
    }

    #[test]
    fn a_port_in_use_is_not_given() {
        let port = free_port().unwrap();
        let _held = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).unwrap();
        assert!((0..100).all(|_| free_port().unwrap() != port));
    }
}
