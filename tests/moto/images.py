"""EC2 images: RegisterImage, CopyImage and what shows, changes and removes them.

moto keeps only the name and description of a registered image, accepts a name twice, and ignores snapshots, tags and
tokens. Here an image is `pending` in the first DescribeImages that selects it and `available` from the next on.
"""

from datetime import UTC, datetime, timedelta
from typing import Any

from moto.core.responses import ActionResult
from moto.core.utils import iso_8601_datetime_with_milliseconds
from moto.ec2.exceptions import InvalidAMIIdError
from moto.ec2.models import ec2_backends
from moto.ec2.models.amis import Ami
from moto.ec2.responses import EC2Response
from moto.ec2.responses._base_response import EC2BaseResponse
from moto.ec2.utils import random_ami_id

from shared import Settling, ec2_error, idempotent, next_time, observe_filtered
from snapshots import encryption_key, missing_snapshot, new_snapshot

IMAGE_MEMBERS = ["architecture", "boot_mode", "ena_support", "imds_support", "sriov_net_support", "tpm_support"]


class RegisteredImage(Ami):
    """An image of ours. moto's constructor invents a 15 GiB snapshot; this one takes the caller's mappings."""

    __module__ = Ami.__module__  # moto's metaclass reads the service from the module's name

    def __init__(self, ec2_backend: Any, name: str, description: str, mappings: list[dict[str, Any]], **members: Any):
        self.ec2_backend = ec2_backend
        self.id = random_ami_id()
        self.name, self.description = name, description
        self.mappings = mappings
        self.owner_id = ec2_backend.account_id
        self.owner_alias = self.platform = self.kernel_id = self.instance_id = None
        self.image_location = f"{self.owner_id}/{name}"
        self.image_type, self.hypervisor, self.root_device_type = "machine", "xen", "ebs"
        self.platform_details, self.usage_operation = "Linux/UNIX", "RunInstances"
        self.sriov, self.product_codes, self.launch_permissions = "simple", set(), []
        self.deprecation_time: str | None = None
        self.creation_date = next_time(ec2_backend)
        self.state = "pending"
        self.settling = Settling("state", "available", describes=1)
        for member in IMAGE_MEMBERS:
            setattr(self, member, members.get(member))
        self.virtualization_type = members.get("virtualization_type") or "hvm"
        self.root_device_name = members.get("root_device_name") or "/dev/sda1"
        self.source_image_id, self.source_image_region = members.get("source", (None, None))

    @property
    def public(self) -> bool:
        return self.is_public

    @property
    def block_device_mappings(self) -> list[dict[str, Any]]:
        return self.mappings


def keep(image: RegisteredImage, tags: dict[str, str]) -> ActionResult:
    image.ec2_backend.amis[image.id] = image
    image.add_tags(tags)
    return ActionResult({"ImageId": image.id})


def refuse_duplicate_name(ec2_backend: Any, name: str) -> None:
    for image in ec2_backend.amis.values():
        if image.name == name and image.owner_id == ec2_backend.account_id:
            raise ec2_error("InvalidAMIName.Duplicate", f"AMI name {name} is already in use by AMI {image.id}")


def image_of(response: EC2Response) -> Ami:
    image_id = response._get_param("ImageId")
    if image_id not in response.ec2_backend.amis:
        raise InvalidAMIIdError([image_id])
    return response.ec2_backend.amis[image_id]


def registered_mapping(ec2_backend: Any, asked: dict[str, Any]) -> dict[str, Any]:
    """A block device mapping as DescribeImages shows it, the defaults filled in from its snapshot."""
    ebs = dict(asked.get("Ebs", {}))
    if "SnapshotId" in ebs:
        snapshot = ec2_backend.snapshots.get(ebs["SnapshotId"])
        if snapshot is None:
            raise missing_snapshot(ebs["SnapshotId"])
        if snapshot.status != "completed":
            raise ec2_error("IncorrectState", f"Snapshot '{snapshot.id}' is not 'completed'.")
        if ebs.setdefault("VolumeSize", snapshot.volume_size) < snapshot.volume_size:
            raise ec2_error(
                "InvalidBlockDeviceMapping",
                f"Volume of size {ebs['VolumeSize']}GB is smaller than snapshot '{snapshot.id}', "
                f"expect size>= {snapshot.volume_size}GB",
            )
        ebs["Encrypted"] = snapshot.encrypted
    return dict(asked) | {"Ebs": {"DeleteOnTermination": True, "VolumeType": "standard"} | ebs}


def register_image(response: EC2Response) -> ActionResult:
    ec2, name = response.ec2_backend, response._get_param("Name")
    tags = response._parse_tag_specification("image").get("image", {})
    refuse_duplicate_name(ec2, name)
    mappings = [registered_mapping(ec2, asked) for asked in response._get_param("BlockDeviceMappings", [])]
    members = {
        "architecture": response._get_param("Architecture", "i386"),
        "boot_mode": response._get_param("BootMode"),
        "ena_support": response._get_param("EnaSupport"),
        "imds_support": response._get_param("ImdsSupport"),
        "sriov_net_support": response._get_param("SriovNetSupport"),
        "tpm_support": response._get_param("TpmSupport"),
        "virtualization_type": response._get_param("VirtualizationType", "paravirtual"),
        "root_device_name": response._get_param("RootDeviceName"),
    }
    response.error_on_dryrun()
    return keep(RegisteredImage(ec2, name, response._get_param("Description", ""), mappings, **members), tags)


def copied_mapping(response: EC2Response, mapping: dict[str, Any], source: Ami) -> dict[str, Any]:
    """The mapping with a snapshot of its own in the destination region."""
    ebs, ec2 = mapping.get("Ebs", {}), response.ec2_backend
    if "SnapshotId" not in ebs:
        return mapping
    original = source.ec2_backend.snapshots[ebs["SnapshotId"]]
    is_encrypted = response._get_param("Encrypted") or original.encrypted
    key = encryption_key(ec2, is_encrypted, response._get_param("KmsKeyId"))
    text = f"Copied for DestinationAmi from SourceAmi {source.id} for SourceSnapshot {original.id}."
    snapshot = new_snapshot(ec2, original.volume_size, text, key)
    snapshot.add_tags(response._parse_tag_specification().get("snapshot", {}))
    return mapping | {"Ebs": ebs | {"SnapshotId": snapshot.id, "Encrypted": snapshot.encrypted}}


def copy_image(response: EC2Response) -> ActionResult:
    ec2, name = response.ec2_backend, response._get_param("Name")
    region, source_id = response._get_param("SourceRegion"), response._get_param("SourceImageId")
    source = ec2_backends[response.current_account][region].amis.get(source_id)
    if source is None:
        raise InvalidAMIIdError([source_id])
    if source.state != "available":
        raise ec2_error("InvalidAMIID.Unavailable", f"The image ID '{source_id}' is not available: {source.state}")
    refuse_duplicate_name(ec2, name)
    tags = response._parse_tag_specification().get("image", {})
    if response._get_param("CopyImageTags"):
        tags = {tag["key"]: tag["value"] for tag in source.get_tags()} | tags
    response.error_on_dryrun()
    mappings = [copied_mapping(response, mapping, source) for mapping in source.block_device_mappings]
    members = {member: getattr(source, member, None) for member in IMAGE_MEMBERS}
    members |= {"virtualization_type": source.virtualization_type, "root_device_name": source.root_device_name}
    description = response._get_param("Description") or source.description
    return keep(RegisteredImage(ec2, name, description, mappings, source=(source_id, region), **members), tags)


def describe_images(response: EC2Response) -> ActionResult:
    response.error_on_dryrun()
    ec2, ids = response.ec2_backend, response._get_param("ImageIds", [])
    if unknown := [i for i in ids if i not in ec2.amis and i not in ec2.deleted_amis]:
        raise InvalidAMIIdError(unknown)
    chosen = ec2.describe_images(
        owners=response._get_param("Owners", []), exec_users=response._get_param("ExecutableUsers", [])
    )
    chosen = [image for image in chosen if not ids or image.id in ids]
    return ActionResult({"Images": observe_filtered(chosen, response._filters_from_querystring(), "state")})


def to_the_minute(moment: datetime) -> str:
    """AWS rounds a deprecation time to the nearest minute."""
    moment = moment.astimezone(UTC) if moment.tzinfo else moment
    minute = (moment + timedelta(seconds=30)).replace(second=0, microsecond=0, tzinfo=None)
    return iso_8601_datetime_with_milliseconds(minute)


def enable_image_deprecation(response: EC2Response) -> ActionResult:
    image, moment = image_of(response), to_the_minute(response._get_param("DeprecateAt"))
    response.error_on_dryrun()
    image.deprecation_time = moment
    return ActionResult({"Return": True})


def disable_image_deprecation(response: EC2Response) -> ActionResult:
    image = image_of(response)
    response.error_on_dryrun()
    image.deprecation_time = None
    return ActionResult({"Return": True})


def install_attributes() -> None:
    modify, describe = EC2Response.modify_image_attribute, EC2Response.describe_image_attribute

    def modify_image_attribute(response: EC2Response) -> ActionResult:
        image = image_of(response)
        result = modify(response)
        image.description = response._get_param("Description.Value", image.description)
        image.imds_support = response._get_param("ImdsSupport.Value", getattr(image, "imds_support", None))
        return result

    def describe_image_attribute(response: EC2Response) -> ActionResult:
        image_of(response)
        return describe(response)

    # moto changes launch permissions only, and fails with a KeyError for an unknown image.
    EC2Response.modify_image_attribute = modify_image_attribute
    EC2Response.describe_image_attribute = describe_image_attribute


def install_filters() -> None:
    known = Ami.get_filter_value

    def get_filter_value(image: Ami, name: str, method: str | None = None) -> Any:
        if name == "block-device-mapping.snapshot-id":
            return [m["Ebs"]["SnapshotId"] for m in image.block_device_mappings if "SnapshotId" in m.get("Ebs", {})]
        return known(image, name, method)

    # moto lacks the filter that finds the images of a snapshot.
    Ami.get_filter_value = get_filter_value


def install() -> None:
    # moto drops nearly all of RegisterImage's parameters and has no idempotent copy.
    EC2Response.register_image = register_image
    EC2Response.copy_image = idempotent(copy_image)
    # moto ignores filters and owners when ids are given, and settles at once.
    EC2Response.describe_images = describe_images
    # Missing in moto.
    EC2Response.enable_image_deprecation = enable_image_deprecation
    EC2Response.disable_image_deprecation = disable_image_deprecation
    # moto cuts the creation date to seconds, so that two quick registrations could not be ordered.
    EC2BaseResponse.RESPONSE_KEY_PATH_TO_TRANSFORMER["Image.CreationDate"] = iso_8601_datetime_with_milliseconds
    install_attributes()
    install_filters()
