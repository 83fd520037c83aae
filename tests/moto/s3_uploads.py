"""S3: SHA256 checksums that are verified, and multipart uploads that can be listed and resumed.

moto echoes any checksum, lists parts without checksums, pages parts by position instead of number, and dates every
upload 2010. What moto does right (`If-Match`, `If-None-Match: *`, sizes, ETags) stays.
"""

import base64
import hashlib
import re
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any
from xml.dom import minidom

from moto.core.responses import ActionResult
from moto.s3.exceptions import S3ClientError
from moto.s3.models import FakeKey, FakeMultipart
from moto.s3.responses import S3Response

HEADER = "x-amz-checksum-sha256"
OWNER = {"ID": "75aa57f09aa0c8caeab4f8c24e99d10f8e7faeebf76c078efc7c6caea54ba06a", "DisplayName": "webfile"}

Answer = tuple[int, dict[str, Any], Any]


def sent_checksum(response: S3Response) -> str | None:
    """The SHA256 that came with the body, as a header or as the trailer of a chunked body."""
    if HEADER in response.headers:
        return response.headers[HEADER]
    if response.headers.get("x-amz-trailer", "").lower() != HEADER:
        return None
    found = re.search(rb"x-amz-checksum-sha256:\s*([A-Za-z0-9+/=]+)", response.raw_body[-512:])
    return found[1].decode() if found else None


def verified_checksum(response: S3Response) -> str | None:
    sent = sent_checksum(response)
    actual = base64.b64encode(hashlib.sha256(response.body or b"").digest()).decode()
    if sent not in (None, actual):
        raise S3ClientError("BadDigest", "The SHA256 you specified did not match the calculated checksum.")
    return sent


def upload_of(response: S3Response) -> FakeMultipart | None:
    return response.backend.get_bucket(response.bucket_name).multiparts.get(response._get_param("uploadId"))


def wants_sha256(upload: FakeMultipart | None) -> bool:
    return upload is not None and upload.metadata.get("x-amz-checksum-algorithm") == "SHA256"


def strict_put_object(put: Callable[[S3Response], Answer]) -> Callable[[S3Response], Answer]:
    def put_object(response: S3Response) -> Answer:
        verified_checksum(response)
        return put(response)

    return put_object


def strict_upload_part(upload_part: Callable[[S3Response], Answer]) -> Callable[[S3Response], Answer]:
    def upload(response: S3Response) -> Answer:
        checksum, multipart = verified_checksum(response), upload_of(response)
        if wants_sha256(multipart) and checksum is None:
            raise S3ClientError(
                "InvalidRequest",
                "Checksum Type mismatch occurred, expected checksum Type: sha256, actual checksum Type: null",
            )
        status, headers, body = upload_part(response)
        if checksum is not None and multipart is not None:
            multipart.parts[response._get_int_param("partNumber")].sha256 = checksum
            headers[HEADER] = checksum
        return status, headers, body

    return upload


def first_text(element: Any, name: str) -> str | None:
    found = element.getElementsByTagName(name)
    return found[0].firstChild.wholeText if found else None


def strict_completion(parts: Callable[..., Iterator[tuple[int, str]]]) -> Callable[..., Iterator[tuple[int, str]]]:
    def complete(response: S3Response, body: bytes) -> Iterator[tuple[int, str]]:
        multipart = upload_of(response)
        for part in minidom.parseString(body).getElementsByTagName("Part"):
            verify_completed_part(multipart, int(first_text(part, "PartNumber")), first_text(part, "ChecksumSHA256"))
        return parts(response, body)

    return complete


def verify_completed_part(multipart: FakeMultipart | None, number: int, checksum: str | None) -> None:
    part = multipart.parts.get(number) if multipart else None
    if checksum is None and wants_sha256(multipart):
        raise S3ClientError(
            "InvalidRequest",
            "The upload was created using a sha256 checksum. The complete request must include the checksum for each "
            f"part. It was missing for part {number} in the request.",
        )
    if checksum is not None and part is not None and checksum != getattr(part, "sha256", None):
        raise S3ClientError(
            "InvalidPart",
            "One or more of the specified parts could not be found. The part may not have been uploaded, or the "
            "specified entity tag may not match the part's entity tag.",
        )


def shown_part(part: FakeKey) -> dict[str, Any]:
    return {
        "PartNumber": part.name,
        "LastModified": part.last_modified_ISO8601,
        "ETag": part.etag,
        "Size": part.size,
        "ChecksumSHA256": getattr(part, "sha256", None),
    }


def listed(response: S3Response, action: str, result: dict[str, Any]) -> Answer:
    """The answer with the root element that AWS gives it: moto's says `Response`, which strict clients refuse."""
    response.data["Action"] = action
    status, headers, body = response.serialized(ActionResult(result))
    was, root = (f"{action}{end}" for end in ("Response", "Result"))
    if isinstance(body, bytes):
        return status, headers, body.replace(was.encode(), root.encode())
    return status, headers, body.replace(was, root)


def list_parts(response: S3Response) -> Answer:
    upload_id, marker = response._get_param("uploadId"), response._get_int_param("part-number-marker", 0)
    most = response._get_int_param("max-parts", 1000)
    response.backend.list_parts(response.bucket_name, upload_id, part_number_marker=0, max_parts=1)  # NoSuchUpload
    multipart = upload_of(response)
    numbers = [number for number in multipart.partlist if number > marker]
    page = numbers[:most]
    result = {
        "Bucket": response.bucket_name,
        "Key": response.parse_key_name(),
        "UploadId": upload_id,
        "StorageClass": "STANDARD",
        "Initiator": OWNER,
        "Owner": OWNER,
        "PartNumberMarker": marker,
        "NextPartNumberMarker": page[-1] if page else 0,
        "MaxParts": most,
        "IsTruncated": len(numbers) > len(page),
        "ChecksumAlgorithm": multipart.metadata.get("x-amz-checksum-algorithm"),
        "Parts": [shown_part(multipart.parts[number]) for number in page],
    }
    return listed(response, "ListParts", result)


def list_multipart_uploads(response: S3Response) -> Answer:
    prefix = response._get_param("prefix", "")
    uploads = response.backend.list_multipart_uploads(response.bucket_name).values()
    chosen = sorted((u for u in uploads if u.key_name.startswith(prefix)), key=lambda u: (u.key_name, u.initiated))
    result = {
        "Bucket": response.bucket_name,
        "Prefix": prefix,
        "KeyMarker": "",
        "UploadIdMarker": "",
        "MaxUploads": 1000,
        "IsTruncated": False,
        "Uploads": [
            {
                "Key": upload.key_name,
                "UploadId": upload.id,
                "Initiator": OWNER,
                "Owner": OWNER,
                "StorageClass": "STANDARD",
                "Initiated": upload.initiated,
                "ChecksumAlgorithm": upload.metadata.get("x-amz-checksum-algorithm"),
            }
            for upload in chosen
        ],
    }
    return listed(response, "ListMultipartUploads", result)


def dated(construct: Callable[..., None]) -> Callable[..., None]:
    def init(upload: FakeMultipart, *args: Any, **kwargs: Any) -> None:
        construct(upload, *args, **kwargs)
        upload.initiated = datetime.now(UTC).replace(tzinfo=None)

    return init


def install() -> None:
    # moto takes checksums at face value.
    S3Response.put_object = strict_put_object(S3Response.put_object)
    S3Response.upload_part = strict_upload_part(S3Response.upload_part)
    S3Response._complete_multipart_body = strict_completion(S3Response._complete_multipart_body)
    # moto lists neither checksums nor real dates.
    S3Response.list_parts = list_parts
    S3Response.list_multipart_uploads = list_multipart_uploads
    FakeMultipart.__init__ = dated(FakeMultipart.__init__)
