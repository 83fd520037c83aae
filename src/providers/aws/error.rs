//! What AWS's errors mean: whether to try again, and what a person can do.
//!
//! Codes are those of the services' API references. What is not known here is final: trying again what will fail again
//! only hides the message.

use aws_smithy_runtime_api::client::orchestrator::HttpResponse;
use aws_smithy_runtime_api::client::result::SdkError;
use aws_smithy_types::error::metadata::ProvideErrorMetadata;

use super::Session;
use crate::providers::error::{ErrorKind, ProviderError};

const THROTTLED: [&str; 14] = [
    "BandwidthLimitExceeded",
    "ConcurrentLimitExceededException",
    "ConcurrentSnapshotLimitExceeded",
    "PriorRequestNotComplete",
    "RequestLimitExceeded",
    "RequestThrottled",
    "RequestThrottledException",
    "ServiceQuotaExceededException",
    "SlowDown",
    "Throttling",
    "ThrottledException",
    "ThrottlingException",
    "TooManyRequestsException",
    "TransactionInProgressException",
];

const TRANSIENT: [&str; 8] = [
    "InternalError",
    "InternalFailure",
    "InternalServerException",
    "OperationAborted",
    "RequestTimeout",
    "RequestTimeTooSkewed",
    "ServiceUnavailable",
    "Unavailable",
];

const EXPIRED: [&str; 4] =
    ["ExpiredToken", "ExpiredTokenException", "RequestExpired", "TokenRefreshRequired"];

const DENIED: [&str; 4] =
    ["AccessDenied", "AccessDeniedException", "UnauthorizedOperation", "Client.UnauthorizedOperation"];

const STRANGER: [&str; 6] = [
    "AuthFailure",
    "InvalidAccessKeyId",
    "InvalidClientTokenId",
    "OptInRequired",
    "SignatureDoesNotMatch",
    "UnrecognizedClientException",
];

/// Codes that say that something is not there.
const ABSENT: [&str; 14] = [
    "404",
    "InvalidAMIID.NotFound",
    "InvalidAMIID.Unavailable",
    "InvalidAMIID.Malformed",
    "InvalidConversionTaskId",
    "InvalidConversionTaskId.Malformed",
    "InvalidConversionTaskId.NotFound",
    "InvalidInstanceID.NotFound",
    "InvalidSnapshot.NotFound",
    "InvalidVolume.NotFound",
    "NoSuchKey",
    "NoSuchUpload",
    "NotFound",
    "ResourceNotFoundException",
];

/// The code a service answered with.
pub(super) fn code<E: ProvideErrorMetadata>(error: &SdkError<E, HttpResponse>) -> Option<&str> {
    error.as_service_error().and_then(ProvideErrorMetadata::code)
}

/// The HTTP status, where an answer came.
pub(super) fn status<E>(error: &SdkError<E, HttpResponse>) -> Option<u16> {
    error.raw_response().map(|response| response.status().as_u16())
}

/// Whether the service says that what was asked for is not there.
pub(super) fn is_absent<E: ProvideErrorMetadata>(error: &SdkError<E, HttpResponse>) -> bool {
    code(error).is_some_and(|code| ABSENT.contains(&code))
}

/// The IAM action that an operation needs. Most have its name; S3's do not.
fn action(operation: &str) -> String {
    let (service, call) = operation.split_once(' ').unwrap_or((operation, ""));
    let call = match (service, call) {
        ("s3", "HeadBucket") => "ListBucket",
        ("s3", "HeadObject") => "GetObject",
        ("s3", "CreateMultipartUpload" | "UploadPart" | "CompleteMultipartUpload") => "PutObject",
        ("s3", "ListMultipartUploads") => "ListBucketMultipartUploads",
        ("s3", "ListParts") => "ListMultipartUploadParts",
        ("s3", "GetBucketEncryption") => "GetEncryptionConfiguration",
        ("s3", "PutBucketEncryption") => "PutEncryptionConfiguration",
        ("s3", "GetBucketLifecycleConfiguration") => "GetLifecycleConfiguration",
        ("s3", "PutBucketLifecycleConfiguration") => "PutLifecycleConfiguration",
        ("s3", "GetPublicAccessBlock") => "GetBucketPublicAccessBlock",
        ("s3", "PutPublicAccessBlock") => "PutBucketPublicAccessBlock",
        (_, call) => call,
    };
    format!("{service}:{call}")
}

/// The causes of an error in one line.
fn causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut at = error.source();
    while let Some(cause) = at {
        let line = cause.to_string();
        if !text.contains(&line) {
            text.push_str(": ");
            text.push_str(&line);
        }
        at = cause.source();
    }
    text
}

/// Whether the call was not made because nobody could sign it.
fn lacks_credentials(error: &dyn std::error::Error) -> bool {
    let text = causes(error).to_ascii_lowercase();
    ["credential", "identity", "sso", "token"].iter().any(|word| text.contains(word))
}

impl Session {
    /// An error of a call, `ec2 RegisterImage`, as the ports have it.
    pub(super) fn failed<E>(&self, operation: &str, error: &SdkError<E, HttpResponse>) -> ProviderError
    where
        E: ProvideErrorMetadata + std::error::Error + Send + Sync + 'static,
    {
        let status = status(error);
        match error {
            SdkError::ServiceError(context) => {
                let code = context.err().code().unwrap_or_default().to_owned();
                // An answer that is no error of the service, such as a proxy's page.
                let message = context.err().message().map_or_else(|| causes(error), str::to_owned);
                self.answered(operation, &code, &message, status.unwrap_or_default())
            }
            SdkError::TimeoutError(_) => {
                ProviderError::new(ErrorKind::Transient, operation, "no answer came in time")
            }
            SdkError::ResponseError(_) => {
                let message = format!("the answer broke off: {}", causes(error));
                ProviderError::new(ErrorKind::Transient, operation, message)
            }
            // The client says of a connection that closed too early only that it was something else; credentials that
            // cannot be had come the same way.
            SdkError::DispatchFailure(failure)
                if failure.is_io() || failure.is_timeout() || failure.is_other() && !lacks_credentials(error) =>
            {
                let message = format!("the connection failed: {}", causes(error));
                let error = ProviderError::new(ErrorKind::Transient, operation, message);
                match &self.settings().endpoint {
                    Some(endpoint) => error.help(format!("is a server running at {endpoint}?")),
                    None => error,
                }
            }
            _ => ProviderError::permanent(operation, format!("the call could not be made: {}", causes(error))).help(
                "clawd uses the standard credential chain: environment, profile (AWS_PROFILE), SSO, container, instance",
            ),
        }
    }

    fn answered(&self, operation: &str, code: &str, message: &str, status: u16) -> ProviderError {
        let told =
            if code.is_empty() { format!("HTTP {status}: {message}") } else { format!("{code}: {message}") };
        let is = |codes: &[&str]| codes.contains(&code);
        if is(&THROTTLED) {
            let error = ProviderError::new(ErrorKind::Throttled, operation, told);
            return if code == "ServiceQuotaExceededException" {
                error.help(
                    "a quota of the account is used up: wait, or ask for more in the Service Quotas console",
                )
            } else {
                error
            };
        }
        if is(&EXPIRED) {
            // The chain may have fresh ones: a file that was renewed, a session that can be refreshed.
            self.forget();
            return ProviderError::new(ErrorKind::Transient, operation, told)
                .help("the credentials have expired: log in again (`aws sso login`), then run again; it goes on from here");
        }
        if is(&DENIED) || (status == 403 && code.is_empty()) {
            return self.denied(operation, &told);
        }
        if is(&STRANGER) {
            return ProviderError::permanent(operation, told)
                .help("AWS does not know these credentials: check AWS_PROFILE and the access keys");
        }
        if is(&TRANSIENT) || status >= 500 {
            return ProviderError::new(ErrorKind::Transient, operation, told);
        }
        let error = ProviderError::permanent(operation, told);
        if message.contains("service role") {
            return error.help(
                "EC2 imports with a role that may read the bucket: create `vmimport` for vmie.amazonaws.com with s3:GetObject \
                 and s3:ListBucket on it, or name another with `role`",
            );
        }
        error
    }

    fn denied(&self, operation: &str, told: &str) -> ProviderError {
        let error = ProviderError::permanent(operation, told);
        if told.to_ascii_lowercase().contains("kms") {
            return error.help(
                "the key's policy or the caller's must allow: \"kms:CreateGrant\", \"kms:Decrypt\", \"kms:DescribeKey\", \
                 \"kms:GenerateDataKeyWithoutPlaintext\", \"kms:ReEncryptFrom\", \"kms:ReEncryptTo\"",
            );
        }
        error.help(format!(
            "this line is missing in the caller's policy: {{ \"Effect\": \"Allow\", \"Action\": \"{}\", \"Resource\": \"*\" }}; \
             `clawd docs iam PLAN` prints all that a plan needs",
            action(operation)
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn operations_name_the_action_that_policies_have() {
        assert_eq!(action("ec2 RegisterImage"), "ec2:RegisterImage");
        assert_eq!(action("s3 UploadPart"), "s3:PutObject");
        assert_eq!(action("s3 HeadBucket"), "s3:ListBucket");
        assert_eq!(action("s3 PutBucketEncryption"), "s3:PutEncryptionConfiguration");
        assert_eq!(action("s3 GetPublicAccessBlock"), "s3:GetBucketPublicAccessBlock");
        assert_eq!(action("s3 PutBucketPolicy"), "s3:PutBucketPolicy");
    }
}
