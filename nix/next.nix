# What the next image has beyond today's, `clawdinator-image-next`. `plans/roll.rhai` moves one host to it, and
# what has proven itself there moves into host.nix.
#
# Empty, both images are one derivation, so rolling to it changes nothing.
{ }
