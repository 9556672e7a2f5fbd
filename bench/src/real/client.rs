//! Clients: independent of each other and of the answers, and gone after the SLO.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout};
use trimtab_lab::http::{KeepAlive, Request};
use trimtab_overload::random::Random;

use super::figures::Second;
use super::schedule::{self, Schedule};
use super::{SLO, capacity};

/// What clients saw.
#[derive(Clone, Debug, Default)]
pub struct Record {
    /// Each second, by when the answer came.
    pub seconds: Vec<Second>,
    /// When an admitted request ended and how long it took, in seconds; those of clients that left took the SLO.
    pub times: Vec<(f64, f64)>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum End {
    Good,
    Late,
    Refused,
    Failed,
}

/// Idle connections by peer.
type Idle = Arc<Mutex<BTreeMap<SocketAddr, Vec<KeepAlive>>>>;

/// Sends requests to `targets` from `begin` on, each to one of them by chance. The same seed gives the same arrivals.
pub async fn run(
    schedule: Schedule,
    targets: Vec<SocketAddr>,
    begin: Instant,
    seed: u64,
) -> Record {
    let record = Arc::new(Mutex::new(Record::default()));
    let idle = Idle::default();
    let request = Arc::new(Request::get("/").header("host", "service"));
    let mut random = Random::new(seed);
    let mut under_way = JoinSet::new();
    let mut t = 0.0;
    loop {
        let load = schedule::at(schedule, t).load * capacity();
        t += random.exponential(1.0 / load.max(0.01));
        if t >= schedule::end(schedule) {
            break;
        }
        let target = targets[random.below(targets.len())];
        sleep_until(begin + Duration::from_secs_f64(t)).await;
        let (idle, request, record) =
            (Arc::clone(&idle), Arc::clone(&request), Arc::clone(&record));
        second(&mut record.lock(), t).offered += 1.0;
        under_way.spawn(async move {
            let sent = Instant::now();
            let end = exchange(&idle, target, &request).await;
            let time = sent.elapsed().min(SLO).as_secs_f64();
            count(&mut record.lock(), begin.elapsed().as_secs_f64(), time, end);
        });
        while under_way.try_join_next().is_some() {}
    }
    while under_way.join_next().await.is_some() {}
    let record = record.lock();
    record.clone()
}

#[allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "seconds of a run"
)]
fn second(record: &mut Record, t: f64) -> &mut Second {
    let index = t as usize;
    if record.seconds.len() <= index {
        record.seconds.resize(index + 1, Second::default());
    }
    &mut record.seconds[index]
}

fn count(record: &mut Record, now: f64, time: f64, end: End) {
    if matches!(end, End::Good | End::Late) {
        record.times.push((now, time));
    }
    let second = second(record, now);
    match end {
        End::Good => second.good += 1.0,
        End::Late => second.late += 1.0,
        End::Refused => second.refused += 1.0,
        End::Failed => second.failed += 1.0,
    }
}

async fn exchange(idle: &Idle, target: SocketAddr, request: &Request) -> End {
    let connection = idle.lock().get_mut(&target).and_then(|connections| {
        connections.retain(|connection| !connection.is_closed());
        connections.pop()
    });
    let answer = timeout(SLO, async {
        let mut connection = match connection {
            Some(connection) => connection,
            None => KeepAlive::connect(target).await?,
        };
        let status = connection.send(request).await?.status;
        Ok::<_, trimtab_lab::LabError>((connection, status))
    });
    // A connection whose answer is not waited for is closed by dropping it.
    let Ok(answer) = answer.await else {
        return End::Late;
    };
    let Ok((connection, status)) = answer else {
        return End::Failed;
    };
    idle.lock().entry(target).or_default().push(connection);
    match status {
        200 => End::Good,
        429 | 503 => End::Refused,
        504 => End::Late,
        _ => End::Failed,
    }
}
