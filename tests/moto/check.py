"""Self-test of launcher.py: run it with the Python of moto's virtual environment.

    ~/.cache/clawd/moto-5.2.5/bin/python tests/moto/check.py

Every behaviour that the launcher promises, over real HTTP with boto3; then its speed.
"""

import base64
import hashlib
import http.client
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import boto3
from botocore.config import Config
from botocore.exceptions import ClientError

BLOCK = 512 * 1024
LAUNCHER = Path(__file__).with_name("launcher.py")
CREDENTIALS = {"aws_access_key_id": "test", "aws_secret_access_key": "test"}


def start() -> tuple[subprocess.Popen[bytes], int]:
    pipe = subprocess.PIPE
    server = subprocess.Popen([sys.executable, str(LAUNCHER)], stdin=pipe, stdout=pipe, stderr=pipe)
    word, port = server.stdout.readline().split()
    assert word == b"ready"
    return server, int(port)


class Aws:
    """One client per service of a region."""

    def __init__(self, port: int, region: str = "eu-central-1"):
        config = Config(s3={"addressing_style": "path"}, retries={"max_attempts": 1}, max_pool_connections=16)
        common = {"region_name": region, "endpoint_url": f"http://127.0.0.1:{port}", "config": config, **CREDENTIALS}
        self.ec2: Any = boto3.client("ec2", **common)
        self.ebs: Any = boto3.client("ebs", **common)
        self.s3: Any = boto3.client("s3", **common)


def refused(code: str, call: Callable[..., Any], text: str = "", **arguments: Any) -> dict[str, Any]:
    try:
        call(**arguments)
    except ClientError as error:
        found = error.response["Error"]
        assert found["Code"] == code, f"expected {code}: {error}"
        assert text in found["Message"], f"expected {text!r}: {error}"
        return error.response
    raise AssertionError(f"{code} expected, but {call.__name__} succeeded: {arguments}")


def sha256(data: bytes) -> str:
    return base64.b64encode(hashlib.sha256(data).digest()).decode()


def tags(kind: str, **pairs: str) -> list[dict[str, Any]]:
    return [{"ResourceType": kind, "Tags": [{"Key": key, "Value": value} for key, value in pairs.items()]}]


def put_block(aws: Aws, snapshot: str, index: int, data: bytes, checksum: str | None = None) -> None:
    checksum = checksum or sha256(data)
    aws.ebs.put_snapshot_block(
        SnapshotId=snapshot, BlockIndex=index, BlockData=data, DataLength=len(data), Checksum=checksum,
        ChecksumAlgorithm="SHA256",
    )  # fmt: skip


def snapshot_of(aws: Aws, snapshot: str) -> dict[str, Any]:
    [found] = aws.ec2.describe_snapshots(SnapshotIds=[snapshot])["Snapshots"]
    return found


def linear(*blocks: bytes) -> dict[str, Any]:
    digests = b"".join(hashlib.sha256(block).digest() for block in blocks)
    checksum = {"Checksum": sha256(digests), "ChecksumAlgorithm": "SHA256", "ChecksumAggregationMethod": "LINEAR"}
    return {"ChangedBlocksCount": len(blocks)} | checksum


def completed_snapshot(aws: Aws, **arguments: Any) -> str:
    snapshot = aws.ebs.start_snapshot(VolumeSize=1, **arguments)["SnapshotId"]
    aws.ebs.complete_snapshot(SnapshotId=snapshot, ChangedBlocksCount=0)
    states = [snapshot_of(aws, snapshot)["State"] for _ in range(3)]
    assert states == ["pending", "completed", "completed"], states
    return snapshot


def check_import(aws: Aws) -> None:
    aws.s3.create_bucket(Bucket="disks", CreateBucketConfiguration={"LocationConstraint": "eu-central-1"})
    aws.s3.put_object(Bucket="disks", Key="nixos.raw", Body=b"x" * 1000)

    def request(**changes: Any) -> dict[str, Any]:
        place = {"S3Bucket": "disks", "S3Key": changes.pop("key", "nixos.raw")}
        container = {"Format": "RAW", "UserBucket": place, "Description": changes.pop("disk", "root")}
        specification = tags("import-snapshot-task", Name="clawd")
        return {"DiskContainer": container, "ClientToken": "one", "TagSpecifications": specification} | changes

    call, describe = aws.ec2.import_snapshot, aws.ec2.describe_import_snapshot_tasks
    task = call(**request())
    assert call(**request())["ImportTaskId"] == task["ImportTaskId"]
    refused("IdempotentParameterMismatch", call, **request(disk="other"))
    refused("InvalidParameter", call, "does not exist", **request(key="missing", ClientToken="two"))
    missing = "The service role vmimport provided does not exist or does not have sufficient permissions"
    refused("InvalidParameter", call, missing, **request(RoleName="missing-vmimport", ClientToken="three"))
    refused("InvalidConversionTaskId.Malformed", describe, ImportTaskIds=["import-snap-0"])
    seen = [describe(ImportTaskIds=[task["ImportTaskId"]])["ImportSnapshotTasks"][0] for _ in range(4)]
    details = [one["SnapshotTaskDetail"] for one in seen]
    assert [d["Status"] for d in details] == ["active", "active", "active", "completed"]
    assert all(d["Progress"] and d["StatusMessage"] and "SnapshotId" not in d for d in details[:3])
    snapshot = snapshot_of(aws, details[3]["SnapshotId"])
    assert (snapshot["VolumeSize"], snapshot["State"], snapshot.get("Tags", [])) == (1, "completed", [])
    assert seen[3]["Tags"] == [{"Key": "Name", "Value": "clawd"}]
    by_tag = [{"Name": "tag:Name", "Values": ["clawd"]}]
    assert len(describe(Filters=by_tag)["ImportSnapshotTasks"]) == 1

    failing = call(**request(disk="fail-import", ClientToken="four"))["ImportTaskId"]
    detail = [describe(ImportTaskIds=[failing])["ImportSnapshotTasks"][0]["SnapshotTaskDetail"] for _ in range(4)][3]
    assert detail["Status"] == "deleted"
    assert detail["StatusMessage"] == "ClientError: Disk validation failed [Unsupported VMDK File Format]"

    other = call(**request(ClientToken="five"))["ImportTaskId"]
    cancelled = aws.ec2.cancel_import_task(ImportTaskId=other, CancelReason="enough")
    assert (cancelled["PreviousState"], cancelled["State"]) == ("active", "deleting")
    assert describe(ImportTaskIds=[other])["ImportSnapshotTasks"][0]["SnapshotTaskDetail"]["Status"] == "deleted"
    refused("IncorrectState", aws.ec2.cancel_import_task, ImportTaskId=other)


def check_start_snapshot(aws: Aws) -> None:
    labels = [{"Key": "clawd:plan", "Value": "a b"}]
    request = {"VolumeSize": 2, "Description": "root disk", "ClientToken": "one", "Tags": labels}
    started = aws.ebs.start_snapshot(**request)
    snapshot = started["SnapshotId"]
    assert (started["BlockSize"], started["Status"], started["Tags"]) == (BLOCK, "pending", labels)
    assert aws.ebs.start_snapshot(**request)["SnapshotId"] == snapshot
    answer = refused("ConflictException", aws.ebs.start_snapshot, **request | {"VolumeSize": 3})
    assert answer["ResponseMetadata"]["HTTPStatusCode"] == 409
    filters = [{"Name": "tag:clawd:plan", "Values": ["a b"]}]
    [shown] = aws.ec2.describe_snapshots(OwnerIds=["self"], Filters=filters)["Snapshots"]
    assert (shown["SnapshotId"], shown["State"], shown["VolumeSize"]) == (snapshot, "pending", 2)
    assert (shown["Description"], shown["Tags"], shown["Encrypted"]) == ("root disk", labels, False)
    assert abs(shown["StartTime"] - datetime.now(UTC)) < timedelta(minutes=1)
    unfinished = {"VolumeSize": 2, "ParentSnapshotId": snapshot}
    refused("ValidationException", aws.ebs.start_snapshot, **unfinished)
    unknown = unfinished | {"ParentSnapshotId": "snap-0123456789abcdef0"}
    refused("ValidationException", aws.ebs.start_snapshot, **unknown)
    key = "arn:aws:kms:eu-central-1:123456789012:key/1"
    secret = aws.ebs.start_snapshot(VolumeSize=1, Encrypted=True, KmsKeyArn=key)["SnapshotId"]
    assert (snapshot_of(aws, secret)["Encrypted"], snapshot_of(aws, secret)["KmsKeyId"]) == (True, key)
    refused("InvalidSnapshot.NotFound", aws.ec2.describe_snapshots, "snap-1", SnapshotIds=[snapshot, "snap-1"])
    mine = aws.ec2.describe_snapshots(OwnerIds=["self"])["Snapshots"]
    assert len(aws.ec2.describe_snapshots()["Snapshots"]) > len(mine) and len(mine) < 10


def check_blocks(aws: Aws) -> None:
    snapshot = aws.ebs.start_snapshot(VolumeSize=1)["SnapshotId"]
    zeros, ones = bytes(BLOCK), b"\1" * BLOCK
    put_block(aws, snapshot, 7, ones)
    put_block(aws, snapshot, 0, zeros)
    answer = refused("ValidationException", lambda: put_block(aws, snapshot, 1, ones, sha256(zeros)), "checksum")
    assert (answer["Reason"], answer["ResponseMetadata"]["HTTPStatusCode"]) == ("INVALID_BLOCK", 400)
    refused("ValidationException", lambda: put_block(aws, snapshot, 2048, ones), "outside")
    refused("ValidationException", lambda: put_block(aws, snapshot, 1, b"short"), "bytes")
    refused("ResourceNotFoundException", lambda: put_block(aws, "snap-0123456789abcdef0", 1, ones))
    complete = aws.ebs.complete_snapshot
    refused("ValidationException", complete, "ChangedBlocksCount", SnapshotId=snapshot, ChangedBlocksCount=3)
    refused("ValidationException", complete, "checksum", SnapshotId=snapshot, **linear(ones, zeros))
    assert [snapshot_of(aws, snapshot)["State"] for _ in range(3)] == ["pending"] * 3
    complete(SnapshotId=snapshot, **linear(zeros, ones))
    refused("ValidationException", lambda: put_block(aws, snapshot, 1, ones), "pending")
    waiting = [{"Name": "status", "Values": ["completed"]}, {"Name": "snapshot-id", "Values": [snapshot]}]
    assert [len(aws.ec2.describe_snapshots(Filters=waiting)["Snapshots"]) for _ in range(2)] == [0, 1]
    refused("ValidationException", complete, "pending", SnapshotId=snapshot, **linear(zeros, ones))
    child_request = {"VolumeSize": 1, "ParentSnapshotId": snapshot}
    refused("ValidationException", aws.ebs.start_snapshot, **child_request, Encrypted=True)
    refused("ValidationException", aws.ebs.start_snapshot, **child_request, KmsKeyArn="arn:aws:kms:a:1:key/1")
    child = aws.ebs.start_snapshot(**child_request)["SnapshotId"]
    put_block(aws, child, 9, ones)
    complete(SnapshotId=child, ChangedBlocksCount=1)
    assert [snapshot_of(aws, child)["State"] for _ in range(2)] == ["pending", "completed"]
    page = aws.ebs.list_snapshot_blocks(SnapshotId=child, MaxResults=100)["Blocks"]
    assert [block["BlockIndex"] for block in page] == [0, 7, 9]
    changed = aws.ebs.list_changed_blocks(FirstSnapshotId=snapshot, SecondSnapshotId=child)["ChangedBlocks"]
    assert [block["BlockIndex"] for block in changed] == [9]


def image_request(snapshot: str, **changes: Any) -> dict[str, Any]:
    ebs = {"SnapshotId": snapshot, "VolumeType": "gp3", "VolumeSize": 5, "DeleteOnTermination": True}
    return {
        "Name": "clawd-web-1", "Description": "a web host", "Architecture": "arm64", "BootMode": "uefi",
        "ImdsSupport": "v2.0", "EnaSupport": True, "RootDeviceName": "/dev/xvda", "VirtualizationType": "hvm",
        "BlockDeviceMappings": [{"DeviceName": "/dev/xvda", "Ebs": ebs}],
        "TagSpecifications": tags("image", Name="web", plan="p"),
    } | changes  # fmt: skip


def check_register(aws: Aws) -> tuple[str, str]:
    register, describe = aws.ec2.register_image, aws.ec2.describe_images
    snapshot = completed_snapshot(aws)
    image = register(**image_request(snapshot))["ImageId"]
    refused("InvalidAMIName.Duplicate", register, f"AMI name clawd-web-1 is already in use by AMI {image}",
            **image_request(snapshot))  # fmt: skip
    pending = aws.ebs.start_snapshot(VolumeSize=1)["SnapshotId"]
    refused("IncorrectState", register, **image_request(pending, Name="second"))
    refused("InvalidSnapshot.NotFound", register, **image_request("snap-0123456789abcdef0", Name="second"))
    refused("InvalidAMIID.Unavailable", aws.ec2.run_instances, ImageId=image, MinCount=1, MaxCount=1)
    states = [describe(ImageIds=[image])["Images"][0]["State"] for _ in range(2)]
    assert states == ["pending", "available"], states
    [shown] = describe(ImageIds=[image])["Images"]
    expected = image_request(snapshot)
    for member in ("Name", "Description", "Architecture", "BootMode", "ImdsSupport", "EnaSupport", "RootDeviceName"):
        assert shown[member] == expected[member], member
    asked = expected["BlockDeviceMappings"][0]["Ebs"]
    assert asked.items() <= shown["BlockDeviceMappings"][0]["Ebs"].items()
    assert {tag["Key"]: tag["Value"] for tag in shown["Tags"]} == {"Name": "web", "plan": "p"}
    assert not shown["Public"] and shown["VirtualizationType"] == "hvm"
    later = [register(**image_request(snapshot, Name=f"name-{i}"))["ImageId"] for i in range(5)]
    dates = [describe(ImageIds=[one])["Images"][0]["CreationDate"] for one in [image, *later]]
    assert dates == sorted(set(dates)) and all(datetime.fromisoformat(date) for date in dates), dates
    refused("InvalidAMIID.NotFound", describe, ImageIds=[image, "ami-0123456789abcdef0"])
    return image, snapshot


def check_image_filters(aws: Aws, image: str, snapshot: str) -> None:
    def found(*owners: str, **filters: str) -> set[str]:
        pairs = [{"Name": name.replace("__", ":").replace("_", "-"), "Values": [v]} for name, v in filters.items()]
        return {one["ImageId"] for one in aws.ec2.describe_images(Owners=list(owners), Filters=pairs)["Images"]}

    ours = found("self")
    assert image in ours and len(ours) == 6 and len(found()) > 6
    assert found("self", tag__Name="web") == ours and found("self", tag__Name="db") == set()
    assert found(name="clawd-web-*") == found(image_id=image) == {image}
    assert found("self", state="available") == ours and found("self", state="pending") == set()
    pair = {"Name": "block-device-mapping.snapshot-id", "Values": [snapshot]}
    assert len(aws.ec2.describe_images(Filters=[pair])["Images"]) == 6


def check_image_attributes(aws: Aws, image: str) -> None:
    moment = datetime(2031, 2, 3, 4, 5, 40, tzinfo=UTC)
    aws.ec2.enable_image_deprecation(ImageId=image, DeprecateAt=moment)
    assert aws.ec2.describe_images(ImageIds=[image])["Images"][0]["DeprecationTime"] == "2031-02-03T04:06:00.000Z"
    aws.ec2.disable_image_deprecation(ImageId=image)
    assert "DeprecationTime" not in aws.ec2.describe_images(ImageIds=[image])["Images"][0]
    user, everyone = {"UserId": "210987654321"}, {"Group": "all"}

    def permissions() -> list[dict[str, str]]:
        return aws.ec2.describe_image_attribute(ImageId=image, Attribute="launchPermission")["LaunchPermissions"]

    aws.ec2.modify_image_attribute(ImageId=image, LaunchPermission={"Add": [user, everyone]})
    assert permissions() == [user, everyone] and aws.ec2.describe_images(ImageIds=[image])["Images"][0]["Public"]
    aws.ec2.modify_image_attribute(ImageId=image, LaunchPermission={"Remove": [everyone]})
    assert permissions() == [user]
    aws.ec2.modify_image_attribute(ImageId=image, Description={"Value": "new text"})
    assert aws.ec2.describe_images(ImageIds=[image])["Images"][0]["Description"] == "new text"
    missing = {"ImageId": "ami-0123456789abcdef0", "Attribute": "launchPermission"}
    refused("InvalidAMIID.NotFound", aws.ec2.describe_image_attribute, **missing)


def check_copy(aws: Aws, other: Aws, image: str) -> None:
    request = {
        "Name": "copied", "SourceImageId": image, "SourceRegion": "eu-central-1", "ClientToken": "c1",
        "TagSpecifications": tags("image", Name="copy") + tags("snapshot", of="copy"),
    }  # fmt: skip
    copied = other.ec2.copy_image(**request)["ImageId"]
    assert other.ec2.copy_image(**request)["ImageId"] == copied
    refused("IdempotentParameterMismatch", other.ec2.copy_image, **request | {"Name": "copied-2"})
    refused("InvalidAMIName.Duplicate", other.ec2.copy_image, copied, **request | {"ClientToken": "c2"})
    states = [other.ec2.describe_images(ImageIds=[copied])["Images"][0]["State"] for _ in range(2)]
    assert states == ["pending", "available"]
    [shown] = other.ec2.describe_images(Owners=["self"])["Images"]
    assert (shown["Architecture"], shown["SourceImageId"], shown["BootMode"]) == ("arm64", image, "uefi")
    assert shown["Tags"] == [{"Key": "Name", "Value": "copy"}]
    snapshot = snapshot_of(other, shown["BlockDeviceMappings"][0]["Ebs"]["SnapshotId"])
    assert snapshot["Tags"] == [{"Key": "of", "Value": "copy"}]
    refused("InvalidAMIID.NotFound", aws.ec2.describe_images, ImageIds=[copied])


def check_removal(aws: Aws, image: str, snapshot: str) -> None:
    refused("InvalidSnapshot.InUse", aws.ec2.delete_snapshot, "is currently in use by ami-", SnapshotId=snapshot)
    for one in aws.ec2.describe_images(Owners=["self"])["Images"]:
        aws.ec2.deregister_image(ImageId=one["ImageId"])
    assert aws.ec2.describe_images(Owners=["self"])["Images"] == []
    assert aws.ec2.describe_images(ImageIds=[image])["Images"] == []
    aws.ec2.delete_snapshot(SnapshotId=snapshot)
    refused("InvalidSnapshot.NotFound", aws.ec2.describe_snapshots, SnapshotIds=[snapshot])
    refused("InvalidSnapshot.NotFound", aws.ec2.delete_snapshot, SnapshotId=snapshot)


def check_tokens(aws: Aws, image: str) -> None:
    volume = {"AvailabilityZone": "eu-central-1a", "Size": 3, "ClientToken": "v"}
    first = aws.ec2.create_volume(**volume)["VolumeId"]
    assert aws.ec2.create_volume(**volume)["VolumeId"] == first
    refused("IdempotentParameterMismatch", aws.ec2.create_volume, **volume | {"Size": 4})
    assert [one["VolumeId"] for one in aws.ec2.describe_volumes()["Volumes"]] == [first]
    launch = {"ImageId": image, "MinCount": 1, "MaxCount": 1, "InstanceType": "t4g.nano", "ClientToken": "i"}
    [instance] = aws.ec2.run_instances(**launch)["Instances"]
    [again] = aws.ec2.run_instances(**launch)["Instances"]
    assert instance["InstanceId"] == again["InstanceId"] and instance["ClientToken"] == "i"
    refused("IdempotentParameterMismatch", aws.ec2.run_instances, **launch | {"InstanceType": "t4g.micro"})
    assert len(aws.ec2.describe_instances()["Reservations"]) == 1


def check_encryption(aws: Aws) -> None:
    assert aws.ec2.get_ebs_encryption_by_default()["EbsEncryptionByDefault"] is False
    assert aws.ec2.get_ebs_default_kms_key_id()["KmsKeyId"] == "alias/aws/ebs"
    aws.ec2.enable_ebs_encryption_by_default()
    assert aws.ec2.get_ebs_encryption_by_default()["EbsEncryptionByDefault"] is True
    snapshot = snapshot_of(aws, aws.ebs.start_snapshot(VolumeSize=1)["SnapshotId"])
    assert snapshot["Encrypted"] and snapshot["KmsKeyId"].startswith("arn:aws:kms:")
    aws.ec2.disable_ebs_encryption_by_default()
    plain = completed_snapshot(aws)
    aws.ec2.enable_ebs_encryption_by_default()
    refused("ValidationException", aws.ebs.start_snapshot, "encrypted parent", VolumeSize=1, ParentSnapshotId=plain)
    aws.ec2.disable_ebs_encryption_by_default()


def check_multipart(aws: Aws) -> None:
    common = {"Bucket": "disks", "Key": "up/a.raw"}
    upload = aws.s3.create_multipart_upload(**common, ChecksumAlgorithm="SHA256")["UploadId"]
    aws.s3.create_multipart_upload(Bucket="disks", Key="other")
    [listed] = aws.s3.list_multipart_uploads(Bucket="disks", Prefix="up/")["Uploads"]
    assert listed["UploadId"] == upload and abs(listed["Initiated"] - datetime.now(UTC)) < timedelta(minutes=1)
    parts = {1: b"a" * (5 << 20), 2: b"the end"}
    where = {**common, "UploadId": upload}

    def put(number: int, checksum: str) -> dict[str, Any]:
        part = {"PartNumber": number, "Body": parts[number], "ChecksumSHA256": checksum}
        return aws.s3.upload_part(**where, **part)

    refused("BadDigest", lambda: put(1, sha256(b"other")))
    refused("InvalidRequest", aws.s3.upload_part, "sha256", **where, PartNumber=1, Body=b"x", ChecksumAlgorithm="CRC32")
    done = [put(number, sha256(parts[number])) for number in (2, 1)]
    assert done[1]["ChecksumSHA256"] == sha256(parts[1])
    streamed = aws.s3.upload_part(**where, PartNumber=3, Body=b"streamed", ChecksumAlgorithm="SHA256")
    assert streamed["ChecksumSHA256"] == sha256(b"streamed")
    found = aws.s3.list_parts(**where)["Parts"]
    assert [(p["PartNumber"], p["Size"]) for p in found] == [(1, 5 << 20), (2, 7), (3, 8)]
    assert [p["ChecksumSHA256"] for p in found] == [sha256(parts[1]), sha256(parts[2]), sha256(b"streamed")]
    [second] = aws.s3.list_parts(**where, PartNumberMarker=1, MaxParts=1)["Parts"]
    assert second["PartNumber"] == 2
    chosen = [{name: p[name] for name in ("PartNumber", "ETag", "ChecksumSHA256")} for p in found[:2]]
    wrong = [chosen[0] | {"ChecksumSHA256": sha256(b"?")}, chosen[1]]
    bare = [{name: p[name] for name in ("PartNumber", "ETag")} for p in chosen]
    refused("InvalidPart", aws.s3.complete_multipart_upload, **where, MultipartUpload={"Parts": wrong})
    refused("InvalidRequest", aws.s3.complete_multipart_upload, **where, MultipartUpload={"Parts": bare})
    aws.s3.complete_multipart_upload(**where, MultipartUpload={"Parts": chosen})
    assert aws.s3.get_object(**common)["Body"].read() == parts[1] + parts[2]
    refused("NoSuchUpload", aws.s3.list_parts, **where)
    whole = {"Bucket": "disks", "Key": "k", "Body": b"body"}
    refused("BadDigest", aws.s3.put_object, **whole, ChecksumSHA256=sha256(b"?"))
    aws.s3.put_object(**whole, ChecksumSHA256=sha256(b"body"), IfNoneMatch="*")
    refused("PreconditionFailed", aws.s3.put_object, **whole, IfNoneMatch="*")
    assert aws.s3.head_object(Bucket="disks", Key="k")["ContentLength"] == 4
    aws.s3.delete_object(Bucket="disks", Key="k")
    refused("404", aws.s3.head_object, Bucket="disks", Key="k")


def check_buckets(aws: Aws) -> None:
    """A bucket of another account is refused to whoever names the owner that it should have."""
    place = {"CreateBucketConfiguration": {"LocationConstraint": "eu-central-1"}}
    aws.s3.create_bucket(Bucket="own-bucket", **place)

    def as_stranger(request: Any, **_: Any) -> None:
        request.headers["x-moto-account-id"] = "210987654321"

    aws.s3.meta.events.register("before-send.s3.CreateBucket", as_stranger)
    aws.s3.create_bucket(Bucket="strange-bucket", **place)
    aws.s3.meta.events.unregister("before-send.s3.CreateBucket", as_stranger)
    owner = {"ExpectedBucketOwner": "123456789012"}
    assert "Status" not in aws.s3.get_bucket_versioning(Bucket="own-bucket", **owner)
    enabled = {"VersioningConfiguration": {"Status": "Enabled"}}
    aws.s3.put_bucket_versioning(Bucket="own-bucket", **enabled, **owner)
    assert aws.s3.get_bucket_versioning(Bucket="own-bucket", **owner)["Status"] == "Enabled"
    aws.s3.head_bucket(Bucket="strange-bucket")
    refused("403", aws.s3.head_bucket, Bucket="strange-bucket", **owner)
    refused("AccessDenied", aws.s3.put_bucket_versioning, Bucket="strange-bucket", **enabled, **owner)
    refused("BucketAlreadyExists", aws.s3.create_bucket, Bucket="strange-bucket", **place)
    refused("404", aws.s3.head_bucket, Bucket="no-bucket", **owner)


def check_launch_templates(aws: Aws) -> None:
    for number in range(20):
        data = {"ImageId": f"ami-{number:017x}"}
        aws.ec2.create_launch_template(LaunchTemplateName=f"lt-{number}", LaunchTemplateData=data)
    newer = {"LaunchTemplateData": {"ImageId": "ami-ffffffffffffffff0"}}
    aws.ec2.create_launch_template_version(LaunchTemplateName="lt-0", **newer)
    describe = aws.ec2.describe_launch_template_versions
    rows = describe(Versions=["$Latest", "$Default"])["LaunchTemplateVersions"]
    assert len({row["LaunchTemplateId"] for row in rows}) == 20 and len(rows) == 40
    assert {r["VersionNumber"] for r in rows if r["LaunchTemplateName"] == "lt-0"} == {1, 2}
    pages = aws.ec2.get_paginator("describe_launch_templates").paginate(PaginationConfig={"PageSize": 7})
    assert [len(page["LaunchTemplates"]) for page in pages] == [7, 7, 6]


def check_missing_calls(aws: Aws, snapshot: str) -> None:
    answer = refused("NotImplemented", aws.ec2.describe_volume_status, "not yet implemented")
    assert answer["ResponseMetadata"]["HTTPStatusCode"] == 501
    refused("NotImplemented", aws.ebs.get_snapshot_block, SnapshotId=snapshot, BlockIndex=0, BlockToken="x")


def check_one_winner(aws: Aws) -> None:
    """Check-then-write is atomic, however many clients race."""

    def put(number: int) -> int:
        try:
            aws.s3.put_object(Bucket="disks", Key="lock", Body=b"%d" % number, IfNoneMatch="*")
        except ClientError:
            return 0
        return 1

    def volume(_: int) -> str:
        return aws.ec2.create_volume(AvailabilityZone="eu-central-1a", Size=1, ClientToken="race")["VolumeId"]

    with ThreadPoolExecutor(16) as pool:
        assert sum(pool.map(put, range(48))) == 1
        assert len(set(pool.map(volume, range(48)))) == 1


def check_keep_alive(port: int) -> None:
    """Refusals, bodies that nobody reads, HEAD and chunked requests all leave the connection usable."""
    connection = http.client.HTTPConnection("127.0.0.1", port)
    scope = "AWS4-HMAC-SHA256 Credential=AKIAIOSFODNN7EXAMPLE/20250101/eu-central-1/{}/aws4_request, Signature=0"
    socket = None
    for service, method, path, body in [
        ("ebs", "POST", "/snapshots", b'{"VolumeSize": 1, "ParentSnapshotId": "snap-1"}'),
        ("s3", "GET", "/nobucket/nokey", b"x" * 100_000),
        ("s3", "HEAD", "/disks/up/a.raw", None),
        ("s3", "PUT", "/disks/chunked", iter([b"one", b"two"])),
        ("s3", "GET", "/disks/chunked", None),
        ("ec2", "POST", "/", b"Action=NoSuchAction&Version=2016-11-15"),
        ("s3", "DELETE", "/disks/chunked", None),
    ]:
        headers = {"Authorization": scope.format(service)}
        if service == "ec2":
            headers["Content-Type"] = "application/x-www-form-urlencoded"
        connection.request(method, path, body, headers, encode_chunked=not isinstance(body, bytes | None))
        answer = connection.getresponse()
        text = answer.read()
        assert answer.getheader("Content-Length") is not None or answer.status == 204, (path, answer.status)
        assert socket in (None, connection.sock), f"{method} {path} closed the connection"
        socket = connection.sock
        if (method, path) == ("GET", "/disks/chunked"):
            assert text == b"onetwo", text


def measure_blocks(port: int, clients: int = 8, each: int = 250) -> float:
    """PutSnapshotBlock calls per second, over raw keep-alive connections, so that boto3's cost is not measured."""
    snapshot = Aws(port).ebs.start_snapshot(VolumeSize=1)["SnapshotId"]
    data = os.urandom(BLOCK)
    headers = {
        "Authorization": "AWS4-HMAC-SHA256 Credential=AKIAIOSFODNN7EXAMPLE/20250101/eu-central-1/ebs/aws4_request, x",
        "Content-Type": "application/octet-stream",
        "x-amz-Data-Length": str(BLOCK), "x-amz-Checksum": sha256(data), "x-amz-Checksum-Algorithm": "SHA256",
    }  # fmt: skip
    statuses: list[int] = []

    def work(client: int) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", port)
        for number in range(each):
            connection.request("PUT", f"/snapshots/{snapshot}/blocks/{client * each + number}", data, headers)
            answer = connection.getresponse()
            answer.read()
            statuses.append(answer.status)

    threads = [threading.Thread(target=work, args=(client,)) for client in range(clients)]
    begun = time.monotonic()
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    assert statuses == [201] * clients * each, set(statuses)
    Aws(port).ebs.complete_snapshot(SnapshotId=snapshot, ChangedBlocksCount=clients * each)
    return clients * each / (time.monotonic() - begun)


def check_end(server: subprocess.Popen[bytes]) -> None:
    server.stdin.close()
    assert server.wait(timeout=5) == 0
    assert (server.stdout.read(), server.stderr.read()) == (b"", b"")


def main() -> None:
    begun = time.monotonic()
    server, port = start()
    ready = time.monotonic() - begun
    aws, other = Aws(port), Aws(port, "us-east-1")
    aws.ec2.describe_snapshots(OwnerIds=["self"])
    first = time.monotonic() - begun
    check_import(aws)
    check_start_snapshot(aws)
    check_blocks(aws)
    image, snapshot = check_register(aws)
    check_image_filters(aws, image, snapshot)
    check_image_attributes(aws, image)
    check_copy(aws, other, image)
    check_tokens(aws, image)
    check_removal(aws, image, snapshot)
    check_encryption(aws)
    check_multipart(aws)
    check_buckets(aws)
    check_launch_templates(aws)
    check_missing_calls(aws, snapshot)
    check_one_winner(aws)
    check_keep_alive(port)
    rate = measure_blocks(port)
    check_end(server)
    print(f"ready after {ready:.2f} s, first EC2 answer after {first:.2f} s, {rate:.0f} blocks of 512 KiB per second")
    print("moto launcher: all checks passed")


if __name__ == "__main__":
    main()
