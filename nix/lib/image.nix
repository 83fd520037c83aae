# Images: what they are called, what they are, how their disk is divided. No name has a revision or a date in it;
# names are in store paths, and a new path is a new AMI.
let
  systems = {
    x86_64-linux = {
      architecture = "x86_64";
      root = "root-x86-64";
    };
    aarch64-linux = {
      architecture = "arm64";
      root = "root-arm64";
    };
  };

  on =
    system:
    systems.${system}
      or (throw "no image is made for ${system}, only for ${toString (builtins.attrNames systems)}");
in
{
  # File name without extension.
  name =
    {
      system,
      variant ? "amazon",
    }:
    builtins.seq (on system) (
      if variant == "amazon" then "clawdinator-${system}" else "clawdinator-${variant}-${system}"
    );

  # What an AMI is registered with.
  facts = system: {
    inherit (on system) architecture;
    bootMode = "uefi";
    format = "raw";
  };

  # A root that holds the closure with room to spare on a volume no larger than the image. Zeroes are not uploaded.
  diskMiB = 8192;

  # repart.d definitions the image is made by, in this order on the disk. Both partitions and the table stay below
  # `diskMiB`, so either image fits a volume of 8 GiB. A file system is labelled like its partition.
  partitions = system: {
    "10-esp" = {
      Type = "esp";
      Format = "vfat";
      Label = "ESP";
      SizeMinBytes = "512M";
      SizeMaxBytes = "512M";
    };
    "20-root" = {
      Type = (on system).root;
      Format = "ext4";
      Label = "nixos";
      SizeMinBytes = "7G";
    };
  };

  # repart.d definitions on the host: the root takes what is free behind it, and nothing is added.
  growth = system: { "20-root".Type = (on system).root; };
}
