# What is planned and what is refused, without an account: the provider's answers are made up.

mock_provider "aws" {
  mock_data "aws_iam_policy_document" {
    defaults = { json = "{}" }
  }
  mock_data "aws_partition" {
    defaults = { partition = "aws" }
  }
  mock_data "aws_region" {
    defaults = { id = "us-west-2" }
  }
}

variables {
  vpc_id  = "vpc-1"
  subnets = { us-west-2a = "subnet-1", us-west-1a = "subnet-2" }
  instances = {
    CLAWDINATOR-1 = { type = "t3.large", zone = "us-west-2a", ami = "ami-0123456789abcdef0" }
  }
}

run "hosts_are_planned" {
  command = plan

  assert {
    condition     = keys(aws_instance.host) == ["CLAWDINATOR-1"] && keys(aws_iam_role.host) == ["CLAWDINATOR-1"]
    error_message = "A host is an instance with a role of its own."
  }
}

run "stand_ins_are_planned_with" {
  command = plan

  variables {
    vpc_id                = "clawd-placeholder"
    subnets               = { us-west-2a = "clawd-placeholder" }
    bundle_bucket         = "clawd-placeholder"
    memory_bucket         = "clawd-placeholder"
    efs_security_group_id = "sg-00000000000000000"
  }

  assert {
    condition     = length(aws_vpc_security_group_ingress_rule.efs) == 1
    error_message = "A file system that is not there yet is opened to the hosts."
  }
}

run "a_zone_of_another_region_is_refused" {
  command = plan

  variables {
    instances = {
      CLAWDINATOR-1 = { type = "t3.large", zone = "us-west-1a", ami = "ami-0123456789abcdef0" }
    }
  }

  expect_failures = [aws_instance.host]
}

run "a_zone_without_a_subnet_is_refused" {
  command = plan

  variables {
    subnets = {}
  }

  expect_failures = [aws_instance.host]
}

run "a_local_zone_is_refused" {
  command = plan

  variables {
    instances = {
      CLAWDINATOR-1 = { type = "t3.large", zone = "us-west-2-lax-1a", ami = "ami-0123456789abcdef0" }
    }
  }

  expect_failures = [var.instances]
}

run "no_bucket_becomes_every_bucket" {
  command = plan

  variables {
    bundle_bucket = "*"
    memory_bucket = "fleet/other"
  }

  expect_failures = [var.bundle_bucket, var.memory_bucket]
}

run "no_canonical_file_becomes_every_file" {
  command = plan

  variables {
    canonical_files = ["team/*.md"]
  }

  expect_failures = [var.canonical_files]
}

run "a_beginning_that_ec2_keeps_is_refused" {
  command = plan

  variables {
    fleet = "sg"
  }

  expect_failures = [var.fleet]
}
