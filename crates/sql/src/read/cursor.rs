//! A statement's tokens, read from the left: what every part of the reader walks with.

use crate::ident::Ident;
use crate::lex::{Kind, Token};

/// Tokens not read yet. Copying one looks ahead.
#[derive(Clone, Copy)]
pub(crate) struct Cursor<'a> {
    pub(crate) text: &'a [u8],
    pub(crate) tokens: &'a [Token],
}

impl<'a> Cursor<'a> {
    pub(crate) fn new(text: &'a [u8], tokens: &'a [Token]) -> Self {
        Self { text, tokens }
    }

    pub(crate) fn is_done(&self) -> bool {
        self.tokens.is_empty()
    }

    pub(crate) fn peek(&self) -> Option<Token> {
        self.tokens.first().copied()
    }

    pub(crate) fn kind(&self) -> Option<Kind> {
        self.peek().map(|token| token.kind)
    }

    pub(crate) fn kind_at(&self, index: usize) -> Option<Kind> {
        self.tokens.get(index).map(|token| token.kind)
    }

    pub(crate) fn bump(&mut self) -> Option<Token> {
        let (first, rest) = self.tokens.split_first()?;
        self.tokens = rest;
        Some(*first)
    }

    /// Whether the token at `index` is this keyword (lower case).
    pub(crate) fn is_at(&self, index: usize, word: &str) -> bool {
        self.tokens.get(index).is_some_and(|token| is_word(self.text, *token, word))
    }

    pub(crate) fn is(&self, word: &str) -> bool {
        self.is_at(0, word)
    }

    pub(crate) fn is_any(&self, words: &[&str]) -> bool {
        words.iter().any(|word| self.is(word))
    }

    /// Takes this keyword if it is next.
    pub(crate) fn eat(&mut self, word: &str) -> bool {
        let is = self.is(word);
        if is {
            self.bump();
        }
        is
    }

    /// Takes these keywords if all of them are next.
    pub(crate) fn eat_all(&mut self, words: &[&str]) -> bool {
        let are = words.iter().enumerate().all(|(index, word)| self.is_at(index, word));
        if are {
            self.tokens = self.tokens.get(words.len()..).unwrap_or_default();
        }
        are
    }

    pub(crate) fn eat_kind(&mut self, kind: Kind) -> bool {
        let is = self.kind() == Some(kind);
        if is {
            self.bump();
        }
        is
    }

    /// Takes an operator spelt like this.
    pub(crate) fn eat_operator(&mut self, operator: &[u8]) -> bool {
        let is = self.peek().is_some_and(|token| token.kind == Kind::Op && token.of(self.text) == operator);
        if is {
            self.bump();
        }
        is
    }

    /// Takes a name. One with Unicode escapes is none: it would have to be resolved first.
    pub(crate) fn name(&mut self) -> Option<Ident> {
        let token = self.peek().filter(|token| token.kind != Kind::QuotedUnicode)?;
        let ident = Ident::of(self.text, token)?;
        self.bump();
        Some(ident)
    }

    /// Takes a bracket that is next and all up to its partner; gives what is between.
    pub(crate) fn parenthesised(&mut self) -> Option<Cursor<'a>> {
        let mut depth = 0_usize;
        if self.kind() != Some(Kind::Open) {
            return None;
        }
        for (index, token) in self.tokens.iter().enumerate() {
            match token.kind {
                Kind::Open => depth += 1,
                Kind::Close => depth -= 1,
                _ => {}
            }
            if depth == 0 {
                let inner = self.tokens.get(1..index).unwrap_or_default();
                self.tokens = self.tokens.get(index + 1..).unwrap_or_default();
                return Some(Cursor::new(self.text, inner));
            }
        }
        None
    }

    /// Takes all up to the next token at this nesting for which `ends` holds, which stays; gives what was taken.
    pub(crate) fn until(&mut self, ends: impl Fn(&Cursor<'a>) -> bool) -> Cursor<'a> {
        let start = *self;
        let mut depth = 0_usize;
        while let Some(kind) = self.kind() {
            if depth == 0 && ends(self) {
                break;
            }
            match kind {
                Kind::Open | Kind::OpenBracket => depth += 1,
                Kind::Close | Kind::CloseBracket => depth = depth.saturating_sub(1),
                _ => {}
            }
            self.bump();
        }
        let taken = start.tokens.len() - self.tokens.len();
        Cursor::new(self.text, start.tokens.get(..taken).unwrap_or_default())
    }
}

pub(crate) fn is_word(text: &[u8], token: Token, word: &str) -> bool {
    token.kind == Kind::Word && token.of(text).eq_ignore_ascii_case(word.as_bytes())
}
