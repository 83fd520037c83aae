output "instance_ids" {
  value       = { for name, instance in aws_instance.host : name => instance.id }
  description = "map(string): each host's instance, what `mount_volume` takes."
}

output "images" {
  value       = { for name, instance in aws_instance.host : name => instance.ami }
  description = "map(string): the AMI each host runs, for `prune_amis` and for people who ask."
}

output "role_names" {
  value       = { for name, role in aws_iam_role.host : name => role.name }
  description = "map(string): each host's IAM role, for those who give one host a right more."
}

output "security_group_id" {
  value       = aws_security_group.hosts.id
  description = "string: the hosts' security group, for what lets them in."
}
