//! As much of HTTP/2 and gRPC as one client stream needs (RFC 9113), so that thousands of clients on one thread do not
//! take the processor away from the server that is measured.

use std::collections::VecDeque;

use anyhow::{Result, bail};

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// Largest frame that every peer takes.
const FRAME: usize = 16_384;
/// Window of RFC 9113 before anything was said.
const WINDOW: i64 = 65_535;
/// The stream of the request.
const STREAM: u32 = 1;

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;
const ACK: u8 = 1;
const END_STREAM: u8 = 1;

/// The state of one connection with one request on it; bytes in, bytes out.
#[derive(Debug, Default)]
pub struct Http2 {
    /// What came and is not a whole frame yet.
    partial: Vec<u8>,
    /// Parts of gRPC messages.
    body: Vec<u8>,
    /// Bytes to write now.
    out: Vec<u8>,
    /// Parts of requests that wait for the window of the server.
    waiting: VecDeque<u8>,
    stream_window: i64,
    connection_window: i64,
    initial_window: i64,
}

fn frame(out: &mut Vec<u8>, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
    let length = u32::try_from(payload.len())
        .unwrap_or(u32::MAX)
        .to_be_bytes();
    out.extend_from_slice(&length[1..]);
    out.extend_from_slice(&[kind, flags]);
    out.extend_from_slice(&stream.to_be_bytes());
    out.extend_from_slice(payload);
}

/// A header as a literal that enters no table (RFC 7541, section 6.2.2); `index` is of the static table.
fn header(out: &mut Vec<u8>, index: u8, value: &str) {
    if index < 15 {
        out.push(index);
    } else {
        out.extend_from_slice(&[15, index - 15]);
    }
    text(out, value);
}

fn text(out: &mut Vec<u8>, value: &str) {
    // All texts here are shorter than the 127 bytes that fit into one byte of length.
    out.push(u8::try_from(value.len()).unwrap_or(126));
    out.extend_from_slice(value.as_bytes());
}

impl Http2 {
    /// Opens the connection and the request; `window` is how many bytes the server may send without being asked.
    pub fn open(path: &str, window: u32) -> Self {
        let mut out = PREFACE.to_vec();
        let mut settings = vec![0, 2, 0, 0, 0, 0, 0, 4];
        settings.extend_from_slice(&window.to_be_bytes());
        frame(&mut out, SETTINGS, 0, 0, &settings);
        let more = window.saturating_sub(65_535);
        if more > 0 {
            frame(&mut out, WINDOW_UPDATE, 0, 0, &more.to_be_bytes());
        }
        // POST and http by their places in the static table.
        let mut headers = vec![0x83, 0x86];
        header(&mut headers, 4, path);
        header(&mut headers, 1, "bench");
        header(&mut headers, 31, "application/grpc");
        headers.push(0);
        text(&mut headers, "te");
        text(&mut headers, "trailers");
        frame(&mut out, HEADERS, 4, STREAM, &headers);
        Self {
            out,
            stream_window: WINDOW,
            connection_window: WINDOW,
            initial_window: WINDOW,
            ..Self::default()
        }
    }

    /// Puts a gRPC message on its way.
    pub fn send(&mut self, message: &[u8]) {
        let length = u32::try_from(message.len()).unwrap_or(u32::MAX);
        self.waiting.push_back(0);
        self.waiting.extend(length.to_be_bytes());
        self.waiting.extend(message);
        self.flush();
    }

    fn flush(&mut self) {
        while !self.waiting.is_empty() {
            let window = self.stream_window.min(self.connection_window).max(0);
            let room = usize::try_from(window).unwrap_or(0).min(FRAME);
            let part: Vec<u8> = self.waiting.drain(..room.min(self.waiting.len())).collect();
            if part.is_empty() {
                return;
            }
            let used = i64::try_from(part.len()).unwrap_or(i64::MAX);
            self.stream_window -= used;
            self.connection_window -= used;
            frame(&mut self.out, DATA, 0, STREAM, &part);
        }
    }

    /// What has to be written; the caller takes away what it wrote.
    pub fn out(&mut self) -> &mut Vec<u8> {
        &mut self.out
    }

    /// Whether all requests are on their way.
    pub fn is_settled(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Allows the server to send so many more bytes.
    pub fn grant(&mut self, bytes: u32) {
        frame(&mut self.out, WINDOW_UPDATE, 0, 0, &bytes.to_be_bytes());
        frame(
            &mut self.out,
            WINDOW_UPDATE,
            0,
            STREAM,
            &bytes.to_be_bytes(),
        );
    }

    /// Takes bytes of the server and calls `message` for each whole gRPC message.
    pub fn take(&mut self, bytes: &[u8], mut message: impl FnMut(&[u8])) -> Result<()> {
        let whole = if self.partial.is_empty() {
            let used = self.frames(bytes, &mut message)?;
            self.partial.extend_from_slice(&bytes[used..]);
            return Ok(());
        } else {
            self.partial.extend_from_slice(bytes);
            std::mem::take(&mut self.partial)
        };
        let used = self.frames(&whole, &mut message)?;
        self.partial.extend_from_slice(&whole[used..]);
        Ok(())
    }

    fn frames(&mut self, bytes: &[u8], message: &mut impl FnMut(&[u8])) -> Result<usize> {
        let mut at = 0;
        while let Some(head) = bytes.get(at..at + 9) {
            let length =
                usize::from(head[0]) << 16 | usize::from(head[1]) << 8 | usize::from(head[2]);
            let Some(payload) = bytes.get(at + 9..at + 9 + length) else {
                break;
            };
            let stream = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
            self.one(head[3], head[4], stream, payload, message)?;
            at += 9 + length;
        }
        Ok(at)
    }

    fn one(
        &mut self,
        kind: u8,
        flags: u8,
        stream: u32,
        payload: &[u8],
        message: &mut impl FnMut(&[u8]),
    ) -> Result<()> {
        match kind {
            DATA => self.data(payload, message),
            HEADERS if flags & END_STREAM != 0 => bail!(
                "the server ended the stream: {}",
                String::from_utf8_lossy(payload)
            ),
            RST_STREAM => bail!("the server reset the stream: {payload:?}"),
            GOAWAY => bail!(
                "the server closes the connection: {}",
                String::from_utf8_lossy(payload)
            ),
            SETTINGS if flags & ACK == 0 => self.settings(payload),
            PING if flags & ACK == 0 => frame(&mut self.out, PING, ACK, 0, payload),
            WINDOW_UPDATE => {
                let more = i64::from(number(payload) & 0x7fff_ffff);
                if stream == 0 {
                    self.connection_window += more;
                } else {
                    self.stream_window += more;
                }
                self.flush();
            }
            _ => {}
        }
        Ok(())
    }

    fn settings(&mut self, payload: &[u8]) {
        for setting in payload.chunks_exact(6) {
            if setting[..2] == [0, 4] {
                let window = i64::from(number(&setting[2..]));
                self.stream_window += window - self.initial_window;
                self.initial_window = window;
            }
        }
        frame(&mut self.out, SETTINGS, ACK, 0, &[]);
        self.flush();
    }

    /// Cuts gRPC messages out of the data; the common case, whole messages in one frame, copies nothing.
    fn data(&mut self, payload: &[u8], message: &mut impl FnMut(&[u8])) {
        if self.body.is_empty() {
            let used = messages(payload, message);
            self.body.extend_from_slice(&payload[used..]);
            return;
        }
        self.body.extend_from_slice(payload);
        let used = messages(&self.body, message);
        self.body.drain(..used);
    }
}

fn messages(bytes: &[u8], message: &mut impl FnMut(&[u8])) -> usize {
    let mut at = 0;
    while let Some(head) = bytes.get(at..at + 5) {
        let length = usize::try_from(number(&head[1..])).unwrap_or(usize::MAX);
        let Some(body) = bytes.get(at + 5..).and_then(|rest| rest.get(..length)) else {
            break;
        };
        message(body);
        at += 5 + length;
    }
    at
}

fn number(bytes: &[u8]) -> u32 {
    bytes
        .iter()
        .take(4)
        .fold(0, |sum, byte| sum << 8 | u32::from(*byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn grpc(body: &[u8]) -> Vec<u8> {
        let mut message = vec![0, 0, 0, 0, u8::try_from(body.len()).unwrap()];
        message.extend_from_slice(body);
        message
    }

    #[test]
    fn messages_are_whole_however_the_bytes_are_cut() {
        let mut bytes = Vec::new();
        let both = [grpc(b"first"), grpc(b"second")].concat();
        frame(&mut bytes, DATA, 0, STREAM, &both[..8]);
        frame(&mut bytes, PING, 0, 0, &[7; 8]);
        frame(&mut bytes, DATA, 0, STREAM, &both[8..]);
        for cut in 0..bytes.len() {
            let mut http = Http2::open("/x", 65_535);
            http.out().clear();
            let mut found = Vec::new();
            for part in [&bytes[..cut], &bytes[cut..]] {
                http.take(part, |m| found.push(m.to_vec())).unwrap();
            }
            assert_eq!(
                found,
                [b"first".to_vec(), b"second".to_vec()],
                "cut at {cut}"
            );
            let mut pong = Vec::new();
            frame(&mut pong, PING, ACK, 0, &[7; 8]);
            assert_eq!(*http.out(), pong);
        }
    }

    #[test]
    fn a_long_request_waits_for_the_window_of_the_server() {
        let mut http = Http2::open("/x", 65_535);
        http.out().clear();
        http.send(&vec![1; 100_000]);
        assert!(http.out().len() < 66_000);
        let mut more = Vec::new();
        for stream in [0, STREAM] {
            frame(
                &mut more,
                WINDOW_UPDATE,
                0,
                stream,
                &100_000_u32.to_be_bytes(),
            );
        }
        http.take(&more, |_| {}).unwrap();
        assert!(http.out().len() > 100_000);
    }

    #[test]
    fn an_end_of_the_stream_is_an_error() {
        let mut bytes = Vec::new();
        frame(&mut bytes, HEADERS, 4 | END_STREAM, STREAM, b"grpc-status");
        assert!(Http2::open("/x", 65_535).take(&bytes, |_| {}).is_err());
    }
}
