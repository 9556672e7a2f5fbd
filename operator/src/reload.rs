//! Changes of the configuration file while the operator runs.
//!
//! The section `lazyload` is taken over at once, but for its addresses; another section that changes is reported, and
//! needs a restart. A file that cannot be read or is refused changes nothing.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use trimtab_lazyload::engine::Engine;

use crate::config::Config;

/// How often the file is looked at. Kubernetes brings changes of a ConfigMap within about a minute.
const POLL: Duration = Duration::from_secs(2);

/// Follows the file until shutdown.
pub async fn follow(
    file: PathBuf,
    mut current: Config,
    engine: Arc<Engine>,
    shutdown: CancellationToken,
) {
    let mut seen = tokio::fs::read(&file).await.ok();
    loop {
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = tokio::time::sleep(POLL) => {}
        }
        let text = tokio::fs::read(&file).await.ok();
        if text.is_none() || text == seen {
            continue;
        }
        seen = text;
        match Config::load(&file) {
            Ok(new) => {
                take_over(&current, &new, &engine);
                current = new;
            }
            Err(error) => {
                tracing::warn!(
                    error = format!("{error:#}"),
                    "the changed configuration is refused; what was in force stays"
                );
            }
        }
    }
}

fn take_over(old: &Config, new: &Config, engine: &Engine) {
    if old.lazyload != new.lazyload {
        tracing::info!("lazyload: the changed configuration is in force");
        engine.reconfigure(Arc::new(new.lazyload.clone()));
    }
    let (a, b) = (&old.lazyload, &new.lazyload);
    let fixed = (a.enabled, &a.learn, &a.retention, &a.domain)
        != (b.enabled, &b.learn, &b.retention, &b.domain);
    let rest = |config: &Config| Config {
        lazyload: <_>::default(),
        in_cluster: false,
        data_plane: None,
        file: None,
        ..config.clone()
    };
    if fixed || rest(old) != rest(new) {
        tracing::warn!(
            "parts of the configuration need a restart: everything but lazyload, and its enabled, domain, learn and retention"
        );
    }
}

#[cfg(test)]
mod tests {
    use trimtab_crds::fence::Mode;
    use trimtab_kit::clock::SystemClock;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_is_refused_leaves_in_force_what_was() {
        let dir = std::env::temp_dir().join(format!("trimtab-reload-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let file = dir.join("config.yaml");
        std::fs::write(&file, "{}").unwrap();
        let config = Config::load(&file).unwrap();
        let engine = Engine::new(
            Arc::new(config.lazyload.clone()),
            Arc::new(SystemClock::new()),
        );
        let stop = CancellationToken::new();
        let following = follow(file.clone(), config, engine.clone(), stop.clone());
        let following = tokio::spawn(following);
        tokio::time::sleep(POLL * 2).await;
        for (text, wanted) in [
            ("fallback: {wormholePort: ['15081']}", Mode::Enforce),
            ("fallback: {proxyVersion: '('}", Mode::Enforce),
            ("fallback: {proxyVersion: '1[.]3.*'}", Mode::Observe),
        ] {
            std::fs::write(&file, format!("lazyload: {{mode: Observe, {text}}}")).unwrap();
            tokio::time::sleep(POLL * 3).await;
            assert_eq!(engine.config().mode, wanted, "{text}");
        }
        stop.cancel();
        following.await.unwrap();
        std::fs::remove_dir_all(&dir).unwrap();
    }
}
