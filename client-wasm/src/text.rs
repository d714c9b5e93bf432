//! Text as rows of tokens, for the models that say what comes next.

use std::{error::Error, fmt};

/// The characters that are told apart, by the number of their token.
const ALPHABET: &str = "\n ,.abcdefghijklmnopqrstuvwxyz";

/// A character that has no token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TextError {
    pub line: usize,
    pub character: char,
}

impl fmt::Display for TextError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { line, character } = self;
        write!(f, "line {line}: {character:?} is none of the characters {ALPHABET:?}")
    }
}

impl Error for TextError {}

/// How many tokens there are.
pub fn tokens_of() -> usize {
    ALPHABET.len()
}

/// CSV rows of `window` tokens and the one that follows, one row every `step` characters.
pub fn read_tokens(text: &str, window: usize, step: usize) -> Result<String, TextError> {
    let mut line = 1;
    let mut tokens: Vec<String> = vec![];
    for character in text.chars() {
        let token = ALPHABET.find(character).ok_or(TextError { line, character })?;
        tokens.push(token.to_string());
        line += usize::from(character == '\n');
    }
    let rows = tokens.windows(window.max(1).saturating_add(1)).step_by(step.max(1));
    Ok(rows.map(|row| row.join(",") + "\n").collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_row_is_a_window_and_what_follows_it() {
        assert_eq!(read_tokens("ab,\n", 2, 1).unwrap(), "4,5,2\n5,2,0\n");
        assert_eq!(read_tokens("ab,\n", 1, 2).unwrap(), "4,5\n2,0\n");
        assert_eq!(read_tokens("ab", 2, 1).unwrap(), "");
        assert_eq!(tokens_of(), 30);
    }

    #[test]
    fn a_character_without_a_token_is_named_with_its_line() {
        let said = read_tokens("a\nb\nC", 1, 1).unwrap_err().to_string();
        assert!(said.starts_with("line 3: 'C' is none of"), "{said}");
    }
}
