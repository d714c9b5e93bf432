//! Guesses what was meant by a name that is not known.

/// The name that `wrong` is closest to, if it is close enough to be a slip.
pub(super) fn nearest<'a>(
    wrong: &str,
    names: impl IntoIterator<Item = &'a str>,
) -> Option<&'a str> {
    let slips_max = (wrong.chars().count() / 3).max(1);
    names
        .into_iter()
        .map(|name| (distance(wrong, name), name))
        .filter(|(slips, _)| *slips <= slips_max)
        .min()
        .map(|(_, name)| name)
}

/// Edits from one name to the other, without regard to case and to `-` against `_`.
fn distance(a: &str, b: &str) -> usize {
    let plain = |text: &str| -> String {
        let shown = text.chars().take(200);
        shown.map(|c| if c == '-' { '_' } else { c.to_ascii_lowercase() }).collect()
    };
    strsim::levenshtein(&plain(a), &plain(b))
}

#[cfg(test)]
mod tests {
    use super::nearest;

    #[test]
    fn a_slip_is_recognised_and_a_stranger_is_not() {
        let names = ["mqtt_address", "mqtt_username", "http_port"];

        assert_eq!(nearest("mqtt_adress", names), Some("mqtt_address"));
        assert_eq!(nearest("HTTP-PORT", names), Some("http_port"));
        assert_eq!(nearest("colour", names), None);
        assert_eq!(nearest("", names), None);
    }
}
