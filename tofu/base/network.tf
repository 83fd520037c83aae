# One network, one public subnet per zone.
#
# Hosts have public addresses and nothing that lets anybody in, rather than private ones behind a NAT gateway. A public address
# costs about 3.65 USD a month; a NAT gateway about 38 USD a month per zone (eu-central-1) and 0.052 USD per GB each way,
# which a fleet pays for model traffic alone. NAT is cheaper from some ten hosts in a zone on, and worth it where addresses
# must be few and known. What keeps strangers out is the hosts' security group, which has no ingress rule, in either case.

resource "aws_vpc" "main" {
  cidr_block = var.cidr

  # Mount targets of EFS are found by name.
  enable_dns_support   = true
  enable_dns_hostnames = true

  tags = merge(local.tags, { Name = var.fleet })

  lifecycle {
    # The region is the provider's. EC2 would refuse the subnets only after everything else was made. A plan fails as a whole, so
    # this stands once.
    precondition {
      condition     = alltrue([for zone in var.zones : zone == "${data.aws_region.current.id}${substr(zone, -1, 1)}"])
      error_message = "Everything is made in ${data.aws_region.current.id}, and these zones are not there: ${join(", ", [for zone in var.zones : zone if zone != "${data.aws_region.current.id}${substr(zone, -1, 1)}"])}. Name zones of that region, or apply with the profile of the other."
    }
  }
}

# The group that EC2 gives to what names none. Declared without rules it has none: forgetting a group opens nothing.
resource "aws_default_security_group" "closed" {
  vpc_id = aws_vpc.main.id

  tags = merge(local.tags, { Name = "${var.fleet} default, closed" })
}

resource "aws_subnet" "zone" {
  for_each = var.zones

  vpc_id            = aws_vpc.main.id
  availability_zone = each.value

  # The addresses follow from the zone's letter, a is 0, b is 1: a zone more or less does not renumber another's, whatever
  # the order. (In base 36, a is 10.)
  cidr_block = cidrsubnet(var.cidr, 5, parseint(substr(each.value, -1, 1), 36) - 10)

  map_public_ip_on_launch = true

  tags = merge(local.tags, { Name = "${var.fleet} ${each.value}" })
}

resource "aws_internet_gateway" "main" {
  vpc_id = aws_vpc.main.id

  tags = merge(local.tags, { Name = var.fleet })
}

# Routes are resources of their own: inline ones and the endpoint's would take each other away.
resource "aws_route_table" "public" {
  vpc_id = aws_vpc.main.id

  tags = merge(local.tags, { Name = "${var.fleet} public" })
}

resource "aws_route" "internet" {
  route_table_id         = aws_route_table.public.id
  destination_cidr_block = "0.0.0.0/0"
  gateway_id             = aws_internet_gateway.main.id
}

resource "aws_route_table_association" "zone" {
  for_each = var.zones

  subnet_id      = aws_subnet.zone[each.key].id
  route_table_id = aws_route_table.public.id
}

# Memory and bundles go to S3 without leaving the region's network. A gateway endpoint costs nothing.
resource "aws_vpc_endpoint" "s3" {
  vpc_id            = aws_vpc.main.id
  vpc_endpoint_type = "Gateway"
  service_name      = "com.amazonaws.${data.aws_region.current.id}.s3"
  route_table_ids   = [aws_route_table.public.id]

  tags = merge(local.tags, { Name = "${var.fleet} s3" })
}
