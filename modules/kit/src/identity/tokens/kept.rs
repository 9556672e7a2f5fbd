//! Answers that are kept for a while. Those about good tokens have a place of their own, which no junk takes from them.

use std::collections::HashMap;
use std::time::Duration;

use trimtab_xds::Authenticated;

/// A digest of a token: tokens themselves are not kept.
pub(super) type Digest = [u8; 32];
pub(super) type Answer = Result<Authenticated, String>;

/// How long an answer is used again. A deleted ServiceAccount keeps its access for this long.
const KEEP: Duration = Duration::from_secs(60);
/// The same for a refusal.
const KEEP_REFUSAL: Duration = Duration::from_secs(10);
/// Good tokens that are kept.
const MOST: usize = 20_000;
/// The same for refusals.
const MOST_REFUSALS: usize = 1_000;
/// When all places are taken by what still counts, one part of this many is given up.
const GIVEN_UP: usize = 8;

#[derive(Default)]
pub(super) struct Kept {
    good: HashMap<Digest, (Duration, Authenticated)>,
    refused: HashMap<Digest, (Duration, String)>,
}

impl Kept {
    pub(super) fn get(&self, token: &Digest, now: Duration) -> Option<Answer> {
        let good = self.good.get(token).filter(|(until, _)| now < *until);
        if let Some((_, good)) = good {
            return Some(Ok(good.clone()));
        }
        let refused = self.refused.get(token).filter(|(until, _)| now < *until);
        refused.map(|(_, why)| Err(why.clone()))
    }

    pub(super) fn put(&mut self, token: Digest, answer: &Answer, now: Duration) {
        match answer {
            Ok(good) => {
                make_room(&mut self.good, MOST, now);
                self.good.insert(token, (now + KEEP, good.clone()));
                self.refused.remove(&token);
            }
            Err(why) => {
                make_room(&mut self.refused, MOST_REFUSALS, now);
                self.refused
                    .insert(token, (now + KEEP_REFUSAL, why.clone()));
                self.good.remove(&token);
            }
        }
    }
}

fn make_room<T>(kept: &mut HashMap<Digest, (Duration, T)>, most: usize, now: Duration) {
    if kept.len() < most {
        return;
    }
    kept.retain(|_, (until, _)| now < *until);
    if kept.len() < most {
        return;
    }
    let some: Vec<Digest> = kept.keys().take(most / GIVEN_UP).copied().collect();
    for token in some {
        kept.remove(&token);
    }
}

#[cfg(test)]
mod tests {
    use trimtab_xds::SpiffeId;

    use super::*;

    fn digest(number: usize) -> Digest {
        let mut out = [0; 32];
        out[..8].copy_from_slice(&number.to_le_bytes());
        out
    }

    fn good() -> Authenticated {
        Authenticated {
            id: SpiffeId::parse("spiffe://cluster.local/ns/shop/sa/cart").unwrap(),
            expires: None,
        }
    }

    #[test]
    fn fault_t8_refusals_push_no_good_answer_out() {
        let (mut kept, now) = (Kept::default(), Duration::ZERO);
        kept.put(digest(0), &Ok(good()), now);
        for number in 1..3 * MOST {
            kept.put(digest(number), &Err("junk".to_owned()), now);
        }
        assert_eq!(kept.get(&digest(0), now), Some(Ok(good())));
        assert!(kept.refused.len() <= MOST_REFUSALS);
        assert!(kept.get(&digest(3 * MOST - 1), now).unwrap().is_err());
        assert_eq!(kept.get(&digest(3 * MOST - 1), KEEP_REFUSAL), None);
        assert_eq!(kept.get(&digest(0), KEEP), None);
    }

    #[test]
    fn more_good_tokens_than_places_are_answered_all_the_same() {
        let (mut kept, now) = (Kept::default(), Duration::ZERO);
        for number in 0..MOST + 10 {
            kept.put(digest(number), &Ok(good()), now);
        }
        assert!(kept.good.len() <= MOST);
        assert_eq!(kept.get(&digest(MOST + 9), now), Some(Ok(good())));
    }
}
