# A bucket per purpose, because rights, history and loss differ:
#   images   what `import_ami` uploads and the hashes of its blocks; made again from the flake
#   memory   the shared memory; the only copy beside the hosts' own, so all versions stay
#   bundles  what hosts start with, secrets among it, a prefix `bootstrap/<host>/` each
# In one bucket, a wrong prefix in a policy would open bundles to who may read memory.

locals {
  # Names are shared by all accounts of the world, hence account and region.
  buckets = {
    for purpose in ["bundles", "images", "memory"] : purpose => lookup(
      var.bucket_names,
      purpose,
      "${var.fleet}-${purpose}-${data.aws_caller_identity.current.account_id}-${data.aws_region.current.id}",
    )
  }

  # For how many days versions that were replaced or deleted are kept. Images are large and can be made again; a secret that
  # was rotated should not stay readable for ever; the memory's history is not thrown away.
  days_kept = {
    bundles = 30
    images  = 7
  }
}

resource "aws_s3_bucket" "store" {
  for_each = local.buckets

  bucket        = each.value
  force_destroy = false

  tags = merge(local.tags, { Name = each.value })

  lifecycle {
    prevent_destroy = true

    # A name that is given may be the one that another purpose gets by default. S3 in us-east-1 would take the second
    # creation for the first, and one bucket would be both.
    precondition {
      condition     = length([for name in values(local.buckets) : name if name == each.value]) == 1
      error_message = "The bucket ${each.value} would be for ${join(" and ", [for purpose, name in local.buckets : purpose if name == each.value])}. Each purpose has a bucket of its own: change `bucket_names`."
    }
  }
}

resource "aws_s3_bucket_versioning" "store" {
  for_each = local.buckets

  bucket = aws_s3_bucket.store[each.key].id

  versioning_configuration {
    status = "Enabled"
  }
}

resource "aws_s3_bucket_public_access_block" "store" {
  for_each = local.buckets

  bucket                  = aws_s3_bucket.store[each.key].id
  block_public_acls       = true
  block_public_policy     = true
  ignore_public_acls      = true
  restrict_public_buckets = true
}

# With S3's own key: a key of KMS would be one more thing whose loss loses the memory, and bundles are encrypted to their host
# besides.
resource "aws_s3_bucket_server_side_encryption_configuration" "store" {
  for_each = local.buckets

  bucket = aws_s3_bucket.store[each.key].id

  rule {
    apply_server_side_encryption_by_default {
      sse_algorithm = "AES256"
    }
  }
}

data "aws_iam_policy_document" "tls_only" {
  for_each = local.buckets

  statement {
    sid       = "TlsOnly"
    effect    = "Deny"
    actions   = ["s3:*"]
    resources = ["${local.s3}${each.value}", "${local.s3}${each.value}/*"]

    principals {
      type        = "*"
      identifiers = ["*"]
    }

    condition {
      test     = "Bool"
      variable = "aws:SecureTransport"
      values   = ["false"]
    }
  }
}

resource "aws_s3_bucket_policy" "store" {
  for_each = local.buckets

  bucket = aws_s3_bucket.store[each.key].id
  policy = data.aws_iam_policy_document.tls_only[each.key].json

  # S3 refuses two changes to a bucket's access at once.
  depends_on = [aws_s3_bucket_public_access_block.store]
}

resource "aws_s3_bucket_lifecycle_configuration" "store" {
  for_each = local.buckets

  bucket = aws_s3_bucket.store[each.key].id

  # Parts of an upload that never ended are listed nowhere and cost like objects.
  rule {
    id     = "abort-incomplete-uploads"
    status = "Enabled"

    filter {}

    abort_incomplete_multipart_upload {
      days_after_initiation = 7
    }
  }

  dynamic "rule" {
    for_each = [for purpose, days in local.days_kept : days if purpose == each.key]

    content {
      id     = "expire-replaced-versions"
      status = "Enabled"

      filter {}

      noncurrent_version_expiration {
        noncurrent_days = rule.value
      }

      # The mark of a deletion whose versions are all gone.
      expiration {
        expired_object_delete_marker = true
      }
    }
  }

  # Images that were uploaded and never imported are not expired: under the same prefix are the hashes of blocks, which the next
  # upload builds on.

  # Rules about versions mean something only in a versioned bucket.
  depends_on = [aws_s3_bucket_versioning.store]
}
