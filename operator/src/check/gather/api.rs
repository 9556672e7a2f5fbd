//! Questions to the API server, each within a time limit, errors in words.

use std::fmt::Debug;
use std::time::Duration;

use kube::Api;
use kube::api::{ListParams, PostParams};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// Time limit of one question.
const LIMIT: Duration = Duration::from_secs(20);
/// Objects of a page of a list.
const PAGE: u32 = 500;

/// An answer in time, its error in words.
pub(super) async fn ask<T>(
    asked: impl Future<Output = Result<T, kube::Error>>,
) -> Result<T, String> {
    match tokio::time::timeout(LIMIT, asked).await {
        Ok(answer) => answer.map_err(|error| words(&error)),
        Err(_) => Err(format!("no answer within {} s", LIMIT.as_secs())),
    }
}

/// As [`ask`]; `None`: the API, or the object, is not there.
pub(super) async fn maybe<T>(
    asked: impl Future<Output = Result<T, kube::Error>>,
) -> Result<Option<T>, String> {
    ask(async {
        match asked.await {
            Ok(answer) => Ok(Some(answer)),
            Err(kube::Error::Api(status)) if status.code == 404 => Ok(None),
            Err(error) => Err(error),
        }
    })
    .await
}

/// Hands all objects of a list to `take`, page by page. False: the API is not there.
pub(super) async fn each<K: Clone + Debug + DeserializeOwned>(
    api: &Api<K>,
    selector: &str,
    mut take: impl FnMut(K),
) -> Result<bool, String> {
    let mut asked = ListParams::default().labels(selector).limit(PAGE);
    loop {
        let Some(page) = maybe(api.list(&asked)).await? else {
            return Ok(false);
        };
        page.items.into_iter().for_each(&mut take);
        match page.metadata.continue_.filter(|token| !token.is_empty()) {
            Some(token) => asked.continue_token = Some(token),
            None => return Ok(true),
        }
    }
}

/// Sends a review, which changes nothing.
pub(super) async fn review<K>(api: &Api<K>, review: &K) -> Result<K, String>
where
    K: Clone + Debug + DeserializeOwned + Serialize,
{
    ask(api.create(&PostParams::default(), review)).await
}

fn words(error: &kube::Error) -> String {
    match error {
        kube::Error::Api(status) => status.message.clone(),
        error => {
            let mut text = error.to_string();
            let mut cause = std::error::Error::source(error);
            while let Some(next) = cause {
                let words = next.to_string();
                if !text.contains(&words) {
                    text = format!("{text}: {words}");
                }
                cause = next.source();
            }
            text
        }
    }
}
