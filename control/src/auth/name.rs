//! Names of users as they come from outside, brought into the form that the store has.
//!
//! One place for all doors, so that `Ann` of a certificate, a token and a web page are one user.

/// Most characters of a name, as the store has it.
pub const NAME_MAX: usize = 64;

/// `name` in lower case, if it can be one: 1 to 64 of `a-z 0-9 . _ @ -`.
#[must_use]
pub fn checked(name: &str) -> Option<String> {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '@' | '-');
    let is_name = (1..=NAME_MAX).contains(&name.len()) && name.chars().all(is_plain);
    is_name.then(|| name.to_ascii_lowercase())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_plain_and_in_lower_case() {
        assert_eq!(checked("Ann.Smith@Example.org").as_deref(), Some("ann.smith@example.org"));
        let long = "a".repeat(65);
        for no_name in ["", " ann", "ann\n", "änn", "a/b", "a:b", &long] {
            assert_eq!(checked(no_name), None, "{no_name}");
        }
    }
}
