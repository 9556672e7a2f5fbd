//! Numbers that protobuf JSON writes as text: Slime takes both.

use serde::de::{DeserializeOwned, Error};
use serde::{Deserialize, Deserializer};
use serde_json::Value;

/// A number, also as a text of digits; null as if it were left out.
pub(crate) fn number_or_text<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: DeserializeOwned + Default,
{
    let mut value = Value::deserialize(deserializer)?;
    if value.is_null() {
        return Ok(T::default());
    }
    let number = value
        .as_str()
        .and_then(|text| text.trim().parse::<i64>().ok());
    if let Some(number) = number {
        value = number.into();
    }
    serde_json::from_value(value).map_err(D::Error::custom)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use crate::limiter::{FillInterval, Target};

    #[test]
    fn fault_l9_numbers_as_text_are_numbers() {
        let read = |value: Value| serde_json::from_value::<FillInterval>(value).unwrap();
        let wanted = FillInterval {
            seconds: 60,
            nanos: 5,
        };
        assert_eq!(read(json!({"seconds": "60", "nanos": "5"})), wanted);
        assert_eq!(read(json!({"seconds": 60, "nanos": 5})), wanted);
        let left_out = json!({"seconds": 60, "nanos": null});
        assert_eq!(read(left_out).nanos, 0);
        assert!(serde_json::from_value::<FillInterval>(json!({"seconds": "1m"})).is_err());
        assert!(serde_json::from_value::<FillInterval>(json!({"seconds": 1.5})).is_err());
        let target: Target = serde_json::from_value(json!({"port": "80"})).unwrap();
        assert_eq!(target.port, Some(80));
        let target: Target = serde_json::from_value(json!({"port": null})).unwrap();
        assert_eq!(target.port, None);
    }
}
