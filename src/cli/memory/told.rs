//! What rounds and publishing did, for people and for programs.

use serde_json::{Value as Json, json};

use super::Said;
use crate::cli::exit::Exit;
use crate::diagnostic::Code;
use crate::host::memory::{Published, Report};
use crate::memory::MemoryPath;
use crate::plan::render::printable;

/// What was published.
pub(super) fn published(report: &Published) -> Said {
    let Published { written, unchanged, extra } = report;
    let mut text: String = written.iter().map(|path| format!("  published  {path}\n")).collect();
    for key in extra {
        text.push_str(&format!("  extra      {}: it is there, and not here\n", printable(key)));
    }
    text.push_str(&format!("{} published, {unchanged} unchanged.\n", written.len()));
    Said::new(text, json!({ "published": written, "unchanged": unchanged, "extra": extra }))
}

/// What a round would do.
pub(super) fn foretold(report: &Report) -> Said {
    let Said { json, .. } = synced(report);
    let mut text = lists(report, ["push", "pull", "merge", "remove", "restore"]);
    for (path, why) in report.refused.iter().chain(&report.failed) {
        text.push_str(&format!("  not {path}: {}\n", printable(why)));
    }
    if text.is_empty() {
        text.push_str("In step.\n");
    }
    Said::new(text, json)
}

/// The paths of a report, a line for each, under these words.
fn lists(report: &Report, words: [&str; 5]) -> String {
    let Report { pushed, pulled, merged, removed, restored, .. } = report;
    let mut text = String::new();
    for (what, paths) in words.into_iter().zip([pushed, pulled, merged, removed, restored]) {
        for path in paths {
            text.push_str(&format!("  {what:8}  {path}\n"));
        }
    }
    text
}

/// What a round did.
pub(super) fn synced(report: &Report) -> Said {
    let mut text = lists(report, ["pushed", "pulled", "merged", "removed", "restored"]);
    for aside in &report.aside {
        text.push_str(&format!("  aside     {}: your version is in {}\n", aside.path, aside.place));
    }
    for (what, problems) in [("refused", &report.refused), ("failed", &report.failed)] {
        for (path, why) in problems {
            text.push_str(&format!("  {what:8}  {path}: {}\n", printable(why)));
        }
    }
    let (exit, last) = match (report.failed.is_empty(), report.in_step()) {
        (_, true) => (Exit::Done, "In step."),
        (true, false) => (Exit::of(Code::MemoryConflict), "Not in step: somebody has to look."),
        (false, false) => (Exit::Failed, "Not in step: the next round tries again."),
    };
    text.push_str(last);
    text.push('\n');
    let problems = |list: &[(MemoryPath, String)]| -> Vec<Json> {
        list.iter().map(|(path, why)| json!({ "path": path, "why": why })).collect()
    };
    let aside: Vec<Json> =
        report.aside.iter().map(|it| json!({ "path": it.path, "place": it.place })).collect();
    let skipped: Vec<Json> =
        report.skipped.iter().map(|it| json!({ "name": it.name, "why": it.why })).collect();
    let json = json!({
        "in_step": report.in_step(),
        "pushed": report.pushed,
        "pulled": report.pulled,
        "merged": report.merged,
        "removed": report.removed,
        "restored": report.restored,
        "aside": aside,
        "refused": problems(&report.refused),
        "failed": problems(&report.failed),
        "skipped": skipped,
    });
    Said { exit, ..Said::new(text, json) }
}
