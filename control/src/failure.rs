//! How a command fails: an error chain, one actionable hint, one documented exit code.
//!
//! Library errors implement [`Advice`]; commands return `anyhow::Error`, and [`advice_of`] finds the
//! first error of the chain that has something to say.

use contract::ExitCode;

/// What an error advises, apart from its text.
pub trait Advice: std::error::Error {
    /// What to do about it, one sentence or a command.
    fn hint(&self) -> Option<String> {
        None
    }

    /// How the program ends.
    fn exit_code(&self) -> ExitCode {
        ExitCode::Error
    }
}

/// A failure that a command states itself, with its hint and exit code.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct Stated {
    /// What is wrong, a lower-case fragment.
    pub message: String,
    /// What to do about it.
    pub hint: Option<String>,
    /// How the program ends.
    pub exit_code: ExitCode,
}

impl Stated {
    /// A failure with its exit code.
    pub fn new(exit_code: ExitCode, message: impl Into<String>) -> Self {
        Self { message: message.into(), hint: None, exit_code }
    }

    /// Adds what to do about it.
    #[must_use]
    pub fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

impl Advice for Stated {
    fn hint(&self) -> Option<String> {
        self.hint.clone()
    }

    fn exit_code(&self) -> ExitCode {
        self.exit_code
    }
}

/// The advice of the outermost error in the chain that has any. An error type that implements
/// [`Advice`] has its line here.
#[must_use]
pub fn advice_of(error: &anyhow::Error) -> Option<&dyn Advice> {
    // A failure that was given as context has a wrapper of anyhow's around it in the chain.
    if let Some(stated) = error.downcast_ref::<Stated>() {
        return Some(stated);
    }
    error.chain().find_map(|e| {
        e.downcast_ref::<Stated>()
            .map(|e| e as &dyn Advice)
            .or_else(|| e.downcast_ref::<crate::aws::AwsError>().map(|e| e as &dyn Advice))
            .or_else(|| e.downcast_ref::<crate::kube::KubeError>().map(|e| e as &dyn Advice))
            .or_else(|| e.downcast_ref::<crate::stack::StackError>().map(|e| e as &dyn Advice))
            .or_else(|| e.downcast_ref::<crate::config::ConfigError>().map(|e| e as &dyn Advice))
            .or_else(|| e.downcast_ref::<crate::ami::bake::BakeError>().map(|e| e as &dyn Advice))
    })
}

#[cfg(test)]
mod tests {
    use anyhow::Context as _;

    use super::*;

    #[test]
    fn advice_is_found_below_context() {
        let error =
            Err::<(), _>(Stated::new(ExitCode::Usage, "no terminal").with_hint("add `--yes`"))
                .context("could not ask")
                .unwrap_err();
        let advice = advice_of(&error).unwrap();
        assert_eq!(advice.exit_code(), ExitCode::Usage);
        assert_eq!(advice.hint().as_deref(), Some("add `--yes`"));
    }
}
