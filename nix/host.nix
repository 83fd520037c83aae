# A host of the fleet: an EC2 instance that is what its image is. Both images are made of this configuration, and
# a host of the Amazon image can be switched to it; one of the repart image has another boot loader.
#
# It never holds what differs between hosts. Their name, their volume and their secrets reach them at run time;
# otherwise there would be an image per host.
{ lib, modulesPath, ... }:

{
  imports = [ "${modulesPath}/virtualisation/amazon-image.nix" ];

  services.clawdinator.enable = true;

  image.modules = {
    amazon = ./image.nix;
    repart = ./repart.nix;
  };

  ec2.efi = true;

  # clawd reaches a host through SSM, so nothing has to listen. The module above turns sshd on by a plain
  # definition; a debugging image turns it on again by `mkForce`, which wins over this one.
  services.amazon-ssm-agent.enable = true;
  services.openssh.enable = lib.mkOverride 75 false;

  # User data must not be a second way to configure a host, past what a plan has shown. What the image fetches of
  # the metadata service it fetches with a session token, so instances may require IMDSv2.
  virtualisation.amazon-init.enable = false;

  # What would tell one commit from another. The label is in the system's store path; the manual would hold the
  # store path of this flake, where options are declared.
  system.configurationRevision = null;
  system.nixos.label = "clawdinator";
  documentation.enable = false;

  time.timeZone = "UTC";

  # The release whose state the first hosts have. It is not raised with nixpkgs.
  system.stateVersion = "26.05";
}
