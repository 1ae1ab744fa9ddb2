//! A field of a merge patch (RFC 7396): absent, `null` or a value are three different wishes.
//!
//! In a form, such a field has `#[serde(default)]`, and to a reader of the API's document it is one
//! that may be null. Parts of a value (the fields of a rate) are patches of their own, as the RFC
//! merges objects.

use serde::{Deserialize, Deserializer};

/// What to do with one field.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Patch<T> {
    /// Leave it: the field was absent.
    #[default]
    Keep,
    /// Take it away: the field was `null`.
    Clear,
    /// Change it.
    Set(T),
}

impl<T> Patch<T> {
    /// The value after the patch, of one that may be absent.
    #[must_use]
    pub fn apply(self, before: Option<T>) -> Option<T> {
        match self {
            Self::Keep => before,
            Self::Clear => None,
            Self::Set(value) => Some(value),
        }
    }

    /// The value after the patch, of one that has a default.
    #[must_use]
    pub fn apply_or(self, before: T, default: T) -> T {
        match self {
            Self::Keep => before,
            Self::Clear => default,
            Self::Set(value) => value,
        }
    }

    /// The wish as a reference.
    #[must_use]
    pub const fn as_ref(&self) -> Patch<&T> {
        match self {
            Self::Keep => Patch::Keep,
            Self::Clear => Patch::Clear,
            Self::Set(value) => Patch::Set(value),
        }
    }

    /// Whether the field was absent.
    #[must_use]
    pub const fn is_keep(&self) -> bool {
        matches!(self, Self::Keep)
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Patch<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Option::deserialize(deserializer).map(|value| value.map_or(Self::Clear, Self::Set))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[derive(Debug, Deserialize)]
    struct Form {
        #[serde(default)]
        field: Patch<u32>,
    }

    fn read(text: &str) -> Patch<u32> {
        serde_json::from_str::<Form>(text).unwrap().field
    }

    #[test]
    fn absent_null_and_a_value_are_three_wishes() {
        assert_eq!(read("{}"), Patch::Keep);
        assert_eq!(read("{\"field\": null}"), Patch::Clear);
        assert_eq!(read("{\"field\": 7}"), Patch::Set(7));
    }

    proptest! {
        #[test]
        fn a_patch_does_what_merging_json_would_do(
            before in any::<Option<u32>>(), patch in any::<Option<Option<u32>>>()
        ) {
            let text = match patch {
                None => "{}".to_owned(),
                Some(None) => "{\"field\": null}".to_owned(),
                Some(Some(value)) => format!("{{\"field\": {value}}}"),
            };
            let wish = read(&text);
            prop_assert_eq!(wish.clone().apply(before), patch.unwrap_or(before));
            prop_assert_eq!(wish.apply_or(1, 0), patch.map_or(1, |value| value.unwrap_or(0)));
        }
    }
}
