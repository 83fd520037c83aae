# The hosts of a fleet without a cloud: the same variables and outputs as tofu/fleet, and nothing behind them.
#
# It is for trying plans with a real OpenTofu, whose plans, states and replacements are then the real ones, on a machine
# without account or network. It makes no machine: an id leads nowhere.

resource "terraform_data" "host" {
  for_each = var.instances

  # Another image or zone is another host, for this one alone.
  triggers_replace = {
    ami  = each.value.ami
    zone = each.value.zone
  }

  # Another type is the same host, stopped and started.
  input = {
    type = each.value.type
  }

  lifecycle {
    create_before_destroy = false
  }
}
