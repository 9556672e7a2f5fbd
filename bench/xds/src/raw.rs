//! The bare socket loop: what the machine can do with one write a stream, without HTTP/2, protobuf or a protocol.
//!
//! A message is its length and its serial number, a byte that says whether it is to be answered, and filler.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};

use crate::fleet::Notes;

/// Length, serial number and the wish for an answer.
const HEAD: usize = 13;
/// Bytes of an answer: as many as an ACK takes.
pub const ANSWER: usize = 90;
/// Between two looks whether all connections are accepted.
const ACCEPTING: Duration = Duration::from_micros(200);

/// A client of the loop.
#[derive(Debug)]
pub struct Raw {
    partial: Vec<u8>,
    /// Answers to be written.
    pub out: Vec<u8>,
    seen: u64,
}

impl Default for Raw {
    fn default() -> Self {
        Self {
            partial: Vec::new(),
            out: Vec::new(),
            seen: u64::MAX,
        }
    }
}

impl Raw {
    /// Takes bytes of the server.
    pub fn take(&mut self, bytes: &[u8], notes: &Notes) {
        let now = Instant::now();
        self.partial.extend_from_slice(bytes);
        let mut at = 0;
        while let Some(head) = self.partial[at..].first_chunk::<HEAD>() {
            let length = u32::from_be_bytes([head[0], head[1], head[2], head[3]]) as usize;
            if self.partial.len() < at + length {
                break;
            }
            let mut serial = [0; 8];
            serial.copy_from_slice(&head[4..12]);
            notes.note(u64::from_be_bytes(serial), now, false, &mut self.seen);
            if head[12] != 0 {
                self.out.extend_from_slice(&[0; ANSWER]);
            }
            at += length;
        }
        self.partial.drain(..at);
    }
}

/// The server: `set` writes a message to each connection, `say` reads an answer from each besides.
pub fn serve() -> Result<()> {
    let listener = TcpListener::bind(("127.0.0.1", 0)).context("no port on loopback")?;
    println!("ready {}", listener.local_addr()?.port());
    let connections: Arc<Mutex<Vec<TcpStream>>> = Arc::default();
    let all = Arc::clone(&connections);
    std::thread::spawn(move || {
        for connection in listener.incoming().flatten() {
            // A socket without it still works.
            let _ = connection.set_nodelay(true);
            let mut all = all.lock().unwrap_or_else(PoisonError::into_inner);
            all.push(connection);
        }
    });
    for line in std::io::stdin().lines() {
        let line = line?;
        let words: Vec<&str> = line.split(' ').collect();
        let lock = || connections.lock().unwrap_or_else(PoisonError::into_inner);
        match words.as_slice() {
            [verb @ ("set" | "say"), _, serial, size] => {
                let message = message(serial.parse()?, size.parse()?, *verb == "say")?;
                fan_out(&mut lock(), &message, *verb == "say")?;
            }
            // A connection is there for its client before it is for us.
            ["accepted", count] => {
                let count: usize = count.parse()?;
                while lock().len() < count {
                    std::thread::sleep(ACCEPTING);
                }
            }
            ["forget"] => lock().clear(),
            _ => {}
        }
        println!("ok");
    }
    Ok(())
}

fn message(serial: u64, size: usize, answered: bool) -> Result<Vec<u8>> {
    let mut message = vec![0; size.max(HEAD)];
    let length = u32::try_from(message.len())?;
    message[..4].copy_from_slice(&length.to_be_bytes());
    message[4..12].copy_from_slice(&serial.to_be_bytes());
    message[12] = u8::from(answered);
    Ok(message)
}

fn fan_out(connections: &mut [TcpStream], message: &[u8], answered: bool) -> Result<()> {
    for connection in &mut *connections {
        connection.write_all(message)?;
    }
    if answered {
        for connection in connections {
            connection.read_exact(&mut [0; ANSWER])?;
        }
    }
    Ok(())
}
