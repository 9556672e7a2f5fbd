//! Changes of the configuration file while the operator runs.
//!
//! Each module says which keys of its section can change; the rest of the file, and other keys, need a restart, which is
//! reported. A file that cannot be read or is refused changes nothing.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use trimtab_kit::module::Installed;

use crate::config::Config;

/// How often the file is looked at. Kubernetes brings changes of a ConfigMap within about a minute.
const POLL: Duration = Duration::from_secs(2);

/// Follows the file until shutdown.
pub async fn follow(
    file: PathBuf,
    mut current: Config,
    running: Vec<Arc<Installed>>,
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
                take_over(&current, &new, &running);
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

fn take_over(old: &Config, new: &Config, running: &[Arc<Installed>]) {
    let mut fixed: Vec<String> = Vec::new();
    for factory in &old.list {
        let (before, after) = (old.section(factory), new.section(factory));
        if before == after {
            continue;
        }
        let name = factory.name;
        let keys = factory.fixed(before, after);
        fixed.extend(keys.iter().map(|key| format!("{name}.{key}")));
        let Some(module) = running.iter().find(|m| m.name == name) else {
            continue;
        };
        match module.reload(after) {
            Ok(true) => tracing::info!(module = name, "changed configuration is in force"),
            Ok(false) => {}
            Err(error) => tracing::warn!(module = name, %error, "changed configuration is refused"),
        }
    }
    for (name, differs) in [
        ("http", old.http != new.http),
        ("xds", old.xds != new.xds),
        ("metrics", old.metrics != new.metrics),
        ("mesh", old.mesh != new.mesh),
        ("leaderElection", old.leader_election != new.leader_election),
        ("log", old.log != new.log),
    ] {
        if differs {
            fixed.push(name.to_owned());
        }
    }
    if !fixed.is_empty() {
        tracing::warn!(keys = fixed.join(", "), "changed keys need a restart");
    }
}

#[cfg(test)]
mod tests {
    use trimtab_crds::fence::Mode;
    use trimtab_lazyload::engine::Engine;

    use super::*;
    use crate::translate;

    #[tokio::test(start_paused = true)]
    async fn what_is_refused_leaves_in_force_what_was() {
        let dir = std::env::temp_dir().join(format!("trimtab-reload-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let file = dir.join("config.yaml");
        std::fs::write(&file, "{}").unwrap();
        let config = Config::load(&file).unwrap();
        let (pass, _) = translate::pass(&[], &<_>::default(), &config)
            .await
            .unwrap();
        let engine = pass.parts().get::<Engine>().unwrap();
        let stop = CancellationToken::new();
        let modules = pass.modules().to_vec();
        let following = follow(file.clone(), config, modules, stop.clone());
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
