variable "zones" {
  type        = set(string)
  nullable    = false
  description = "The availability zones that get a subnet, all of one region, the one everything is made in (network.tf)."

  # Hosts have nowhere to be then, and a change that lost its zones would take the subnets away.
  validation {
    condition     = length(var.zones) > 0
    error_message = "There are no zones: name those that hosts may be in, like [\"eu-central-1a\"]."
  }

  # Local zones and wavelength zones are left out: a subnet's addresses follow from the zone's letter, which is not the zone's
  # alone there.
  validation {
    condition     = alltrue([for zone in var.zones : can(regex("^[a-z]{2}(-[a-z]+)+-[0-9]+[a-z]$", zone))])
    error_message = "A zone is a region and a letter, like eu-central-1a; these are not: ${join(", ", [for zone in var.zones : coalesce(zone, "null") if !can(regex("^[a-z]{2}(-[a-z]+)+-[0-9]+[a-z]$", zone))])}."
  }

  validation {
    condition     = length(distinct([for zone in var.zones : replace(coalesce(zone, "null"), "/[a-z]$/", "")])) <= 1
    error_message = "The zones are of more than one region: ${join(", ", distinct([for zone in var.zones : replace(coalesce(zone, "null"), "/[a-z]$/", "")]))}. A network is in one."
  }
}

variable "fleet" {
  type        = string
  default     = "clawdinators"
  nullable    = false
  description = "The fleet's name in clawd.toml; tags and names are made of it."

  # Narrower than in clawd.toml: a bucket's name has 63 characters, of which purpose, account and the longest region take 36.
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

variable "cidr" {
  type        = string
  default     = "10.71.0.0/16"
  nullable    = false
  description = "The network's addresses. Each zone gets a 32nd part of them, whichever zones there are. It cannot be changed later: all that is in the network would be replaced."

  # The smallest subnet that EC2 makes is a /28. EC2 sets bits after the prefix to 0 without a word, so the next plan would
  # replace everything; there are netmasks of IPv4 only.
  validation {
    condition = try(
      can(cidrnetmask(var.cidr))
      && cidrsubnet(var.cidr, 0, 0) == var.cidr
      && tonumber(split("/", var.cidr)[1]) >= 16
      && tonumber(split("/", var.cidr)[1]) <= 23,
      false,
    )
    error_message = "The network is given by its first address, like 10.71.0.0/16, with a prefix of 16 to 23 bits."
  }
}

variable "bucket_names" {
  type        = map(string)
  default     = {}
  nullable    = false
  description = "Names of buckets by purpose, `bundles`, `images` or `memory`, where the one made of fleet, account and region will not do. A name cannot be changed later: the bucket would be replaced, and is protected from that."

  validation {
    condition     = alltrue([for purpose in keys(var.bucket_names) : contains(["bundles", "images", "memory"], purpose)])
    error_message = "There are buckets for `bundles`, `images` and `memory`, and none for: ${join(", ", setsubtract(keys(var.bucket_names), ["bundles", "images", "memory"]))}."
  }

  # Names with dots do not go with TLS, which is required here.
  validation {
    condition     = alltrue([for name in values(var.bucket_names) : can(regex("^[a-z0-9][a-z0-9-]{1,61}[a-z0-9]$", name))])
    error_message = "A bucket's name has 3 to 63 lower-case letters, digits and hyphens."
  }

  # Rights are given by bucket: in a shared one, who may list the memory would list bundles.
  validation {
    condition     = length(distinct(values(var.bucket_names))) == length(var.bucket_names)
    error_message = "Each purpose has a bucket of its own."
  }
}

variable "memory_prefix" {
  type        = string
  default     = "hive"
  nullable    = false
  description = "Where the shared memory lies in its bucket, without slashes at the ends. Another prefix is another, empty memory."

  validation {
    condition     = can(regex("^[A-Za-z0-9_][A-Za-z0-9._-]*(/[A-Za-z0-9_][A-Za-z0-9._-]*)*$", var.memory_prefix)) && split("/", var.memory_prefix)[0] != "bootstrap"
    error_message = "The prefix is like `hive` or `teams/hive`, without slashes at the ends, and does not begin with `bootstrap`."
  }
}

variable "vmimport_role" {
  type        = string
  default     = "vmimport"
  nullable    = false
  description = "The name of the role that EC2 imports snapshots with. Roles are the account's: a second base in it, or an account that has a `vmimport` already, needs another name, which `import_ami` then takes as `role`."

  validation {
    condition     = can(regex("^[A-Za-z0-9+=,.@_-]{1,64}$", var.vmimport_role))
    error_message = "A role's name has 1 to 64 letters, digits and characters of `+=,.@_-`."
  }
}

variable "efs_enabled" {
  type        = bool
  default     = false
  nullable    = false
  description = "Whether there is a shared file system. The memory does not need it. Once made it is protected: turning this off again is refused until the protection in efs.tf is taken out."
}

variable "image_kms_keys" {
  type        = set(string)
  default     = []
  nullable    = false
  description = "ARNs of the KMS keys that AMIs are encrypted with, `kms_key` of `import_ami`: EC2 uses them in the name of the role for importing. Empty: none but the account's own for EBS."

  # The key's own ARN: rights to an alias are no rights to the key.
  validation {
    condition     = alltrue([for key in var.image_kms_keys : can(regex("^arn:[a-z-]+:kms:[a-z0-9-]+:[0-9]{12}:key/[A-Za-z0-9-]+$", key))])
    error_message = "A key is named by its ARN, like arn:aws:kms:eu-central-1:123456789012:key/0a1b2c3d; these are not: ${join(", ", [for key in var.image_kms_keys : coalesce(key, "null") if !can(regex("^arn:[a-z-]+:kms:[a-z0-9-]+:[0-9]{12}:key/[A-Za-z0-9-]+$", key))])}."
  }
}
