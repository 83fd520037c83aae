# The Amazon image, variant `amazon` of `system.build.images`: a raw GPT disk with an ESP and an ext4 root that
# grows to the volume it finds itself on. Building it runs a virtual machine, so the builder needs kvm; repart.nix
# does without.
{ config, pkgs, ... }:

let
  inherit (import ./lib) image;
  inherit (pkgs.stdenv.hostPlatform) system;
in
{
  # The EBS direct API takes raw disks only.
  amazonImage.format = (image.facts system).format;

  image.baseName = image.name { inherit system; };
  virtualisation.diskSize = image.diskMiB;

  # nixpkgs sets both. Were it to stop, hosts would run out of disk weeks later instead of this failing now.
  assertions = [
    {
      assertion = config.boot.growPartition && config.fileSystems."/".autoResize;
      message = "the Amazon image's root must grow: boot.growPartition and autoResize of \"/\"";
    }
  ];
}
