//! Tokens: how a value not known yet, or a secret, appears inside a string.
//!
//! Rhai's interpolation always makes a plain string, so a handle prints as a token of private-use
//! characters: U+E000, digits of an index and a checksum as U+E010 to U+E01F, U+E001. Arguments are parsed back
//! into templates. Every character of a token is private, so that any piece a string function cuts out of
//! one is noticed wherever it is compared or used.

use std::fmt::Write as _;
use std::sync::Arc;

use smol_str::SmolStr;

use crate::digest::sha256_hex;
use crate::value::{Part, Reference, Value};

const OPEN: char = '\u{E000}';
const CLOSE: char = '\u{E001}';
const DIGIT_ZERO: u32 = 0xE010;
const CHECKSUM_DIGITS: usize = 8;

/// What a token stands for.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Meaning {
    /// A value known later.
    Deferred(Arc<Reference>),
    /// A secret's name.
    Secret(SmolStr),
}

impl Meaning {
    /// The text a person sees in its place.
    pub(super) fn shown(&self) -> String {
        match self {
            Self::Deferred(reference) => format!("${{{reference}}}"),
            Self::Secret(name) => format!("(secret {name})"),
        }
    }
}

/// The tokens of one evaluation.
#[derive(Debug, Default)]
pub(super) struct Tokens(Vec<Meaning>);

/// Why a string with private characters cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Damage {
    /// A token is not whole.
    Cut,
}

/// Whether a character belongs to tokens; scripts and inputs must not hold any.
pub(super) const fn is_private(c: char) -> bool {
    matches!(c, '\u{E000}'..='\u{E0FF}')
}

/// Whether a text holds a character of tokens.
pub(super) fn has_private(text: &str) -> bool {
    // All of them are three bytes that begin with 0xEE and 0x80..=0x83; most texts have no 0xEE at all.
    text.as_bytes().contains(&0xEE) && text.chars().any(is_private)
}

fn checksum(index: usize, meaning: &Meaning) -> String {
    sha256_hex(format!("{index}{}", meaning.shown()).as_bytes())[..CHECKSUM_DIGITS].to_owned()
}

impl Tokens {
    /// The token for a meaning.
    pub(super) fn token(&mut self, meaning: &Meaning) -> String {
        let index = self.0.iter().rposition(|known| known == meaning).unwrap_or_else(|| {
            self.0.push(meaning.clone());
            self.0.len() - 1
        });
        let mut text = String::from(OPEN);
        for digit in format!("{index:x}").chars().chain(checksum(index, meaning).chars()) {
            let value = digit.to_digit(16).unwrap_or_default();
            text.push(char::from_u32(DIGIT_ZERO + value).unwrap_or(CLOSE));
        }
        text.push(CLOSE);
        text
    }

    fn read(&self, digits: &str) -> Option<&Meaning> {
        let mut hex = String::with_capacity(digits.len());
        for c in digits.chars() {
            let value = (c as u32).checked_sub(DIGIT_ZERO).filter(|value| *value < 16)?;
            write!(hex, "{value:x}").ok()?;
        }
        let split = hex.len().checked_sub(CHECKSUM_DIGITS)?;
        let index = usize::from_str_radix(&hex[..split], 16).ok()?;
        let meaning = self.0.get(index)?;
        (checksum(index, meaning) == hex[split..]).then_some(meaning)
    }

    /// Splits a text into literal pieces and meanings.
    ///
    /// # Errors
    /// When a token is damaged.
    pub(super) fn split<'a>(&'a self, text: &'a str) -> Result<Vec<Piece<'a>>, Damage> {
        let mut pieces = Vec::new();
        let mut rest = text;
        while let Some(start) = rest.find(OPEN) {
            let (before, from) = rest.split_at(start);
            let inside = &from[OPEN.len_utf8()..];
            let end = inside.find(CLOSE).ok_or(Damage::Cut)?;
            if !before.is_empty() {
                pieces.push(Piece::Text(before));
            }
            pieces.push(Piece::Token(self.read(&inside[..end]).ok_or(Damage::Cut)?));
            rest = &inside[end + CLOSE.len_utf8()..];
        }
        if !rest.is_empty() {
            pieces.push(Piece::Text(rest));
        }
        let stray = |piece: &Piece<'_>| matches!(piece, Piece::Text(text) if has_private(text));
        if pieces.iter().any(stray) { Err(Damage::Cut) } else { Ok(pieces) }
    }

    /// The first meaning in a text, for messages.
    pub(super) fn first(&self, text: &str) -> Option<&Meaning> {
        let start = text.find(OPEN)?;
        let inside = &text[start + OPEN.len_utf8()..];
        self.read(&inside[..inside.find(CLOSE)?])
    }

    /// The text as a person should see it.
    pub(super) fn readable(&self, text: &str) -> String {
        match self.split(text) {
            Ok(pieces) => pieces
                .iter()
                .map(|piece| match piece {
                    Piece::Text(text) => (*text).to_owned(),
                    Piece::Token(meaning) => meaning.shown(),
                })
                .collect(),
            Err(Damage::Cut) => text.chars().map(|c| if is_private(c) { '?' } else { c }).collect(),
        }
    }
}

/// A piece of a text.
#[derive(Debug, PartialEq)]
pub(super) enum Piece<'a> {
    /// Literal text.
    Text(&'a str),
    /// A token.
    Token(&'a Meaning),
}

/// A template value of pieces that hold no secret; `Err` is the secret's name.
pub(super) fn template(pieces: &[Piece<'_>]) -> Result<Value, SmolStr> {
    let parts: Result<Vec<Part>, SmolStr> = pieces
        .iter()
        .map(|piece| match piece {
            Piece::Text(text) => Ok(Part::Text((*text).into())),
            Piece::Token(Meaning::Deferred(reference)) => Ok(Part::Ref(Arc::clone(reference))),
            Piece::Token(Meaning::Secret(name)) => Err(name.clone()),
        })
        .collect();
    Ok(Value::Template(parts?.into()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn reference(text: &str) -> Meaning {
        Meaning::Deferred(Arc::new(text.parse().unwrap()))
    }

    #[test]
    fn tokens_read_back_between_text() {
        let mut tokens = Tokens::default();
        let (a, b) = (reference("import_ami.a#image_id"), reference("import_ami.b#image_id"));
        let text = format!("x-{}{}-y", tokens.token(&a), tokens.token(&b));
        assert_eq!(
            tokens.split(&text).unwrap(),
            [Piece::Text("x-"), Piece::Token(&a), Piece::Token(&b), Piece::Text("-y")]
        );
        assert_eq!(tokens.readable(&text), "x-${import_ami.a#image_id}${import_ami.b#image_id}-y");
    }

    proptest! {
        /// Any real cut through a token, and any single changed character of one, is noticed.
        #[test]
        fn a_piece_of_a_token_never_passes(from in 0usize..12, to in 0usize..12, swap in 0usize..11) {
            let mut tokens = Tokens::default();
            let token = tokens.token(&reference("import_ami.a#image_id"));
            let chars: Vec<char> = token.chars().collect();
            let (from, to) = (from.min(chars.len()), to.min(chars.len()));
            if from < to && to - from < chars.len() {
                let piece: String = chars[from..to].iter().collect();
                prop_assert!(has_private(&piece));
                prop_assert_eq!(tokens.split(&piece), Err(Damage::Cut));
            }
            let mut changed = chars.clone();
            let at = swap.min(changed.len() - 1);
            changed[at] = if changed[at] == '\u{E010}' { '\u{E011}' } else { '\u{E010}' };
            if changed != chars {
                let text: String = changed.into_iter().collect();
                prop_assert_eq!(tokens.split(&text), Err(Damage::Cut));
            }
        }
    }
}
