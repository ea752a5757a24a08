//! What went wrong with a call: what was attempted, the modelled code, and what to do.

use aws_credential_types::provider::error::CredentialsError;
use aws_sdk_ec2::error::{ProvideErrorMetadata, SdkError};

use contract::{ErrorChain, StepOutcome};

use crate::failure::Advice;

/// Where the SDK's default chain looks.
const NOWHERE: &str = "none in the environment, in a profile, or of an instance or container role";

/// A refusal that does not speak the service's language.
const CODELESS: &str = "an answer that is none of AWS's";

type Source = Box<dyn std::error::Error + Send + Sync>;

/// A failed call to AWS.
#[derive(Debug, thiserror::Error)]
pub enum AwsError {
    /// Nothing says which region is meant.
    #[error("no AWS region is set")]
    RegionMissing,
    /// No credentials were found, or they could not be read.
    #[error("could not find AWS credentials: {detail}")]
    Credentials {
        /// Where was looked, or what is wrong with what was found; one line.
        detail: String,
    },
    /// The call did not reach AWS, or its answer did not come back.
    #[error("could not {attempted}: no answer")]
    Unreachable {
        /// What was attempted.
        attempted: String,
        /// Why.
        #[source]
        source: Source,
    },
    /// AWS refused.
    #[error("could not {attempted}: {code}")]
    Refused {
        /// What was attempted.
        attempted: String,
        /// The modelled error code.
        code: String,
        /// AWS's own words.
        #[source]
        source: Source,
    },
    /// The answer lacks what it must have.
    #[error("could not {attempted}: the answer has no {missing}")]
    Incomplete {
        /// What was attempted.
        attempted: String,
        /// What is missing.
        missing: &'static str,
    },
    /// What was waited for did not come.
    #[error("{what} did not become {wanted} within {seconds} s; it is {state}")]
    TimedOut {
        /// What was waited for.
        what: String,
        /// The state that was wanted.
        wanted: &'static str,
        /// The state that it is in.
        state: String,
        /// How long was waited.
        seconds: u64,
    },
    /// What was waited for ended in a state that it does not leave.
    #[error("{what} is {state}")]
    Broken {
        /// What was waited for.
        what: String,
        /// The state that it is in, with AWS's reason.
        state: String,
    },
}

/// AWS's own words for a refusal.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Words(String);

impl AwsError {
    pub(crate) fn no_credentials() -> Self {
        Self::Credentials { detail: NOWHERE.into() }
    }

    /// The SDK's report on its whole chain of providers, in one line.
    pub(crate) fn credentials(error: &(dyn std::error::Error + 'static)) -> Self {
        let report = ErrorChain(error).to_string();
        // The chain ends at IMDS, so that is what is named when nothing was found anywhere.
        let nowhere = ["no credentials found in chain", "IMDS", "no providers in chain"];
        let detail = if nowhere.iter().any(|end| report.contains(end)) {
            NOWHERE.to_owned()
        } else {
            report.lines().next().unwrap_or(NOWHERE).to_owned()
        };
        Self::Credentials { detail }
    }

    /// The modelled code, where AWS refused.
    #[must_use]
    pub fn code(&self) -> Option<&str> {
        match self {
            Self::Refused { code, .. } => Some(code),
            _ => None,
        }
    }

    /// Whether AWS says that the thing does not exist: judged by the modelled code, never by the
    /// HTTP status, which a proxy or a wrong endpoint gives as well.
    #[must_use]
    pub fn is_not_found(&self) -> bool {
        self.code().is_some_and(|code| {
            code.ends_with(".NotFound")
                || code.ends_with("NotFoundException")
                || matches!(code, "NatGatewayNotFound" | "NoSuchEntity" | "NoSuchBucket")
                || code == "LoadBalancerNotFound"
                || matches!(code, "NoSuchKey" | "NotFound" | "ParameterNotFound")
                || code.ends_with(".NotFoundException")
        })
    }

    /// Whether these credentials may not do it. What may not be read is unknown, never a fault.
    #[must_use]
    pub fn is_denied(&self) -> bool {
        matches!(
            self.code(),
            Some("AccessDenied" | "AccessDeniedException" | "UnauthorizedOperation")
        )
    }
}

impl Advice for AwsError {
    fn hint(&self) -> Option<String> {
        let hint = match self {
            Self::RegionMissing => {
                "name it: `region:` in the fleet file, `--region`, or AWS_REGION in the environment"
            }
            Self::Credentials { .. } => {
                "set AWS_PROFILE, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or run \
                 `aws sso login`"
            }
            Self::Unreachable { .. } => {
                "check the network, and AWS_ENDPOINT_URL where it is set: is anything listening \
                 there?"
            }
            Self::Refused { code, .. } => return refusal_hint(code).map(str::to_owned),
            Self::Incomplete { .. } | Self::TimedOut { .. } | Self::Broken { .. } => return None,
        };
        Some(hint.to_owned())
    }
}

/// A refusal of a service that is called without its SDK.
pub(super) fn refused(attempted: String, code: Option<String>, words: Option<String>) -> AwsError {
    let words = words.unwrap_or_else(|| "it gave no reason".to_owned());
    let code = code.unwrap_or_else(|| CODELESS.to_owned());
    AwsError::Refused { attempted, code, source: Box::new(Words(words)) }
}

/// How a deletion ended: what is not there any more is gone.
///
/// # Errors
/// Any other refusal.
pub fn gone<T>(answer: Result<T, AwsError>) -> Result<StepOutcome, AwsError> {
    match answer {
        Ok(_) => Ok(StepOutcome::Done),
        Err(error) if error.is_not_found() => Ok(StepOutcome::Unchanged),
        Err(error) => Err(error),
    }
}

/// How a call ended whose effect may be there already, which AWS says with that code.
///
/// # Errors
/// Any other refusal.
pub fn already<T>(answer: Result<T, AwsError>, code: &str) -> Result<StepOutcome, AwsError> {
    match answer {
        Ok(_) => Ok(StepOutcome::Done),
        Err(error) if error.code() == Some(code) => Ok(StepOutcome::Unchanged),
        Err(error) => Err(error),
    }
}

fn refusal_hint(code: &str) -> Option<&'static str> {
    Some(match code {
        "AccessDenied" | "AccessDeniedException" | "UnauthorizedOperation" => {
            "these credentials lack the permission; `aws sts get-caller-identity` says whose they \
             are"
        }
        "ExpiredToken" | "ExpiredTokenException" | "RequestExpired" => {
            "the credentials have expired: log in again"
        }
        "InvalidClientTokenId"
        | "UnrecognizedClientException"
        | "AuthFailure"
        | "SignatureDoesNotMatch" => {
            "the credentials are not known here: check profile and account"
        }
        "VpcLimitExceeded"
        | "AddressLimitExceeded"
        | "NatGatewayLimitExceeded"
        | "ResourceLimitExceeded"
        | "ResourceLimitExceededException"
        | "LimitExceeded" => {
            "a service quota is used up: raise it in Service Quotas, or free what is not needed"
        }
        CODELESS => {
            "something other than AWS answers: check AWS_ENDPOINT_URL and the proxy's settings"
        }
        "RequestLimitExceeded" | "Throttling" | "ThrottlingException" | "SlowDown" => {
            "the account's API rate is used up: run the same command again in a minute"
        }
        _ => return None,
    })
}

/// Names what was attempted on a call's error.
pub trait Attempted<T> {
    /// `could not <what>: …`.
    ///
    /// # Errors
    /// The call's error as an [`AwsError`].
    fn attempted(self, what: impl FnOnce() -> String) -> Result<T, AwsError>;
}

impl<T, E, R> Attempted<T> for Result<T, SdkError<E, R>>
where
    E: ProvideErrorMetadata + std::error::Error + Send + Sync + 'static,
    R: std::fmt::Debug + Send + Sync + 'static,
{
    fn attempted(self, what: impl FnOnce() -> String) -> Result<T, AwsError> {
        self.map_err(|error| classify(error, what()))
    }
}

fn classify<E, R>(error: SdkError<E, R>, attempted: String) -> AwsError
where
    E: ProvideErrorMetadata + std::error::Error + Send + Sync + 'static,
    R: std::fmt::Debug + Send + Sync + 'static,
{
    if let SdkError::ServiceError(refusal) = &error {
        let code = refusal.err().code().unwrap_or(CODELESS).to_owned();
        let words = refusal.err().message().unwrap_or("it gave no reason").to_owned();
        return AwsError::Refused { attempted, code, source: Box::new(Words(words)) };
    }
    if chain_has_credentials_error(&error) {
        return AwsError::credentials(&error);
    }
    AwsError::Unreachable { attempted, source: Box::new(error) }
}

fn chain_has_credentials_error(error: &(dyn std::error::Error + 'static)) -> bool {
    let mut next = Some(error);
    while let Some(error) = next {
        if error.is::<CredentialsError>() {
            return true;
        }
        next = error.source();
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(code: &str) -> AwsError {
        AwsError::Refused {
            attempted: "delete it".into(),
            code: code.into(),
            source: Box::new(Words("gone".into())),
        }
    }

    #[test]
    fn not_found_is_judged_by_the_modelled_code() {
        for code in [
            "InvalidVpcID.NotFound",
            "InvalidAllocationID.NotFound",
            "InvalidLaunchTemplateName.NotFoundException",
            "ResourceNotFoundException",
            "NoSuchEntity",
            "NatGatewayNotFound",
            "NoSuchBucket",
        ] {
            assert!(refused(code).is_not_found(), "{code}");
        }
        for code in ["404", "DependencyViolation", "AccessDenied", CODELESS] {
            assert!(!refused(code).is_not_found(), "{code}");
        }
    }

    #[test]
    fn missing_credentials_take_one_line() {
        let chain =
            CredentialsError::not_loaded("no credentials found in chain. Attempted:\n  a\n  b");
        let text = AwsError::credentials(&chain).to_string();
        assert_eq!(text, format!("could not find AWS credentials: {NOWHERE}"));
        let broken = CredentialsError::invalid_configuration("profile `x` is not defined\nmore");
        let text = AwsError::credentials(&broken).to_string();
        assert!(text.contains("profile `x` is not defined") && !text.contains("more"), "{text}");
    }

    #[test]
    fn a_refusal_has_a_hint_where_there_is_one() {
        assert!(refused("UnauthorizedOperation").hint().is_some());
        assert!(refused("InvalidParameterValue").hint().is_none());
    }
}
