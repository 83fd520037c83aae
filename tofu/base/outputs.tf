output "vpc_id" {
  value       = aws_vpc.main.id
  description = "string: the network, what tofu/fleet takes as `vpc_id`."
}

output "subnet_ids" {
  value       = { for zone, subnet in aws_subnet.zone : zone => subnet.id }
  description = "map(string): each zone's subnet, what tofu/fleet takes as `subnets`."
}

# Names rather than ids: they are known before the buckets are made, so a first plan can already show what is done with them.
output "images_bucket" {
  value       = aws_s3_bucket.store["images"].bucket
  description = "string: the bucket for images, what `import_ami` takes as `bucket`."
}

output "memory_bucket" {
  value       = aws_s3_bucket.store["memory"].bucket
  description = "string: the bucket of the shared memory, what tofu/fleet takes as `memory_bucket`."
}

output "memory_prefix" {
  value       = var.memory_prefix
  description = "string: where the memory lies in that bucket, what tofu/fleet takes as `memory_prefix`."
}

output "memory_remote" {
  value       = "s3://${aws_s3_bucket.store["memory"].bucket}/${var.memory_prefix}"
  description = "string: both as one address, what `sync_memory` takes as `remote`."
}

output "bundle_bucket" {
  value       = aws_s3_bucket.store["bundles"].bucket
  description = "string: the bucket of the hosts' bundles, what tofu/fleet takes as `bundle_bucket`."
}

output "vmimport_role" {
  value       = aws_iam_role.vmimport.name
  description = "string: the role for importing snapshots, what `import_ami` takes as `role`."
}

# "" rather than null where there is no file system: OpenTofu drops outputs that are null.
output "efs_id" {
  value       = var.efs_enabled ? aws_efs_file_system.shared[0].id : ""
  description = "string: the shared file system, `\"\"` when there is none."
}

output "efs_access_point_id" {
  value       = var.efs_enabled ? aws_efs_access_point.shared[0].id : ""
  description = "string: the access point that hosts mount it through, `\"\"` when there is none."
}

output "efs_security_group_id" {
  value       = var.efs_enabled ? aws_security_group.efs[0].id : ""
  description = "string: the group of its mount targets, what tofu/fleet takes as `efs_security_group_id`; `\"\"` when there is none."
}
