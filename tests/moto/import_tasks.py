"""EC2 ImportSnapshot, DescribeImportSnapshotTasks and CancelImportTask, all missing in moto.

A task shows `active`, with Progress and StatusMessage, for three describes and is settled from the fourth on. A
Description of the DiskContainer that contains `fail-import` makes it fail; the RoleName `missing-vmimport` is refused.
Sizes come from the S3 object, whatever the format. Tags stay on the task, as on AWS; DescribeTags does not list them.
"""

import math
from dataclasses import dataclass
from typing import Any

from moto.core.responses import ActionResult
from moto.ec2.responses import EC2Response
from moto.ec2.utils import generic_filter, random_id
from moto.s3.exceptions import S3ClientError
from moto.s3.models import s3_backends

from shared import ec2_error, idempotent, state_of
from snapshots import encryption_key, new_snapshot

ACTIVE = [("3", "pending"), ("19", "converting"), ("84", "updating")]
GIB = 1 << 30
FAILED = "ClientError: Disk validation failed [Unsupported VMDK File Format]"


@dataclass
class ImportTask:
    ec2_backend: Any
    id: str
    description: str
    container: dict[str, Any]
    size: int
    kms_key_id: str | None
    tags: dict[str, str]
    describes: int = 0
    status: str = "active"
    message: str | None = None
    snapshot_id: str | None = None

    def describe(self) -> dict[str, Any]:
        shown = self.shown()
        self.describes += 1
        return shown

    def advance(self) -> None:
        if self.status == "deleting":
            self.status = "deleted"
        elif self.status == "active" and self.describes >= len(ACTIVE):
            self.settle()

    def settle(self) -> None:
        if "fail-import" in self.container.get("Description", ""):
            self.status, self.message = "deleted", FAILED
            return
        text = f"Created by AWS-VMImport service for {self.id}"
        size = max(1, math.ceil(self.size / GIB))
        self.snapshot_id = new_snapshot(self.ec2_backend, size, text, self.kms_key_id).id
        self.status = "completed"

    def shown(self) -> dict[str, Any]:
        progress, message = ACTIVE[min(self.describes, len(ACTIVE) - 1)]
        is_active = self.status == "active"
        detail = {
            "Description": self.container.get("Description"),
            "DiskImageSize": float(self.size),
            "Format": self.container.get("Format", "").upper() or None,
            "Url": self.container.get("Url"),
            "UserBucket": self.container.get("UserBucket"),
            "Status": self.status,
            "Progress": progress if is_active else None,
            "StatusMessage": message if is_active else self.message,
            "SnapshotId": self.snapshot_id,
            "Encrypted": self.kms_key_id is not None,
            "KmsKeyId": self.kms_key_id,
        }
        tags = [{"Key": key, "Value": value} for key, value in self.tags.items()]
        shown = {"Description": self.description, "ImportTaskId": self.id, "SnapshotTaskDetail": detail, "Tags": tags}
        return shown

    def get_filter_value(self, name: str) -> Any:
        return self.tags.get(name.removeprefix("tag:")) if name.startswith("tag:") else getattr(self, name, None)


def object_size(response: EC2Response, container: dict[str, Any]) -> int:
    """The size of the disk image in S3, in bytes."""
    place = container.get("UserBucket", {})
    bucket, _, key = container.get("Url", "").removeprefix("s3://").partition("/")
    bucket, key = place.get("S3Bucket", bucket), place.get("S3Key", key)
    try:
        found = s3_backends[response.current_account][response.partition].head_object(bucket, key)
    except S3ClientError:
        found = None
    if found is None:
        raise ec2_error("InvalidParameter", f"The given S3 object does not exist: s3://{bucket}/{key}")
    return found.size


def import_snapshot(response: EC2Response) -> ActionResult:
    tags = response._parse_tag_specification("import-snapshot-task").get("import-snapshot-task", {})
    if response._get_param("RoleName") == "missing-vmimport":
        raise ec2_error(
            "InvalidParameter",
            "The service role vmimport provided does not exist or does not have sufficient permissions",
        )
    container = response._get_param("DiskContainer", {})
    size = object_size(response, container)
    key = encryption_key(response.ec2_backend, response._get_param("Encrypted"), response._get_param("KmsKeyId"))
    response.error_on_dryrun()
    description = response._get_param("Description", "")
    task_id = random_id("import-snap")
    task = ImportTask(response.ec2_backend, task_id, description, dict(container), size, key, tags)
    state_of(response.ec2_backend).import_tasks[task.id] = task
    return ActionResult(task.shown())


def described_tasks(response: EC2Response, ids: list[str]) -> list[ImportTask]:
    tasks = state_of(response.ec2_backend).import_tasks
    if unknown := [i for i in ids if i not in tasks]:
        raise ec2_error("InvalidConversionTaskId.Malformed", f"Tasks {', '.join(unknown)} not found.")
    return [tasks[i] for i in ids] or list(tasks.values())


def describe_import_snapshot_tasks(response: EC2Response) -> ActionResult:
    tasks = described_tasks(response, response._get_param("ImportTaskIds", []))
    tasks = generic_filter(response._filters_from_querystring(), tasks)
    for task in tasks:
        task.advance()
    return ActionResult({"ImportSnapshotTasks": [task.describe() for task in tasks]})


def cancel_import_task(response: EC2Response) -> ActionResult:
    [task] = described_tasks(response, [response._get_param("ImportTaskId")])
    if task.status != "active":
        raise ec2_error("IncorrectState", f"The import task {task.id} is {task.status} and cannot be cancelled")
    response.error_on_dryrun()
    task.status, task.message = "deleting", response._get_param("CancelReason")
    return ActionResult({"ImportTaskId": task.id, "PreviousState": "active", "State": task.status})


def install() -> None:
    # moto has none of the three; its dispatcher finds methods by name.
    EC2Response.import_snapshot = idempotent(import_snapshot)
    EC2Response.describe_import_snapshot_tasks = describe_import_snapshot_tasks
    EC2Response.cancel_import_task = cancel_import_task
