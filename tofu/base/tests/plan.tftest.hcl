# What is planned and what is refused, without an account: the provider's answers are made up.

mock_provider "aws" {
  mock_data "aws_caller_identity" {
    defaults = { account_id = "123456789012" }
  }
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
  zones = ["us-west-2a", "us-west-2b"]
}

run "zones_of_the_region_get_a_subnet_each" {
  command = plan

  assert {
    condition     = toset(keys(aws_subnet.zone)) == toset(["us-west-2a", "us-west-2b"])
    error_message = "There is a subnet in each zone and nowhere else."
  }

  assert {
    condition     = output.memory_bucket == "clawdinators-memory-123456789012-us-west-2"
    error_message = "Names of buckets are known while planning."
  }
}

run "a_zone_of_another_region_is_refused" {
  command = plan

  variables {
    zones = ["us-west-1a"]
  }

  expect_failures = [aws_vpc.main]
}

run "zones_of_two_regions_are_refused" {
  command = plan

  variables {
    zones = ["us-west-1a", "us-west-2a"]
  }

  expect_failures = [var.zones]
}

run "a_local_zone_is_refused" {
  command = plan

  variables {
    zones = ["us-west-2-lax-1a"]
  }

  expect_failures = [var.zones]
}

run "no_zone_is_refused" {
  command = plan

  variables {
    zones = []
  }

  expect_failures = [var.zones]
}

run "a_bucket_of_two_purposes_is_refused" {
  command = plan

  variables {
    bucket_names = { memory = "clawdinators-bundles-123456789012-us-west-2" }
  }

  expect_failures = [aws_s3_bucket.store]
}

run "a_beginning_that_aws_keeps_is_refused" {
  command = plan

  variables {
    fleet = "sthree"
  }

  expect_failures = [var.fleet]
}
