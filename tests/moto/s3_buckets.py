"""S3: buckets of other accounts, and the settings of buckets.

moto looks buckets up over all accounts and ignores `x-amz-expected-bucket-owner`, so that a client which forgets whose
bucket it writes to passes. Its answer to GetBucketVersioning has a root element that strict clients refuse.
"""

from collections.abc import Callable
from typing import Any

from moto.s3.exceptions import S3AccessDeniedError
from moto.s3.models import s3_backends
from moto.s3.responses import S3Response

Answer = tuple[int, dict[str, Any], Any]
Respond = Callable[[S3Response, Any, str], Any]


def strict_owner(respond: Respond) -> Respond:
    def bucket_response(response: S3Response, request: Any, full_url: str) -> Any:
        expected = request.headers.get("x-amz-expected-bucket-owner")
        name = response.parse_bucket_name_from_url(request, full_url)
        _, owner = s3_backends.bucket_accounts.get(name, (None, expected))
        if expected is None or owner == expected:
            return respond(response, request, full_url)
        if request.method == "HEAD":
            return 403, {}, ""
        status, headers, body = response.serialized_error(S3AccessDeniedError())
        return status, headers, body

    return bucket_response


def install() -> None:
    S3Response._bucket_response = strict_owner(S3Response._bucket_response)
