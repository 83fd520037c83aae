# The volume under the state directory: what its mount unit is called and says.
#
# A plan creates the volume after the host, attaches it, and formats it when it is provably blank; `clawd host
# mount` then starts this unit and never writes one. So a host boots without its volume and does not wait for it.
rec {
  defaults = {
    # The label of the file system that clawd makes. Device names follow the order of attaching.
    label = "clawd-data";
    fsType = "ext4";
    # Seconds. A volume that is attached shows up in less.
    deviceTimeout = 10;
  };

  # systemd's name for the mount at a path that matches `layout.patterns.absolute`.
  unit =
    path:
    let
      below = builtins.substring 1 (builtins.stringLength path) path;
    in
    builtins.replaceStrings [ "-" "/" ] [ "\\x2d" "-" ] below + ".mount";

  # Values for `fileSystems`, and the unit that comes of them.
  mount =
    {
      stateDir,
      label ? defaults.label,
      fsType ? defaults.fsType,
      deviceTimeout ? defaults.deviceTimeout,
    }:
    {
      unit = unit stateDir;
      device = "/dev/disk/by-label/${label}";
      inherit fsType;
      options = [
        "nofail"
        "x-systemd.device-timeout=${toString deviceTimeout}s"
        # A volume only ever grows; its file system follows at the next mount.
        "x-systemd.growfs"
        "noatime"
        "nodev"
        "nosuid"
      ];
    };
}
