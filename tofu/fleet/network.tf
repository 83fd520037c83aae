# What the hosts may talk to. Nothing may talk to them: clawd reaches a host through SSM, whose agent calls out.
#
# Every rule is a resource of its own, so that a change shows as the rule it is. DNS, the metadata service and Amazon's
# time service, which the image uses, are not filtered by security groups and need no rule.

resource "aws_security_group" "hosts" {
  # EC2 deletes no group that an instance has. Whatever needs another one makes it first, moves the hosts over and deletes the
  # old one then; until then there are two, so the rest of the name is the provider's.
  name_prefix = "${var.fleet}-hosts-"
  description = "Hosts of a clawd fleet: nothing comes in"
  vpc_id      = var.vpc_id

  tags = merge(local.tags, { Name = "${var.fleet}-hosts" })

  lifecycle {
    create_before_destroy = true

    # EC2 would take the default network instead.
    precondition {
      condition     = var.vpc_id != ""
      error_message = "`vpc_id` is not given: pass the output `vpc_id` of tofu/base."
    }
  }
}

# Addresses of SSM, S3, model providers and code hosts change, so the rule is by port.
resource "aws_vpc_security_group_egress_rule" "https" {
  security_group_id = aws_security_group.hosts.id
  description       = "HTTPS to anywhere"

  ip_protocol = "tcp"
  from_port   = 443
  to_port     = 443
  cidr_ipv4   = "0.0.0.0/0"

  tags = merge(local.tags, { Name = "https" })

  # With the group; hosts that still have the old one stay connected.
  lifecycle {
    create_before_destroy = true
  }
}

resource "aws_vpc_security_group_egress_rule" "efs" {
  count = var.efs_security_group_id == "" ? 0 : 1

  security_group_id = aws_security_group.hosts.id
  description       = "NFS to the shared file system"

  ip_protocol                  = "tcp"
  from_port                    = 2049
  to_port                      = 2049
  referenced_security_group_id = var.efs_security_group_id

  tags = merge(local.tags, { Name = "nfs" })

  lifecycle {
    create_before_destroy = true
  }
}

# The other end. It is here, not in tofu/base, which does not know the fleets; so it goes with the fleet.
resource "aws_vpc_security_group_ingress_rule" "efs" {
  count = var.efs_security_group_id == "" ? 0 : 1

  security_group_id = var.efs_security_group_id
  description       = "NFS from the hosts of ${var.fleet}"

  ip_protocol                  = "tcp"
  from_port                    = 2049
  to_port                      = 2049
  referenced_security_group_id = aws_security_group.hosts.id

  tags = merge(local.tags, { Name = "nfs from ${var.fleet}" })
}
