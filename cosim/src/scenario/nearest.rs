//! The nearest known word to a misspelt one.

/// `; did you mean ...?`, or nothing if no known word is near.
pub(super) fn suggestion<'a>(word: &str, known: impl Iterator<Item = &'a str>) -> String {
    let nearest = known.map(|it| (strsim::levenshtein(word, it), it)).min();
    match nearest {
        Some((far, it)) if far <= 1 + word.len() / 3 => format!("; did you mean `{it}`?"),
        Some(_) | None => String::new(),
    }
}
