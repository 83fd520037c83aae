# What a host may do: be reached through SSM, read its own bundle, read the shared memory, and write what is its own there.
#
# A role per host, because a role that all share cannot tell one host's files from another's. A host has no right to delete
# anything and none to another host's bundle, so what a host that fell into wrong hands can do ends with what is its own.

data "aws_partition" "current" {}
data "aws_region" "current" {}

locals {
  s3 = "arn:${data.aws_partition.current.partition}:s3:::"

  # Empty, or the one there is.
  bundles = [for bucket in compact([var.bundle_bucket]) : "${local.s3}${bucket}"]
  memory  = [for bucket in compact([var.memory_bucket]) : "${local.s3}${bucket}"]

  # Roles are the account's, not the region's.
  role_names = { for name in keys(var.instances) : name => "${var.fleet}-${data.aws_region.current.id}-${name}" }
}

data "aws_iam_policy_document" "assume" {
  statement {
    actions = ["sts:AssumeRole"]

    principals {
      type        = "Service"
      identifiers = ["ec2.amazonaws.com"]
    }
  }
}

data "aws_iam_policy_document" "host" {
  for_each = local.role_names

  # What the agent needs to register and to run commands. Not the managed policy AmazonSSMManagedInstanceCore, which also
  # allows reading every parameter of the account, secrets of other hosts among them.
  statement {
    sid = "Ssm"
    actions = [
      "ec2messages:AcknowledgeMessage",
      "ec2messages:DeleteMessage",
      "ec2messages:FailMessage",
      "ec2messages:GetEndpoint",
      "ec2messages:GetMessages",
      "ec2messages:SendReply",
      "ssm:DescribeAssociation",
      "ssm:DescribeDocument",
      "ssm:GetDocument",
      "ssm:ListAssociations",
      "ssm:ListInstanceAssociations",
      "ssm:UpdateAssociationStatus",
      "ssm:UpdateInstanceAssociationStatus",
      "ssm:UpdateInstanceInformation",
      "ssmmessages:CreateControlChannel",
      "ssmmessages:CreateDataChannel",
      "ssmmessages:OpenControlChannel",
      "ssmmessages:OpenDataChannel",
    ]
    resources = ["*"]
  }

  # No right to list: which other bundles there are is none of a host's business.
  dynamic "statement" {
    for_each = local.bundles

    content {
      sid       = "ReadOwnBundle"
      actions   = ["s3:GetObject"]
      resources = ["${statement.value}/bootstrap/${each.key}/*"]
    }
  }

  dynamic "statement" {
    for_each = local.memory

    content {
      sid       = "ReadMemory"
      actions   = ["s3:GetObject"]
      resources = ["${statement.value}/${var.memory_prefix}/*"]
    }
  }

  # Of the whole bucket, which holds memory only. S3 tells "not there" from "you may not" only to who may list, and asks without
  # a prefix when it is about one object; under a condition on the prefix, a host would take every new file for a refusal. Whether
  # it keeps versions is asked to warn where it does not.
  dynamic "statement" {
    for_each = local.memory

    content {
      sid       = "ListMemory"
      actions   = ["s3:GetBucketVersioning", "s3:ListBucket"]
      resources = [statement.value]
    }
  }

  # A host's own: its daily notes, YYYY-MM-DD_HOST.md, and what it sets aside in a conflict. `????-??-??_` keeps the name whole:
  # CLAWDINATOR-1 does not get at what CLAWDINATOR-11 writes, nor the other way round. Canonical files are written by
  # all and so only by those a plan opens to them.
  #
  # A write must be conditional: made anew with If-None-Match, or in place of a version that it names with If-Match. IAM
  # refuses any other, so a host cannot overwrite what it has not read, whatever program it runs. The header's presence is
  # asked for in a statement each, because conditions in one statement must all hold.
  dynamic "statement" {
    for_each = {
      for pair in setproduct(local.memory, ["if-match", "if-none-match"]) : pair[1] => pair[0]
    }

    content {
      sid     = statement.key == "if-match" ? "ReplaceOwnMemory" : "CreateOwnMemory"
      actions = ["s3:PutObject"]
      resources = concat(
        [
          "${statement.value}/${var.memory_prefix}/????-??-??_${each.key}.md",
          "${statement.value}/${var.memory_prefix}/conflicts/${each.key}/*",
        ],
        [for file in var.canonical_files : "${statement.value}/${var.memory_prefix}/${file}"],
      )

      condition {
        test     = "Null"
        variable = "s3:${statement.key}"
        values   = ["false"]
      }
    }
  }
}

resource "aws_iam_role" "host" {
  for_each = local.role_names

  name               = each.value
  description        = "What ${each.key} of the fleet ${var.fleet} may do"
  assume_role_policy = data.aws_iam_policy_document.assume.json

  tags = merge(local.tags, { "clawd:host" = each.key })
}

resource "aws_iam_role_policy" "host" {
  for_each = local.role_names

  name   = "host"
  role   = aws_iam_role.host[each.key].name
  policy = data.aws_iam_policy_document.host[each.key].json
}

resource "aws_iam_instance_profile" "host" {
  for_each = local.role_names

  name = each.value
  role = aws_iam_role.host[each.key].name

  tags = merge(local.tags, { "clawd:host" = each.key })
}
