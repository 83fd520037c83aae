"""EC2 CreateVolume and RunInstances: one effect for each ClientToken, and no launch from a pending image of ours.
AttachVolume: a volume that another instance holds is refused; moto would let both have it."""

from moto.core.responses import ActionResult
from moto.ec2.responses import EC2Response

from shared import ec2_error, idempotent


def install() -> None:
    create, run, attach = EC2Response.create_volume, EC2Response.run_instances, EC2Response.attach_volume

    def create_volume(response: EC2Response) -> ActionResult:
        snapshot = response.ec2_backend.snapshots.get(response._get_param("SnapshotId"))
        if snapshot is not None and snapshot.status != "completed":
            raise ec2_error("IncorrectState", f"Snapshot '{snapshot.id}' is not 'completed'.")
        return create(response)

    def attach_volume(response: EC2Response) -> ActionResult:
        volume = response.ec2_backend.volumes.get(response._get_param("VolumeId"))
        if volume is not None and volume.attachment is not None:
            holder = volume.attachment.instance.id
            raise ec2_error("VolumeInUse", f"{volume.id} is already attached to an instance: {holder}")
        return attach(response)

    def run_instances(response: EC2Response) -> ActionResult:
        image = response.ec2_backend.amis.get(response._get_param("ImageId"))
        if image is not None and image.state != "available":
            raise ec2_error("InvalidAMIID.Unavailable", f"The image ID '{image.id}' is not available: {image.state}")
        return run(response)

    # moto acts anew on every retry, whatever the token, and takes sources in any state.
    EC2Response.create_volume = idempotent(create_volume)
    EC2Response.run_instances = idempotent(run_instances)
    EC2Response.attach_volume = attach_volume
