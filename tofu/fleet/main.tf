# The hosts of a fleet on AWS: an instance each, with a role of its own (iam.tf) and one security group (network.tf).
#
# It makes no data volumes and attaches none: they outlive the hosts, so they must not be in a state that destroys with
# them. It has no user data and no key: a host is what its image is, and is reached through SSM.

locals {
  tags = { "clawd:fleet" = var.fleet }
}

resource "aws_instance" "host" {
  for_each = var.instances

  # The pin is the host's own, so replacing one host cannot move another.
  ami           = each.value.ami
  instance_type = each.value.type

  # By the zone's name, never by position: a zone more or less must not renumber anything. The zone is given besides the
  # subnet, so that EC2 refuses a subnet that is somewhere else.
  availability_zone = each.value.zone
  subnet_id         = var.subnets[each.value.zone]

  vpc_security_group_ids = [aws_security_group.hosts.id]
  iam_instance_profile   = aws_iam_instance_profile.host[each.key].name

  # What ends a host is a plan that was shown. Protection by EC2 would not stop one, only fail it half-way.
  disable_api_termination              = false
  instance_initiated_shutdown_behavior = "stop"

  metadata_options {
    http_endpoint = "enabled"
    # A token is asked for, and does not travel further than the host itself.
    http_tokens                 = "required"
    http_put_response_hop_limit = 1
    # The image is the same for all hosts: a host reads its name from its tag `clawd:host`. For that no tag's key may hold
    # a space or a slash.
    instance_metadata_tags = "enabled"
  }

  root_block_device {
    volume_type           = "gp3"
    volume_size           = var.root_volume_gib
    encrypted             = true
    delete_on_termination = true
    # Not the tag `clawd:fleet`: volumes that have it are looked over by clawd, and this one goes with its host.
    tags = { Name = "${each.key} root" }
  }

  # There are no `volume_tags` and no `ebs_block_device`: with either, OpenTofu would claim the data volume that is attached
  # to the host later, and change its tags or replace the host over it.

  tags = merge(local.tags, {
    Name         = each.key
    "clawd:host" = each.key
  })

  lifecycle {
    # One host of a name at a time: the state volume can be attached to one only, and two of them would write the same
    # daily note.
    create_before_destroy = false

    # The region is the provider's. EC2 would refuse the zone only after other hosts were made.
    precondition {
      condition     = each.value.zone == "${data.aws_region.current.id}${substr(each.value.zone, -1, 1)}"
      error_message = "${each.key} is to be in the zone ${each.value.zone}, which is not in ${data.aws_region.current.id}, where everything is made. Name a zone of that region, or apply with the profile of the other."
    }

    precondition {
      condition     = contains(keys(var.subnets), each.value.zone)
      error_message = "${each.key} is to be in ${each.value.zone}, and `subnets` has none there, only for: ${join(", ", keys(var.subnets))}. Add the zone to `zones` of tofu/base."
    }
  }

  # A host that boots before it may do anything fails in ways that are hard to read.
  depends_on = [
    aws_iam_role_policy.host,
    aws_vpc_security_group_egress_rule.https,
  ]
}
