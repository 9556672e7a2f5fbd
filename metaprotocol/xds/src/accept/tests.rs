//! Real sockets.

use futures::StreamExt as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::time::Instant;

use super::*;

fn bounds(connections: usize, full: Full) -> Bounds {
    Bounds {
        connections,
        full,
        greeting: 16,
        first_bytes: Duration::from_secs(10),
        idle: Duration::from_secs(60),
    }
}

/// A port whose connections are echoed.
async fn echo(bounds: Bounds) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let port = Port::new("test", bounds, None);
        let mut incoming = incoming(listener, port, CancellationToken::new());
        while let Some(Ok(mut connection)) = incoming.next().await {
            tokio::spawn(async move {
                let mut bytes = [0; 64];
                while let Ok(count @ 1..) = connection.read(&mut bytes).await {
                    connection.write_all(&bytes[..count]).await.unwrap();
                }
            });
        }
    });
    address
}

async fn open(address: SocketAddr) -> TcpStream {
    TcpStream::connect(address).await.unwrap()
}

async fn says(stream: &mut TcpStream, text: &[u8]) -> bool {
    let mut back = vec![0; text.len()];
    stream.write_all(text).await.is_ok() && stream.read_exact(&mut back).await.is_ok()
}

/// Ended by the other side: with an end, or with a reset.
async fn ended(stream: &mut TcpStream) -> bool {
    !matches!(stream.read(&mut [0; 64]).await, Ok(1..))
}

const WORDS: &[u8] = b"sixteen bytes or more";

#[tokio::test]
async fn fault_t13_a_full_port_closes_who_waited_longest() {
    let address = echo(bounds(3, Full::CloseOldest)).await;
    let mut first = open(address).await;
    assert!(says(&mut first, WORDS).await);
    let mut silent = open(address).await;
    let mut third = open(address).await;
    assert!(says(&mut third, WORDS).await);
    assert!(says(&mut first, WORDS).await, "served last");
    let mut probe = open(address).await;
    assert!(says(&mut probe, WORDS).await);
    assert!(ended(&mut silent).await);
    let mut another = open(address).await;
    assert!(says(&mut another, WORDS).await);
    assert!(ended(&mut third).await);
    assert!(says(&mut first, WORDS).await);
}

#[tokio::test]
async fn fault_t13_a_full_port_of_streams_keeps_those_it_has() {
    let address = echo(bounds(2, Full::Refuse)).await;
    let mut kept = [open(address).await, open(address).await];
    for stream in &mut kept {
        assert!(says(stream, WORDS).await);
    }
    assert!(ended(&mut open(address).await).await);
    for stream in &mut kept {
        assert!(says(stream, WORDS).await);
    }
    let [gone, _kept] = kept;
    drop(gone);
    // Its place is free as soon as its end was seen.
    let mut next = open(address).await;
    for _ in 0..1000 {
        if says(&mut next, WORDS).await {
            return;
        }
        tokio::task::yield_now().await;
        next = open(address).await;
    }
    panic!("the place is not free");
}

#[tokio::test]
async fn fault_t13_who_says_nothing_is_closed() {
    let address = echo(bounds(9, Full::Refuse)).await;
    let begun = Instant::now();
    let mut dumb = open(address).await;
    let mut slow = open(address).await;
    let mut talks = open(address).await;
    assert!(says(&mut slow, b"few").await);
    assert!(says(&mut talks, WORDS).await);
    // From here on only timers are waited for.
    tokio::time::pause();
    assert!(ended(&mut dumb).await);
    assert!(ended(&mut slow).await);
    assert_eq!(begun.elapsed().as_secs(), 10);
    assert!(ended(&mut talks).await);
    assert_eq!(begun.elapsed().as_secs(), 60);
}

#[test]
fn fault_t13_an_address_has_a_part_of_the_places() {
    let table = Table::new(&bounds(8, Full::CloseOldest));
    let stranger = "10.0.0.9".parse().unwrap();
    let mut slots = vec![
        table.enter(stranger).unwrap(),
        table.enter(stranger).unwrap(),
    ];
    assert!(table.enter(stranger).is_none(), "a quarter is all");
    let mapped = "::ffff:10.0.0.9".parse().unwrap();
    assert!(table.enter(mapped).is_none(), "the same address");
    let here = "::ffff:127.0.0.1".parse().unwrap();
    slots.extend((0..6).map(|_| table.enter(here).unwrap()));
    assert_eq!(table.len(), 8);
    slots.push(table.enter(here).unwrap());
    assert!(slots[0].close.is_cancelled(), "the oldest");
    assert_eq!(table.len(), 8);
    drop(slots);
    assert_eq!(table.len(), 0);
    assert!(table.enter(stranger).is_some());
}

#[test]
fn fault_t13_a_full_table_of_streams_refuses_and_a_place_is_given_back() {
    let table = Table::new(&bounds(8, Full::Refuse));
    let here = "127.0.0.1".parse().unwrap();
    let mut slots: Vec<Slot> = std::iter::from_fn(|| table.enter(here)).collect();
    assert_eq!(slots.len(), 8);
    assert!(table.enter("10.0.0.2".parse().unwrap()).is_none());
    slots.pop();
    assert!(table.enter("10.0.0.2".parse().unwrap()).is_some());
}
