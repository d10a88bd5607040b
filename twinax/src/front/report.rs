//! How an error is told: what failed, why, and what to do about it.

use std::{error::Error, fmt};

/// An error as people read it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// What was asked, of what; one line.
    pub what: String,
    /// The causes, outermost first.
    pub why: Vec<String>,
    pub hint: Option<String>,
}

impl Report {
    /// Says what failed, without a cause or a hint.
    pub fn new(what: impl Into<String>) -> Self {
        Self { what: what.into(), why: Vec::new(), hint: None }
    }

    /// Takes an error and the chain of its sources. A source whose text the error repeats is left
    /// out, as some errors print their cause as well as name it.
    pub fn of(error: &dyn Error) -> Self {
        let mut report = Self::new(error.to_string());
        let mut told = report.what.clone();
        let mut source = error.source();
        while let Some(error) = source {
            let text = error.to_string();
            if !told.ends_with(&text) {
                report.why.push(text.clone());
            }
            told = text;
            source = error.source();
        }
        report
    }

    /// Adds what to do.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "twinax: error: {}", self.what)?;
        for why in &self.why {
            write!(f, ": {why}")?;
        }
        if let Some(hint) = &self.hint {
            write!(f, "\n  hint: {}", hint.replace('\n', "\n        "))?;
        }
        Ok(())
    }
}
