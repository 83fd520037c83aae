output "instance_ids" {
  value       = { for name, host in terraform_data.host : name => host.id }
  description = "map(string): each host's id, in the place of an instance's."
}

output "images" {
  value       = { for name, host in terraform_data.host : name => host.triggers_replace.ami }
  description = "map(string): the AMI each host is pinned to."
}

output "role_names" {
  value       = { for name in keys(var.instances) : name => "${var.fleet}-local-${name}" }
  description = "map(string): what each host's role would be called; there is none."
}

output "security_group_id" {
  value       = "local"
  description = "string: in the place of the hosts' security group; there is none."
}
