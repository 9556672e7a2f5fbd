//! File work off the runtime: a file system that does not answer holds up a thread of its own and nothing else.

use std::time::Duration;

use tokio::sync::oneshot::{self, Receiver};

/// Work that is done one at a time, on a thread.
#[derive(Debug, Default)]
pub struct Worker<T> {
    running: Option<Receiver<T>>,
}

/// Why there is no result.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoResult {
    /// It takes longer than the bound; it is waited for the next time.
    #[error("no answer for {0:?}: is it on a network file system that is away?")]
    Late(Duration),
    /// The thread ended without one.
    #[error("the thread that does file work ended, see the log")]
    Ended,
}

impl<T: Send + 'static> Worker<T> {
    /// No work.
    pub fn new() -> Self {
        Self { running: None }
    }

    /// Starts `work`, or waits for what was started before and was late.
    pub async fn run(
        &mut self,
        bound: Duration,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, NoResult> {
        let mut running = self.running.take().unwrap_or_else(|| start(work));
        if let Ok(result) = tokio::time::timeout(bound, &mut running).await {
            return result.map_err(|_| NoResult::Ended);
        }
        self.running = Some(running);
        Err(NoResult::Late(bound))
    }
}

/// A thread and none of the runtime's pool: the process does not wait for it at its end.
fn start<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Receiver<T> {
    let (done, result) = oneshot::channel();
    let thread = std::thread::Builder::new().name("files".to_owned());
    let started = thread.spawn(move || {
        let _ = done.send(work());
    });
    if let Err(error) = started {
        tracing::error!(%error, "no thread for file work");
    }
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn fault_o4_work_that_hangs_is_late_and_is_waited_for_again() {
        let (go, wait) = std::sync::mpsc::channel::<()>();
        let mut worker = Worker::new();
        let bound = Duration::from_millis(20);
        let hangs = move || {
            let _ = wait.recv();
            1
        };
        assert_eq!(worker.run(bound, hangs).await, Err(NoResult::Late(bound)));
        assert_eq!(worker.run(bound, || 2).await, Err(NoResult::Late(bound)));
        go.send(()).unwrap();
        let long = Duration::from_secs(60);
        assert_eq!(worker.run(long, || 2).await, Ok(1));
        assert_eq!(worker.run(long, || 2).await, Ok(2));
    }
}
