//! Diagnostics on a terminal, by miette: code, message, the quoted place, the calls that led there, the next move.

use std::fmt;
use std::sync::Arc;

use miette::{GraphicalReportHandler, GraphicalTheme, LabeledSpan, NamedSource, SourceCode};

use crate::diagnostic::{Diagnostic, Origin, Severity};
use crate::script::Sources;

/// The width reports are wrapped to.
const WIDTH: usize = 100;

/// Renders one diagnostic.
pub(super) fn render(diagnostic: &Diagnostic, sources: &Sources, color: bool) -> String {
    let theme = if color { GraphicalTheme::unicode() } else { GraphicalTheme::unicode_nocolor() };
    let handler = GraphicalReportHandler::new_themed(theme)
        .with_links(false)
        .with_width(WIDTH)
        .with_context_lines(1)
        .with_wrap_lines(false);
    let mut text = String::new();
    // Writing to a String cannot fail.
    let _ = handler.render_report(&mut text, &Shown::new(diagnostic, sources));
    for related in &diagnostic.related {
        let shown = Shown::related(&related.message, &related.origin, sources);
        let _ = handler.render_report(&mut text, &shown);
    }
    text
}

struct Shown {
    code: Option<String>,
    message: String,
    severity: miette::Severity,
    help: Option<String>,
    label: Option<LabeledSpan>,
    source: Option<NamedSource<Arc<str>>>,
}

impl Shown {
    fn new(diagnostic: &Diagnostic, sources: &Sources) -> Self {
        let severity = match diagnostic.severity {
            Severity::Error => miette::Severity::Error,
            Severity::Warning => miette::Severity::Warning,
        };
        let mut help: Vec<String> = diagnostic.help.iter().cloned().collect();
        if let Some(origin) = &diagnostic.origin {
            help.extend(origin.stack.iter().map(|frame| {
                format!("in {}, called at {}:{}:{}", frame.call, frame.file, frame.line, frame.column)
            }));
        }
        let mut shown = Self {
            code: Some(diagnostic.code.to_string()),
            message: diagnostic.message.clone(),
            severity,
            help: (!help.is_empty()).then(|| help.join("\n")),
            label: None,
            source: None,
        };
        if let Some(origin) = &diagnostic.origin {
            shown.quote(origin, diagnostic.label.clone(), sources);
        }
        shown
    }

    fn related(message: &str, origin: &Origin, sources: &Sources) -> Self {
        let mut shown = Self {
            code: None,
            message: message.to_owned(),
            severity: miette::Severity::Advice,
            help: None,
            label: None,
            source: None,
        };
        shown.quote(origin, None, sources);
        shown
    }

    fn quote(&mut self, origin: &Origin, label: Option<String>, sources: &Sources) {
        let Some(text) = sources.get(&origin.file) else {
            // The text is not at hand, as for a saved plan: the place alone has to do.
            self.message = format!("{} ({origin})", self.message);
            return;
        };
        let (offset, length) = byte_span(text, origin);
        self.label = Some(LabeledSpan::new_primary_with_span(label, (offset, length)));
        self.source = Some(NamedSource::new(&*origin.file, Arc::clone(text)));
    }
}

/// Line and columns to bytes.
fn byte_span(text: &str, origin: &Origin) -> (usize, usize) {
    let line_start: usize =
        text.split_inclusive('\n').take(origin.line.saturating_sub(1) as usize).map(str::len).sum();
    let line = text[line_start..].lines().next().unwrap_or_default();
    let byte_of = |column: usize| line.char_indices().nth(column).map_or(line.len(), |(at, _)| at);
    let start = byte_of(origin.column.saturating_sub(1) as usize);
    let end = byte_of((origin.column.saturating_sub(1) + origin.length.max(1)) as usize);
    (line_start + start, end.saturating_sub(start))
}

impl fmt::Display for Shown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl fmt::Debug for Shown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Shown {}

impl miette::Diagnostic for Shown {
    fn code<'b>(&'b self) -> Option<Box<dyn fmt::Display + 'b>> {
        self.code.as_ref().map(|code| Box::new(code) as Box<dyn fmt::Display>)
    }

    fn severity(&self) -> Option<miette::Severity> {
        Some(self.severity)
    }

    fn help<'b>(&'b self) -> Option<Box<dyn fmt::Display + 'b>> {
        self.help.as_ref().map(|help| Box::new(help) as Box<dyn fmt::Display>)
    }

    fn source_code(&self) -> Option<&dyn SourceCode> {
        self.source.as_ref().map(|source| source as &dyn SourceCode)
    }

    fn labels(&self) -> Option<Box<dyn Iterator<Item = LabeledSpan> + '_>> {
        self.label
            .clone()
            .map(|label| Box::new(std::iter::once(label)) as Box<dyn Iterator<Item = LabeledSpan>>)
    }
}
