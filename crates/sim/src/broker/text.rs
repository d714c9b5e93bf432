//! Filters in MQTT's own syntax (MQTT 3.1.1, section 4.7).

/// Whether `topic` is meant by `pattern`.
pub(super) fn matches(pattern: &str, topic: &str) -> bool {
    let wild = pattern.starts_with(['+', '#']);
    if wild && topic.starts_with('$') {
        return false;
    }
    let mut levels = topic.split('/');
    for part in pattern.split('/') {
        match (part, levels.next()) {
            ("#", _) => return true,
            ("+", Some(_)) => {}
            (part, Some(level)) if part == level => {}
            (_, Some(_) | None) => return false,
        }
    }
    levels.next().is_none()
}

#[cfg(test)]
mod tests {
    use super::matches;

    #[test]
    fn filters_match_as_the_standard_has_it() {
        for (pattern, topic) in [
            ("a/b", "a/b"),
            ("a/+", "a/b"),
            ("a/+/c", "a/b/c"),
            ("a/#", "a/b/c"),
            ("a/#", "a"),
            ("#", "a/b"),
            ("+/+", "/a"),
            ("/+", "/a"),
        ] {
            assert!(matches(pattern, topic), "{pattern} {topic}");
        }
        for (pattern, topic) in [
            ("a/b", "a"),
            ("a", "a/b"),
            ("a/+", "a"),
            ("a/+", "a/b/c"),
            ("+", "/a"),
            ("#", "$SYS/x"),
        ] {
            assert!(!matches(pattern, topic), "{pattern} {topic}");
        }
    }
}
