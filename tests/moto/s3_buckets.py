"""S3: buckets that belong to somebody else, and the versioning of buckets.

moto looks a bucket up over all accounts and ignores `x-amz-expected-bucket-owner`, so that a client which forgets whose
bucket it writes to passes. Its answer to GetBucketVersioning has a root element that strict clients refuse.
"""

from collections.abc import Callable
from typing import Any

from moto.core.responses import ActionResult
from moto.s3.exceptions import S3AccessDeniedError
from moto.s3.models import s3_backends
from moto.s3.responses import S3Response

Answer = tuple[int, dict[str, Any], Any]


def strict_owner(respond: Callable[..., Any]) -> Callable[..., Any]:
    def bucket_response(response: S3Response, request: Any, full_url: str) -> Any:
        expected = request.headers.get("x-amz-expected-bucket-owner")
        name = response.parse_bucket_name_from_url(request, full_url)
        _, owner = s3_backends.bucket_accounts.get(name, (None, expected))
        if expected is None or owner == expected:
            return respond(response, request, full_url)
        _, headers, body = response.serialized(ActionResult(S3AccessDeniedError()))
        return 403, headers, "" if request.method == "HEAD" else body

    return bucket_response


def named_by_shape(get: Callable[[S3Response], Answer]) -> Callable[[S3Response], Answer]:
    def get_bucket_versioning(response: S3Response) -> Answer:
        status, headers, body = get(response)
        text = body.decode() if isinstance(body, bytes) else body
        return status, headers, text.replace("GetBucketVersioningResponse", "VersioningConfiguration")

    return get_bucket_versioning


def install() -> None:
    # See above: whose bucket it is was not looked at.
    S3Response._bucket_response = strict_owner(S3Response._bucket_response)
    S3Response.get_bucket_versioning = named_by_shape(S3Response.get_bucket_versioning)
