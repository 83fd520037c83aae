# A shared file system, where one is wanted beside the memory: encrypted, backed up, reached over TLS through one access
# point. Fleets open the way to it themselves (`efs_security_group_id` of tofu/fleet).

resource "aws_efs_file_system" "shared" {
  count = var.efs_enabled ? 1 : 0

  # Two file systems of one fleet would be an accident.
  creation_token = var.fleet

  encrypted       = true
  throughput_mode = "elastic"

  lifecycle_policy {
    transition_to_ia = "AFTER_30_DAYS"
  }

  lifecycle_policy {
    transition_to_primary_storage_class = "AFTER_1_ACCESS"
  }

  tags = merge(local.tags, { Name = var.fleet })

  lifecycle {
    prevent_destroy = true
  }
}

resource "aws_efs_backup_policy" "shared" {
  count = length(aws_efs_file_system.shared)

  file_system_id = aws_efs_file_system.shared[count.index].id

  backup_policy {
    status = "ENABLED"
  }
}

# Who comes through a mount target and the access point may read and write, and nobody else may anything. Whoever is in no group
# that is let in reaches no mount target.
data "aws_iam_policy_document" "efs" {
  count = length(aws_efs_file_system.shared)

  statement {
    sid       = "Mount"
    actions   = ["elasticfilesystem:ClientMount", "elasticfilesystem:ClientWrite"]
    resources = [aws_efs_file_system.shared[count.index].arn]

    principals {
      type        = "AWS"
      identifiers = ["*"]
    }

    condition {
      test     = "Bool"
      variable = "elasticfilesystem:AccessedViaMountTarget"
      values   = ["true"]
    }

    condition {
      test     = "StringEquals"
      variable = "elasticfilesystem:AccessPointArn"
      values   = [aws_efs_access_point.shared[count.index].arn]
    }
  }

  statement {
    sid       = "TlsOnly"
    effect    = "Deny"
    actions   = ["*"]
    resources = [aws_efs_file_system.shared[count.index].arn]

    principals {
      type        = "AWS"
      identifiers = ["*"]
    }

    condition {
      test     = "Bool"
      variable = "aws:SecureTransport"
      values   = ["false"]
    }
  }
}

resource "aws_efs_file_system_policy" "shared" {
  count = length(aws_efs_file_system.shared)

  file_system_id = aws_efs_file_system.shared[count.index].id
  policy         = data.aws_iam_policy_document.efs[count.index].json
}

# Owners are numbers there. 450 is the account `clawd` on every host (nix/modules/clawdinator.nix).
resource "aws_efs_access_point" "shared" {
  count = length(aws_efs_file_system.shared)

  file_system_id = aws_efs_file_system.shared[count.index].id

  posix_user {
    uid = 450
    gid = 450
  }

  root_directory {
    path = "/shared"

    creation_info {
      owner_uid   = 450
      owner_gid   = 450
      permissions = "0750"
    }
  }

  tags = merge(local.tags, { Name = var.fleet })
}

# No rules: each fleet adds the one that lets its hosts in, and takes it away with itself.
resource "aws_security_group" "efs" {
  count = length(aws_efs_file_system.shared)

  name        = "${var.fleet}-efs"
  description = "Mount targets of the shared file system"
  vpc_id      = aws_vpc.main.id

  tags = merge(local.tags, { Name = "${var.fleet}-efs" })

  lifecycle {
    # For either, EC2 needs another group. The rules of fleets name this one, which keeps EC2 from deleting it, and a new one would
    # have none of theirs: hosts would lose the file system until their fleet is applied. So both stay as they were made.
    ignore_changes = [name, description]
  }
}

resource "aws_efs_mount_target" "zone" {
  for_each = var.efs_enabled ? var.zones : toset([])

  file_system_id  = aws_efs_file_system.shared[0].id
  subnet_id       = aws_subnet.zone[each.key].id
  security_groups = [aws_security_group.efs[0].id]
}
