variable "instances" {
  type = map(object({
    type = string
    zone = string
    ami  = string
  }))
  nullable    = false
  description = "The hosts by name: instance type, availability zone, and the AMI this one host is pinned to."

  # The same pattern as `namePattern` in nix/lib/host.nix. A host's name is also its file in the shared memory and its
  # prefix among the bundles, so it must not hold anything that a policy would read as a wildcard.
  validation {
    condition     = alltrue([for name in keys(var.instances) : can(regex("^CLAWDINATOR-[1-9][0-9]*$", name))])
    error_message = "Hosts are named CLAWDINATOR-1, CLAWDINATOR-2 and so on, without leading zeroes; these are not: ${join(", ", [for name in keys(var.instances) : name if !can(regex("^CLAWDINATOR-[1-9][0-9]*$", name))])}."
  }

  # A name or a "latest" is not a pin: what it means moves under the host.
  validation {
    condition     = alltrue([for host in values(var.instances) : can(regex("^ami-([0-9a-f]{8}|[0-9a-f]{17})$", host.ami))])
    error_message = "A host is pinned to an AMI's id, `ami-` and 8 or 17 hex digits; these are not: ${join(", ", [for name, host in var.instances : "${name} (${coalesce(host.ami, "null")})" if !can(regex("^ami-([0-9a-f]{8}|[0-9a-f]{17})$", host.ami))])}."
  }

  # Local zones and wavelength zones are left out: the network has no subnets there.
  validation {
    condition     = alltrue([for host in values(var.instances) : can(regex("^[a-z]{2}(-[a-z]+)+-[0-9]+[a-z]$", host.zone))])
    error_message = "A zone is a region and a letter, like eu-central-1a; these are not: ${join(", ", [for name, host in var.instances : "${name} (${coalesce(host.zone, "null")})" if !can(regex("^[a-z]{2}(-[a-z]+)+-[0-9]+[a-z]$", host.zone))])}."
  }

  validation {
    condition     = alltrue([for host in values(var.instances) : can(regex("^[a-z][a-z0-9-]*\\.[a-z0-9-]+$", host.type))])
    error_message = "An instance type is a family and a size, like t3.large; these are not: ${join(", ", [for name, host in var.instances : "${name} (${coalesce(host.type, "null")})" if !can(regex("^[a-z][a-z0-9-]*\\.[a-z0-9-]+$", host.type))])}."
  }
}

variable "fleet" {
  type        = string
  default     = "clawdinators"
  nullable    = false
  description = "The fleet's name in clawd.toml; tags and names of roles are made of it."

  # Narrower than in clawd.toml: tofu/base makes names of buckets of it, and a role's name has 64 characters.
  validation {
    condition     = can(regex("^[a-z0-9][a-z0-9-]{0,26}$", var.fleet))
    error_message = "The fleet's name has 1 to 27 lower-case letters, digits and hyphens, and begins with a letter or digit."
  }

  # The names made of it go on with a hyphen. A security group must not begin with `sg-`, a bucket not with the others. Each
  # module refuses all of them, or a fleet would get half of what it needs.
  validation {
    condition     = !can(regex("^(sg|xn-|sthree|amzn-s3-demo)-", "${var.fleet}-"))
    error_message = "Names that begin with `sg-`, `xn--`, `sthree-` or `amzn-s3-demo-` are AWS's own, and names made of `${var.fleet}` would begin so."
  }
}

# What follows comes from the outputs of tofu/base. "" stands for "there is none" rather than null, because OpenTofu drops
# outputs that are null, and a plan could not pass on what is not there. While tofu/base is not applied yet, stand-ins are
# planned with: they have the shape of a bucket's name, and none of an id's.

variable "vpc_id" {
  type        = string
  default     = ""
  nullable    = false
  description = "The network of the subnets, `vpc_id` of tofu/base; needed as soon as something is created."

  # Not checked: it may be a stand-in.
}

variable "subnets" {
  type        = map(string)
  default     = {}
  nullable    = false
  description = "The subnet of each zone, zone to subnet id, `subnet_ids` of tofu/base; every host's zone must be in it."

  # Not checked: ids may be stand-ins, and a zone is looked for only where a host is to be.
}

variable "bundle_bucket" {
  type        = string
  default     = ""
  nullable    = false
  description = "The bucket of the hosts' bundles, `bundle_bucket` of tofu/base; a host reads `bootstrap/<host>/` in it. Empty: none."

  # It becomes a part of ARNs in the policies of hosts, where `*` would be every bucket.
  validation {
    condition     = can(regex("^([a-z0-9][a-z0-9.-]{1,61}[a-z0-9])?$", var.bundle_bucket))
    error_message = "A bucket's name has 3 to 63 lower-case letters, digits, dots and hyphens, or is empty: there is no such bucket."
  }
}

variable "memory_bucket" {
  type        = string
  default     = ""
  nullable    = false
  description = "The bucket of the shared memory, `memory_bucket` of tofu/base. Empty: the hosts get no rights to any."

  # As above. That it is another bucket than the bundles' is for tofu/base to see to: one stand-in may be both here.
  validation {
    condition     = can(regex("^([a-z0-9][a-z0-9.-]{1,61}[a-z0-9])?$", var.memory_bucket))
    error_message = "A bucket's name has 3 to 63 lower-case letters, digits, dots and hyphens, or is empty: there is no such bucket."
  }
}

variable "memory_prefix" {
  type        = string
  default     = "hive"
  nullable    = false
  description = "Where the shared memory lies in its bucket, without slashes at the ends, `memory_prefix` of tofu/base."

  # An empty prefix, or the one of the bundles, would open to every host what belongs to one.
  validation {
    condition     = can(regex("^[A-Za-z0-9_][A-Za-z0-9._-]*(/[A-Za-z0-9_][A-Za-z0-9._-]*)*$", var.memory_prefix)) && split("/", var.memory_prefix)[0] != "bootstrap"
    error_message = "The prefix is like `hive` or `teams/hive`, without slashes at the ends, and does not begin with `bootstrap`."
  }
}

variable "canonical_files" {
  type        = set(string)
  default     = ["architecture.md", "goals.md", "ops.md"]
  nullable    = false
  description = "Canonical files of the memory that every host may write too, relative to the memory, like `goals.md`; each write must name the version it replaces. The default is what `sync_memory` takes as canonical. Empty: hosts write their own notes only."

  # No wildcards, and no way round the rule that a daily note has one writer.
  validation {
    condition = alltrue([
      for file in var.canonical_files :
      can(regex("^[A-Za-z0-9_][A-Za-z0-9._-]*(/[A-Za-z0-9_][A-Za-z0-9._-]*)*$", file))
      && !can(regex("(^|/)[0-9]{4}-[0-9]{2}-[0-9]{2}_[^/]*$", file))
      && split("/", file)[0] != "conflicts"
    ])
    error_message = "Canonical files are named by their path in the memory, without wildcards; daily notes and `conflicts/` belong to one host each and cannot be canonical."
  }
}

variable "efs_security_group_id" {
  type        = string
  default     = ""
  nullable    = false
  description = "The security group of the shared file system, `efs_security_group_id` of tofu/base; hosts and file system are opened to each other. Empty: there is none."

  # Not checked: it may be a stand-in.
}

variable "root_volume_gib" {
  type        = number
  default     = 16
  nullable    = false
  description = "Size of a host's root volume in GiB. It holds the system only; state is on a volume of its own."

  validation {
    condition     = var.root_volume_gib >= 8 && var.root_volume_gib <= 1024 && floor(var.root_volume_gib) == var.root_volume_gib
    error_message = "The root volume has 8 GiB, the size of the image, to 1024 GiB."
  }
}
