//! A stack's outputs, held against the types that the script declares.

use std::collections::BTreeSet;

use super::Stack;
use crate::providers::error::ProviderError;
use crate::providers::ports::Answer;
use crate::stack::{Mask, State, Type};
use crate::value::{Map, Path, Value};

impl Stack<'_> {
    pub(super) async fn output_text(&self) -> Answer<String> {
        self.read("tofu output", &["output", "-json", "-no-color"]).await
    }

    /// Holds outputs against the types that the script declares.
    pub(super) fn check_outputs(&self, outputs: Option<&Map>) -> Answer<()> {
        for (name, text) in &self.request.outputs {
            let failed = |what: String| {
                ProviderError::permanent(
                    "tofu output",
                    format!("the output `{name}` of {}: {what}", self.request.dir),
                )
                .help("mend the type in `outputs`, or the module")
            };
            let ty = Type::parse(text).map_err(failed)?;
            let misfit = outputs.and_then(|outputs| outputs.get(name)).and_then(|value| {
                let misfit = ty.misfits(value).into_iter().next()?;
                let at =
                    if misfit.path == Path::root() { String::new() } else { format!("{}: ", misfit.path) };
                Some(format!("{at}{}", misfit.message))
            });
            if let Some(misfit) = misfit {
                return Err(failed(misfit));
            }
        }
        Ok(())
    }

    /// The state as it is now, with its marks.
    pub(super) async fn shown_state(&self) -> Answer<State> {
        const SHOW: &str = "tofu show";
        let text = self.read(SHOW, &["show", "-json", "-no-color"]).await?;
        State::read(&text)
            .map_err(|error| ProviderError::permanent(SHOW, format!("{}: {error}", self.request.dir)))
    }

    /// Outputs as they are now: those in `hidden`, and those that hold what `mask` or the state hides, are secrets. One that the
    /// module has and the state has not is null.
    pub(super) async fn outputs(&self, hidden: &BTreeSet<String>, mask: Mask) -> Answer<Map> {
        let state = self.shown_state().await?;
        let mut outputs = state.outputs(&self.request.step, hidden, &state.mask(mask));
        if !self.request.destroy {
            for name in
                self.module.outputs.keys().filter(|name| outputs.get(name).is_none()).collect::<Vec<_>>()
            {
                outputs.insert(name.clone(), Value::Null);
            }
        }
        self.check_outputs(Some(&outputs))?;
        Ok(outputs)
    }
}
