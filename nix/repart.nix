# The image made by systemd-repart, variant `repart` of `system.build.images`. It is the same host on the same
# layout of the disk, written file by file without a virtual machine, so any builder can make it.
#
# The firmware starts systemd-boot from the removable path of the ESP, and systemd-boot starts the unified kernel
# image beside it. Labels are those of the Amazon image, so the file systems need no definition of their own.
{
  config,
  lib,
  modulesPath,
  pkgs,
  ...
}:

let
  inherit (import ./lib) image;
  inherit (pkgs.stdenv.hostPlatform) efiArch system;

  partitions = image.partitions system;
  registration = "/nix-path-registration";
  closure = pkgs.closureInfo { rootPaths = [ config.system.build.toplevel ]; };
in
{
  imports = [ "${modulesPath}/image/repart.nix" ];

  image.repart = {
    name = image.name {
      inherit system;
      variant = "repart";
    };
    partitions = {
      "10-esp" = {
        repartConfig = partitions."10-esp";
        contents = {
          "/EFI/BOOT/BOOT${lib.toUpper efiArch}.EFI".source =
            "${pkgs.systemd}/lib/systemd/boot/efi/systemd-boot${efiArch}.efi";
          "/EFI/Linux/${config.system.boot.loader.ukiFile}".source =
            "${config.system.build.uki}/${config.system.boot.loader.ukiFile}";
        };
      };
      "20-root" = {
        repartConfig = partitions."20-root";
        storePaths = [ config.system.build.toplevel ];
        contents.${registration}.source = "${closure}/registration";
      };
    };
  };

  # For switches to a later system of this variant: their entries are written for the loader that is there.
  boot.loader = {
    grub.enable = false;
    systemd-boot.enable = true;
  };

  # repart grows the partition, and `autoResize` of the Amazon module the file system in it. The growing that that
  # module brings would be a second hand on the same table.
  boot.growPartition = lib.mkForce false;
  systemd.repart = {
    enable = true;
    partitions = image.growth system;
  };

  # The partition alone would grow, and hosts run out of disk weeks later, were nixpkgs to stop setting this.
  assertions = [
    {
      assertion = config.fileSystems."/".autoResize;
      message = "the repart image's root must grow: autoResize of \"/\"";
    }
  ];

  # Copied store paths are unknown to nix until its database is told. Without this a host could neither switch nor
  # collect garbage, and nix would fetch what it already has.
  systemd.services.register-store = {
    description = "Tell nix about the store paths of the image";
    wantedBy = [ "sysinit.target" ];
    after = [ "local-fs.target" ];
    before = [
      "sysinit.target"
      "nix-daemon.socket"
      "nix-daemon.service"
      "shutdown.target"
    ];
    conflicts = [ "shutdown.target" ];
    unitConfig = {
      DefaultDependencies = false;
      ConditionPathExists = registration;
    };
    serviceConfig = {
      Type = "oneshot";
      RemainAfterExit = true;
    };
    path = [ config.nix.package ];
    # The file goes last: a boot that was cut short tries again.
    script = ''
      nix-store --load-db < ${registration}
      nix-env --profile /nix/var/nix/profiles/system --set /run/current-system
      rm ${registration}
    '';
  };
}
