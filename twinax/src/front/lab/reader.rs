//! Walks a TOML document, and notes each fault with the place where it stands.
//!
//! Knows TOML's shapes and nothing of what a lab is.

use std::{fmt::Display, ops::Range, str::FromStr};

use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

use super::Fault;
use crate::front::spelling::{Misspelt, nearest};

/// Shows control characters, which a key or a value may hold, as escapes.
fn visible(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for c in text.chars() {
        match c.is_control() {
            true => shown.extend(c.escape_default()),
            false => shown.push(c),
        }
    }
    shown
}

pub(super) type Value<'t> = Spanned<DeValue<'t>>;

/// The text and what has been found wrong with it.
pub(super) struct Reader<'a> {
    pub text: &'a str,
    pub faults: &'a mut Vec<Fault>,
}

/// One table, whose keys are known.
pub(super) struct Table<'a, 't> {
    pub entries: &'a DeTable<'t>,
    /// The header or, for an inline table, the table itself.
    pub span: Range<usize>,
    /// As people find it in the file: `[network.edge]`.
    pub title: String,
}

impl<'a, 't> Table<'a, 't> {
    pub(super) fn get(&self, key: &str) -> Option<&'a Value<'t>> {
        self.entries.get(key)
    }
}

impl Reader<'_> {
    pub(super) fn fault(&mut self, span: &Range<usize>, what: impl Into<String>) {
        self.fault_with(span, what, None);
    }

    pub(super) fn fault_with(
        &mut self,
        span: &Range<usize>,
        what: impl Into<String>,
        hint: Option<String>,
    ) {
        let mut start = span.start.min(self.text.len());
        while !self.text.is_char_boundary(start) {
            start -= 1;
        }
        let (before, after) = self.text.split_at(start);
        let begun = before.rsplit('\n').next().unwrap_or_default();
        let rest = after.split('\n').next().unwrap_or_default().trim_end_matches('\r');
        self.faults.push(Fault {
            line: before.matches('\n').count() + 1,
            column: begun.chars().count() + 1,
            what: visible(&what.into()),
            hint: hint.as_deref().map(visible),
            // A tab would move the caret away from what it points at, and the file's control
            // characters are not for the reader's terminal.
            source: format!("{begun}{rest}").replace(char::is_control, " "),
        });
    }

    /// Opens `value` as a table and notes each key that is not among `keys`.
    pub(super) fn table<'v, 't>(
        &mut self,
        value: &'v Value<'t>,
        title: String,
        keys: &[&str],
    ) -> Option<Table<'v, 't>> {
        let Some(entries) = value.get_ref().as_table() else {
            self.expected(value, &title, "a table");
            return None;
        };
        let table = Table { entries, span: value.span(), title };
        self.known(&table, keys);
        Some(table)
    }

    pub(super) fn known(&mut self, table: &Table<'_, '_>, keys: &[&str]) {
        for key in table.entries.keys() {
            let name: &str = key.get_ref();
            if !keys.contains(&name) {
                let hint = match nearest(name, keys) {
                    Some(near) => format!("did you mean `{near}`?"),
                    None => format!("known here: {}", keys.join(", ")),
                };
                let what = format!("unknown key `{name}` in {}", table.title);
                self.fault_with(&key.span(), what, Some(hint));
            }
        }
    }

    fn expected(&mut self, value: &Value<'_>, key: &str, expected: &str) {
        let found = match value.get_ref().type_str() {
            "table" => "a table",
            "array" => "a list",
            "boolean" => "true or false",
            "integer" => "a number",
            "string" => "a text",
            other => other,
        };
        self.fault(&value.span(), format!("{key} is {expected}, and this is {found}"));
    }

    pub(super) fn string<'v>(&mut self, value: &'v Value<'_>, key: &str) -> Option<&'v str> {
        let text = value.get_ref().as_str();
        if text.is_none() {
            self.expected(value, key, "a text in quotes");
        }
        text
    }

    pub(super) fn flag(&mut self, table: &Table<'_, '_>, key: &str) -> Option<bool> {
        let value = table.get(key)?;
        let flag = value.get_ref().as_bool();
        if flag.is_none() {
            self.expected(value, key, "true or false");
        }
        flag
    }

    /// A whole number within the bounds of `T`.
    pub(super) fn integer<T: TryFrom<i64>>(&mut self, value: &Value<'_>, key: &str) -> Option<T> {
        let Some(number) = value.get_ref().as_integer() else {
            self.expected(value, key, "a number");
            return None;
        };
        let number = i64::from_str_radix(number.as_str(), number.radix()).ok();
        let number = number.and_then(|number| T::try_from(number).ok());
        if number.is_none() {
            self.fault(&value.span(), format!("{key} is out of bounds"));
        }
        number
    }

    /// A text that is read further by `read`.
    pub(super) fn read<T>(
        &mut self,
        value: &Value<'_>,
        key: &str,
        read: impl Fn(&str) -> Result<T, Misspelt>,
    ) -> Option<T> {
        let text = self.string(value, key)?;
        match read(text) {
            Ok(read) => Some(read),
            Err(why) => {
                self.fault(&value.span(), format!("{key}: {why}"));
                None
            }
        }
    }

    /// A key that is read as a name or number of its own type.
    pub(super) fn word<T: FromStr<Err: Display>>(
        &mut self,
        span: &Range<usize>,
        text: &str,
    ) -> Option<T> {
        match text.parse() {
            Ok(word) => Some(word),
            Err(why) => {
                let why: T::Err = why;
                self.fault(span, why.to_string());
                None
            }
        }
    }

    /// The elements of a list.
    pub(super) fn list<'v, 't>(
        &mut self,
        value: &'v Value<'t>,
        key: &str,
    ) -> Option<&'v [Value<'t>]> {
        let list = value.get_ref().as_array();
        if list.is_none() {
            self.expected(value, key, "a list, as [\"a\", \"b\"]");
        }
        list.map(|list| &list[..])
    }

    /// The elements of a list, or the one value in its place.
    pub(super) fn some<'v, 't>(&mut self, value: Option<&'v Value<'t>>) -> Vec<&'v Value<'t>> {
        match value {
            None => Vec::new(),
            Some(value) => match value.get_ref().as_array() {
                Some(list) => list.iter().collect(),
                None => vec![value],
            },
        }
    }
}
