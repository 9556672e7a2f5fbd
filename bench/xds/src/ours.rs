//! Trimtab's own server, driven over stdin.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use bytes::Bytes;
use tokio::sync::broadcast::error::RecvError;
use tokio_util::sync::CancellationToken;
use trimtab_xds::{
    Delivery, Limits, Resource, ResourceCache, ServerOptions, content_version, listen, serve_with,
};

use crate::wire::{TYPE, body, name};

fn resource(index: usize, serial: u64, size: usize) -> Resource {
    let body = body(index, serial, size);
    Resource {
        name: name(index),
        version: content_version(&body),
        body: Bytes::from(body),
        origin: String::new(),
    }
}

/// Follows deliveries as the operator does, and counts refusals.
async fn follow(cache: ResourceCache, refusals: Arc<AtomicUsize>) {
    let mut deliveries = cache.deliveries();
    loop {
        match deliveries.recv().await {
            Ok(Delivery::Nacked { .. }) => {
                refusals.fetch_add(1, Ordering::Relaxed);
            }
            Ok(_) | Err(RecvError::Lagged(_)) => {}
            Err(RecvError::Closed) => return,
        }
    }
}

fn obey(cache: &ResourceCache, refusals: &AtomicUsize, line: &str) -> Result<String> {
    let words: Vec<&str> = line.split(' ').collect();
    match words.as_slice() {
        ["fill", count, size] => {
            let (count, size) = (count.parse()?, size.parse()?);
            cache.update(
                TYPE,
                (0..count).map(|i| resource(i, 0, size)).collect(),
                &[],
            );
        }
        ["set", index, serial, size] => {
            let changed = resource(index.parse()?, serial.parse()?, size.parse()?);
            cache.update(TYPE, vec![changed], &[]);
        }
        ["nacks"] => return Ok(format!("ok {}", refusals.load(Ordering::Relaxed))),
        _ => bail!("unknown command '{line}'"),
    }
    Ok("ok".to_owned())
}

/// Serves until stdin ends.
pub fn serve() -> Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    let cache = ResourceCache::new();
    cache.serve_type(TYPE);
    cache.mark_ready();
    let entered = runtime.enter();
    let listener = listen(([127, 0, 0, 1], 0).into()).context("no port on loopback")?;
    drop(entered);
    println!("ready {}", listener.local_addr()?.port());
    let refusals = Arc::new(AtomicUsize::new(0));
    runtime.spawn(follow(cache.clone(), Arc::clone(&refusals)));
    let options = ServerOptions {
        limits: Limits {
            // Room for requests that list all versions.
            message_bytes: 64 << 20,
            // And time to read them, as the peer gives it.
            first_request: Duration::from_secs(600),
            ..Limits::default()
        },
        ..ServerOptions::default()
    };
    runtime.spawn(serve_with(
        cache.clone(),
        listener,
        options,
        CancellationToken::new(),
    ));
    for line in std::io::stdin().lines() {
        println!("{}", obey(&cache, &refusals, &line?)?);
    }
    Ok(())
}
