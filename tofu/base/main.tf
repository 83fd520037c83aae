# What outlives fleets: the network, the buckets, the role for importing images, and a shared file system on demand.
#
# It makes no hosts and gives hosts no rights; both are tofu/fleet's. Planning it twice changes nothing, and nothing in it
# depends on which hosts there are, so it is applied rarely. What holds data is protected from being destroyed.

data "aws_caller_identity" "current" {}
data "aws_partition" "current" {}
data "aws_region" "current" {}

locals {
  tags = { "clawd:fleet" = var.fleet }
  s3   = "arn:${data.aws_partition.current.partition}:s3:::"
}
