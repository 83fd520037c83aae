terraform {
  required_version = ">= 1.10"

  required_providers {
    aws = {
      source = "hashicorp/aws"
      # What was tried. Another major version is tried first and let in then.
      version = "~> 5.100"
    }
  }

  # Where the state is belongs to the profile, not to the module: bucket, key, region and `use_lockfile` are given
  # when the module is initialised.
  backend "s3" {}
}

# No provider block: region and credentials come from the environment, which belongs to the profile as well. There are
# no default tags either, because they would reach root volumes (see main.tf).
