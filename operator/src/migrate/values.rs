//! The values of the chart, as they come together from several places.

use serde_json::{Map, Value};

/// Values by path.
#[derive(Debug, Default)]
pub struct Values(Map<String, Value>);

impl Values {
    /// Sets the value at `a.b.c`. False: there is another one already, which stays.
    pub fn set(&mut self, path: &str, value: Value) -> bool {
        let mut keys: Vec<&str> = path.split('.').collect();
        let last = keys.pop().unwrap_or_default();
        let mut at = &mut self.0;
        for key in keys {
            let entry = at.entry(key).or_insert_with(|| Value::Object(Map::new()));
            match entry {
                Value::Object(inner) => at = inner,
                _ => return false,
            }
        }
        match at.get(last) {
            None => {
                at.insert(last.to_owned(), value);
                true
            }
            Some(there) => *there == value,
        }
    }

    /// The value at `a.b.c`.
    pub fn get(&self, path: &str) -> Option<&Value> {
        let mut keys = path.split('.');
        let first = self.0.get(keys.next()?)?;
        keys.try_fold(first, |at, key| at.get(key))
    }

    /// All of them.
    pub fn into_value(self) -> Value {
        Value::Object(self.0)
    }
}
