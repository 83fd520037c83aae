"""EBS snapshots: the EBS direct calls as strict as AWS's, and the EC2 calls that show, delete and encrypt them.

moto takes every block, checksum and count at face value, ignores ClientToken and parents, and creates each snapshot
complete. Here a snapshot is `pending` until CompleteSnapshot; after it one DescribeSnapshots still shows `pending`, the
next `completed`. A block is remembered by its digest alone: GetSnapshotBlock cannot return data.
"""

import base64
import hashlib
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

from moto.core.exceptions import ServiceException
from moto.core.responses import ActionResult, EmptyResult
from moto.ebs.models import ebs_backends
from moto.ebs.responses import EBSResponse
from moto.ec2.models.elastic_block_store import Snapshot
from moto.ec2.responses import EC2Response
from moto.ec2.utils import random_snapshot_id

from shared import Settling, ec2_error, idempotent, next_time, observe_filtered

BLOCK_SIZE = 512 * 1024
BLOCKS_PER_GIB = (1 << 30) // BLOCK_SIZE
DEFAULT_KEY = "alias/aws/ebs"


@dataclass
class Writing:
    """What EBS direct knows about one snapshot: the digests of the blocks written to it."""

    snapshot: Snapshot
    inherited: dict[int, bytes]
    digests: dict[int, bytes] = field(default_factory=dict)
    is_sealed: bool = False


class EbsError(ServiceException):
    """An EBS direct error; Reason is the second member that most of them have."""

    __module__ = EBSResponse.__module__  # moto reads the service, and so the status code, from the module's name

    def __init__(self, code: str, message: str, reason: str | None = None):
        super().__init__(code, message)
        self.Reason = reason


def invalid(reason: str, message: str) -> EbsError:
    return EbsError("ValidationException", message, reason)


def not_found(snapshot_id: str) -> EbsError:
    text = f"The snapshot '{snapshot_id}' does not exist."
    return EbsError("ResourceNotFoundException", text, "SNAPSHOT_NOT_FOUND")


def token_conflict() -> EbsError:
    text = "The request uses the same client token as a previous, but non-identical request."
    return EbsError("ConflictException", text)


def encryption_key(ec2_backend: Any, is_encrypted: bool | None, key: str | None) -> str | None:
    """The key that a new snapshot or volume is encrypted with, none when it stays plain."""
    if not is_encrypted and not ec2_backend.get_ebs_encryption_by_default():
        return None
    return key or ec2_backend.default_kms_key_id or ec2_backend._create_default_encryption_key()


def new_snapshot(ec2_backend: Any, size_gib: int, description: str, kms_key_id: str | None) -> Snapshot:
    """A completed snapshot. moto's own way creates a real volume first, which DescribeVolumes would then list."""
    volume = SimpleNamespace(id="vol-ffffffff", size=size_gib)
    snapshot = Snapshot(ec2_backend, random_snapshot_id(), volume, description, kms_key_id=kms_key_id)
    snapshot.start_time = next_time(ec2_backend)
    ec2_backend.snapshots[snapshot.id] = snapshot
    return snapshot


def parent_of(response: EBSResponse) -> Snapshot | None:
    parent_id = response._get_param("ParentSnapshotId")
    if parent_id is None:
        return None
    if response._get_param("Encrypted") is not None or response._get_param("KmsKeyArn") is not None:
        raise invalid("INVALID_PARAMETER_VALUE", "Encrypted and KmsKeyArn cannot be given with ParentSnapshotId.")
    parent = response.ebs_backend.ec2_backend.snapshots.get(parent_id)
    if parent is None or parent.status != "completed":
        raise invalid("INVALID_DEPENDENCY_REQUEST", f"The parent snapshot '{parent_id}' is not a completed snapshot.")
    if not parent.encrypted and response.ebs_backend.ec2_backend.get_ebs_encryption_by_default():
        raise invalid("INVALID_DEPENDENCY_REQUEST", "Encryption by default needs an encrypted parent snapshot.")
    if response._get_param("VolumeSize") < parent.volume_size:
        raise invalid("INVALID_VOLUME_SIZE", f"VolumeSize is smaller than the parent's {parent.volume_size} GiB.")
    return parent


def start_snapshot(response: EBSResponse) -> ActionResult:
    ec2 = response.ebs_backend.ec2_backend
    parent, asked_key = parent_of(response), response._get_param("KmsKeyArn")
    key = parent.kms_key_id if parent else encryption_key(ec2, response._get_param("Encrypted"), asked_key)
    if asked_key and not key:
        raise invalid("INVALID_PARAMETER_VALUE", "KmsKeyArn needs Encrypted.")
    description = response._get_param("Description", "")
    snapshot = new_snapshot(ec2, response._get_param("VolumeSize"), description, key)
    snapshot.status = "pending"
    tags = response._get_param("Tags", [])
    snapshot.add_tags({tag["Key"]: tag.get("Value", "") for tag in tags})
    inherited = all_digests(response, parent.id) if parent else {}
    response.ebs_backend.snapshots[snapshot.id] = Writing(snapshot, inherited)
    result = {
        "SnapshotId": snapshot.id,
        "OwnerId": snapshot.owner_id,
        "Status": "pending",
        "StartTime": snapshot.start_time,
        "VolumeSize": snapshot.volume_size,
        "BlockSize": BLOCK_SIZE,
        "Tags": tags,
        "Description": description,
        "ParentSnapshotId": parent.id if parent else None,
        "KmsKeyArn": key,
        "SseType": "sse-kms" if key else "none",
    }
    return ActionResult(result)


def open_writing(response: EBSResponse) -> Writing:
    snapshot_id = response._get_param("SnapshotId")
    writing = response.ebs_backend.snapshots.get(snapshot_id)
    if writing is None and snapshot_id not in response.ebs_backend.ec2_backend.snapshots:
        raise not_found(snapshot_id)
    if writing is None or writing.is_sealed:
        raise invalid("INVALID_SNAPSHOT_ID", f"The snapshot '{snapshot_id}' is not in the 'pending' state.")
    return writing


def put_snapshot_block(response: EBSResponse) -> ActionResult:
    writing, index = open_writing(response), response._get_param("BlockIndex")
    data: bytes = response._get_param("BlockData")
    if not 0 <= index < writing.snapshot.volume_size * BLOCKS_PER_GIB:
        raise invalid("INVALID_BLOCK", f"Block {index} is outside the volume of {writing.snapshot.volume_size} GiB.")
    if len(data) != BLOCK_SIZE or response._get_param("DataLength") != BLOCK_SIZE:
        raise invalid("INVALID_BLOCK", f"Block {index} has {len(data)} bytes, expected {BLOCK_SIZE}.")
    digest = hashlib.sha256(data).digest()
    checksum = base64.b64encode(digest).decode()
    if response._get_param("ChecksumAlgorithm") != "SHA256" or response._get_param("Checksum") != checksum:
        raise invalid("INVALID_BLOCK", f"Block {index} does not match its SHA256 checksum.")
    writing.digests[index] = digest
    return ActionResult({"Checksum": checksum, "ChecksumAlgorithm": "SHA256"})


def linear_checksum(digests: dict[int, bytes]) -> str:
    joined = b"".join(digests[index] for index in sorted(digests))
    return base64.b64encode(hashlib.sha256(joined).digest()).decode()


def complete_snapshot(response: EBSResponse) -> ActionResult:
    # A second CompleteSnapshot is refused, as AWS does: the snapshot is no longer open for writing. A client that lost
    # the first answer finds out with DescribeSnapshots.
    writing = open_writing(response)
    count = response._get_param("ChangedBlocksCount")
    if count != len(writing.digests):
        raise invalid("INVALID_PARAMETER_VALUE", f"ChangedBlocksCount is {count}, written: {len(writing.digests)}.")
    checksum = response._get_param("Checksum")
    how = response._get_param("ChecksumAlgorithm"), response._get_param("ChecksumAggregationMethod")
    if checksum is not None and (how != ("SHA256", "LINEAR") or checksum != linear_checksum(writing.digests)):
        raise invalid("INVALID_PARAMETER_VALUE", "The checksum does not match the blocks of the snapshot.")
    writing.is_sealed = True
    writing.snapshot.settling = Settling("status", "completed", describes=1)
    return ActionResult({"Status": "pending"})


def all_digests(response: EBSResponse, snapshot_id: str) -> dict[int, bytes]:
    """A completed snapshot's blocks, those of its parent included."""
    snapshot = response.ebs_backend.ec2_backend.snapshots.get(snapshot_id)
    if snapshot is None:
        raise not_found(snapshot_id)
    if snapshot.status != "completed":
        raise invalid("INVALID_SNAPSHOT_ID", f"The snapshot '{snapshot_id}' is not in the 'completed' state.")
    writing = response.ebs_backend.snapshots.get(snapshot_id)
    return writing.inherited | writing.digests if writing else {}


def block_page(response: EBSResponse, member: str, rows: list[dict[str, Any]], size_gib: int) -> ActionResult:
    """One page; the token is the block index that the next page starts with."""
    start = int(response._get_param("NextToken") or response._get_param("StartingBlockIndex") or 0)
    most = response._get_param("MaxResults") or 10_000
    rows = [row for row in rows if row["BlockIndex"] >= start]
    token = str(rows[most]["BlockIndex"]) if len(rows) > most else None
    return ActionResult({member: rows[:most], "VolumeSize": size_gib, "BlockSize": BLOCK_SIZE, "NextToken": token})


def list_snapshot_blocks(response: EBSResponse) -> ActionResult:
    snapshot_id = response._get_param("SnapshotId")
    digests = all_digests(response, snapshot_id)
    rows = [{"BlockIndex": index, "BlockToken": digests[index].hex()} for index in sorted(digests)]
    size = response.ebs_backend.ec2_backend.snapshots[snapshot_id].volume_size
    return block_page(response, "Blocks", rows, size)


def list_changed_blocks(response: EBSResponse) -> ActionResult:
    first_id, second_id = response._get_param("FirstSnapshotId"), response._get_param("SecondSnapshotId")
    first = all_digests(response, first_id) if first_id else {}
    second = all_digests(response, second_id)
    rows = [
        {"BlockIndex": i, "FirstBlockToken": token(first, i), "SecondBlockToken": token(second, i)}
        for i in sorted(first.keys() | second.keys())
        if first.get(i) != second.get(i)
    ]
    size = response.ebs_backend.ec2_backend.snapshots[second_id].volume_size
    return block_page(response, "ChangedBlocks", rows, size)


def token(digests: dict[int, bytes], index: int) -> str | None:
    return digests[index].hex() if index in digests else None


def get_snapshot_block(_response: EBSResponse) -> ActionResult:
    raise NotImplementedError("clawd's moto launcher keeps checksums of blocks, not their data")


def missing_snapshot(snapshot_id: str) -> ServiceException:
    return ec2_error("InvalidSnapshot.NotFound", f"The snapshot '{snapshot_id}' does not exist.")


def describe_snapshots(response: EC2Response) -> ActionResult:
    ids = response._get_param("SnapshotIds", [])
    owners = response._get_param("OwnerIds", [])
    owners = [response.current_account if owner == "self" else owner for owner in owners]
    known = response.ec2_backend.snapshots
    for snapshot_id in ids:
        if snapshot_id not in known:
            raise missing_snapshot(snapshot_id)
    chosen = [s for s in known.values() if (not ids or s.id in ids) and (not owners or s.owner_id in owners)]
    found = observe_filtered(chosen, response._filters_from_querystring(), "status")
    return ActionResult({"Snapshots": found})


def delete_snapshot(response: EC2Response) -> ActionResult:
    snapshot_id, ec2 = response._get_param("SnapshotId"), response.ec2_backend
    if snapshot_id not in ec2.snapshots:
        raise missing_snapshot(snapshot_id)
    for image in ec2.amis.values():
        if any(m.get("Ebs", {}).get("SnapshotId") == snapshot_id for m in image.block_device_mappings):
            raise ec2_error("InvalidSnapshot.InUse", f"The snapshot {snapshot_id} is currently in use by {image.id}")
    response.error_on_dryrun()
    del ec2.snapshots[snapshot_id]
    ebs_backends[response.current_account][response.region].snapshots.pop(snapshot_id, None)
    ec2.tags.pop(snapshot_id, None)
    return EmptyResult()


def get_ebs_default_kms_key_id(response: EC2Response) -> ActionResult:
    response.error_on_dryrun()
    return ActionResult({"KmsKeyId": response.ec2_backend.default_kms_key_id or DEFAULT_KEY})


def install() -> None:
    # moto verifies nothing here and knows no tokens.
    EBSResponse.start_snapshot = idempotent(start_snapshot, token_conflict)
    EBSResponse.put_snapshot_block = put_snapshot_block
    EBSResponse.complete_snapshot = complete_snapshot
    # These read moto's record of blocks, which is no longer filled.
    EBSResponse.list_snapshot_blocks = list_snapshot_blocks
    EBSResponse.list_changed_blocks = list_changed_blocks
    EBSResponse.get_snapshot_block = get_snapshot_block
    # moto ignores OwnerIds, gives NotFound no text and settles at once.
    EC2Response.describe_snapshots = describe_snapshots
    # moto protects only the snapshots that it made for its own images.
    EC2Response.delete_snapshot = delete_snapshot
    # Missing in moto, although it has the call that changes the key.
    EC2Response.get_ebs_default_kms_key_id = get_ebs_default_kms_key_id
    # moto reports 100% for a pending snapshot.
    Snapshot.progress = property(lambda snapshot: "100%" if snapshot.status == "completed" else "0%")
