//! Ports that only the leader serves: what arrives there is kept in memory and must arrive where it is written from.

use std::fmt::Display;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::admission::WriteAdmission;

/// Pause after a connection that could not be taken.
const PAUSE: Duration = Duration::from_millis(100);

/// Runs `serve` with the listener for as long as this replica leads, and again when it leads again. Its connections end with
/// the lease, so that clients go to the new leader. Meanwhile those that come are closed at once. Ends when `serve` ends
/// before its token is cancelled, or at shutdown.
pub async fn while_leading<E: Display, F: Future<Output = Result<(), E>>>(
    listener: TcpListener,
    admission: WriteAdmission,
    shutdown: CancellationToken,
    serve: impl Fn(TcpListener, CancellationToken) -> F,
) -> Result<(), String> {
    let failed = |error: E| format!("{error:#}");
    if !admission.is_elected() {
        return serve(listener, shutdown).await.map_err(failed);
    }
    let listener = listener.into_std().map_err(unusable)?;
    let again = || {
        let listener = listener.try_clone();
        listener.and_then(TcpListener::from_std).map_err(unusable)
    };
    while !shutdown.is_cancelled() {
        let turned_away = again()?;
        tokio::select! {
            () = shutdown.cancelled() => return Ok(()),
            () = admission.led() => {}
            () = turn_away(&turned_away) => {}
        }
        drop(turned_away);
        let term = shutdown.child_token();
        let serving = serve(again()?, term.clone());
        let mut serving = std::pin::pin!(serving);
        tokio::select! {
            ended = serving.as_mut() => return ended.map_err(failed),
            () = admission.deposed() => term.cancel(),
        }
        serving.await.map_err(failed)?;
    }
    Ok(())
}

#[expect(clippy::needless_pass_by_value, reason = "for map_err")]
fn unusable(error: std::io::Error) -> String {
    format!("the listener cannot be used again: {error}")
}

async fn turn_away(listener: &TcpListener) {
    loop {
        if listener.accept().await.is_err() {
            // For example, too many open files: connections wait in the queue of the kernel.
            tokio::time::sleep(PAUSE).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpStream;
    use tokio::sync::watch;

    use super::*;
    use crate::clock::ManualClock;
    use crate::lease::{Leadership, Timing};

    /// Greets each connection and keeps it until the term ends.
    async fn greet(listener: TcpListener, term: CancellationToken) -> Result<(), String> {
        let mut open = Vec::new();
        loop {
            tokio::select! {
                () = term.cancelled() => return Ok(()),
                Ok((mut stream, _)) = listener.accept() => {
                    stream.write_all(b"x").await.map_err(|e| e.to_string())?;
                    open.push(stream);
                }
            }
        }
    }

    #[tokio::test]
    async fn connections_end_with_the_lease() {
        let (sender, receiver) = watch::channel(None);
        let clock = Arc::new(ManualClock::default());
        let admission = WriteAdmission::elected(receiver, &Timing::default(), clock);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let stop = CancellationToken::new();
        let serving = tokio::spawn(while_leading(listener, admission, stop.clone(), greet));
        let read = |stream: TcpStream| async move {
            let (mut stream, mut byte) = (stream, [0]);
            let read = stream.read(&mut byte).await.unwrap_or_default();
            (stream, read)
        };
        let connect = || TcpStream::connect(address);
        assert_eq!(read(connect().await.unwrap()).await.1, 0, "closed at once");
        let leadership = Leadership {
            epoch: 1,
            begin_until: Duration::from_secs(10),
            valid_until: Duration::from_secs(15),
        };
        for _ in 0..2 {
            sender.send_replace(Some(leadership));
            let mut kept = None;
            // The one that turned connections away may have been faster.
            while kept.is_none() {
                let (stream, bytes) = read(connect().await.unwrap()).await;
                kept = (bytes == 1).then_some(stream);
            }
            sender.send_replace(None);
            assert_eq!(read(kept.unwrap()).await.1, 0, "ended with the lease");
        }
        stop.cancel();
        serving.await.unwrap().unwrap();
    }
}
