# The role with which EC2 reads an uploaded image and makes a snapshot of it, for `import_ami` with the method `vmimport`.
# Trust and rights are those that AWS documents for importing, without those for exporting.

data "aws_iam_policy_document" "vmimport_trust" {
  statement {
    actions = ["sts:AssumeRole"]

    principals {
      type        = "Service"
      identifiers = ["vmie.amazonaws.com"]
    }

    # Fixed by AWS.
    condition {
      test     = "StringEquals"
      variable = "sts:Externalid"
      values   = ["vmimport"]
    }
  }
}

data "aws_iam_policy_document" "vmimport" {
  statement {
    sid       = "ReadImages"
    actions   = ["s3:GetBucketLocation", "s3:GetObject", "s3:ListBucket"]
    resources = ["${local.s3}${local.buckets["images"]}", "${local.s3}${local.buckets["images"]}/*"]
  }

  # These take no resource that could be named beforehand.
  statement {
    sid       = "MakeSnapshots"
    actions   = ["ec2:CopySnapshot", "ec2:Describe*", "ec2:ModifySnapshotAttribute", "ec2:RegisterImage"]
    resources = ["*"]
  }

  dynamic "statement" {
    for_each = length(var.image_kms_keys) == 0 ? [] : [var.image_kms_keys]

    content {
      sid = "Encrypt"
      actions = [
        "kms:CreateGrant",
        "kms:Decrypt",
        "kms:DescribeKey",
        "kms:Encrypt",
        "kms:GenerateDataKey*",
        "kms:ReEncrypt*",
      ]
      resources = statement.value
    }
  }
}

resource "aws_iam_role" "vmimport" {
  name               = var.vmimport_role
  description        = "EC2 imports disk images of the fleet ${var.fleet}"
  assume_role_policy = data.aws_iam_policy_document.vmimport_trust.json

  tags = local.tags
}

resource "aws_iam_role_policy" "vmimport" {
  name   = "vmimport"
  role   = aws_iam_role.vmimport.name
  policy = data.aws_iam_policy_document.vmimport.json
}
