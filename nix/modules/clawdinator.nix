# What makes a NixOS machine a CLAWDINATOR: the accounts, the runtime layout, the mount of the state volume, and
# `clawd` itself. Services run on top of it and are modules of their own.
#
# It never formats, labels or attaches a volume, and makes nothing below the state directory while the volume is
# away: an unmounted directory is empty and root's, so nothing writes past the volume and no program takes an empty
# directory for lost memory.
{
  config,
  lib,
  pkgs,
  ...
}:

let
  inherit (lib) mkIf mkOption types;
  clawd = import ../lib;
  inherit (clawd.layout) patterns;

  cfg = config.services.clawdinator;

  layout = clawd.layout.of {
    inherit (cfg)
      stateDir
      user
      group
      mode
      ;
    memoryDir = cfg.memory.dir;
  };

  mount = clawd.volume.mount {
    inherit (cfg) stateDir;
    inherit (cfg.dataVolume) label fsType deviceTimeout;
  };

  rules = pkgs.writeText "clawdinator-layout.conf" (lib.concatLines layout.tmpfiles);
in
{
  options.services.clawdinator = {
    enable = lib.mkEnableOption "the runtime of a CLAWDINATOR";

    package = lib.mkPackageOption pkgs "clawd" { };

    hostName = mkOption {
      type = types.nullOr (types.strMatching clawd.host.namePattern);
      default = null;
      example = "CLAWDINATOR-1";
      description = ''
        The host's name in the fleet. With `null` the configuration fits every host, and the name
        is the instance's tag `clawd:host`; images are made that way.
      '';
    };

    stateDir = mkOption {
      type = types.strMatching patterns.absolute;
      default = clawd.layout.defaults.stateDir;
      description = "The directory all state is in; what a plan gives to `mount_volume` as `path`.";
    };

    user = mkOption {
      type = types.strMatching patterns.account;
      default = clawd.layout.defaults.user;
      description = "The account that the agent runs as and that owns the state directory.";
    };

    group = mkOption {
      type = types.strMatching patterns.account;
      default = clawd.layout.defaults.group;
      description = "The group of that account and of the state directory.";
    };

    uid = mkOption {
      type = types.ints.positive;
      default = 450;
      description = ''
        The account's number. It is fixed because the volume outlives the host: files on it belong
        to a number, and the next host must give it to the same account.
      '';
    };

    gid = mkOption {
      type = types.ints.positive;
      default = 450;
      description = "The group's number, fixed for the same reason.";
    };

    mode = mkOption {
      type = types.strMatching patterns.mode;
      default = clawd.layout.defaults.mode;
      description = "The mode of the state directory and of the directories in it, octal.";
    };

    paths = mkOption {
      type = types.attrsOf types.str;
      readOnly = true;
      default = layout.paths;
      defaultText = lib.literalMD "`root`, `memory`, `workspace`, `logs`, `repos`, `self`";
      description = "Where things are, for other modules.";
    };

    memory = {
      dir = mkOption {
        type = types.strMatching patterns.relative;
        default = clawd.layout.defaults.memoryDir;
        description = ''
          The directory of the shared memory, relative to the state directory, so that it cannot end
          up beside the volume; what a plan gives to `sync_memory` as `dir`.
        '';
      };

      watch = mkOption {
        type = types.bool;
        default = true;
        description = "Whether the memory is kept in step all the time; what a plan gives to `sync_memory` as `watch`.";
      };

      remote = mkOption {
        type = types.nullOr (types.strMatching patterns.remote);
        default = null;
        example = "s3://clawd-memory/hive";
        description = ''
          Where the memory is shared, for programs that read {file}`/etc/clawd/host.json`. With
          `null` only the plan says it, in `sync_memory`.
        '';
      };
    };

    dataVolume = {
      enable = mkOption {
        type = types.bool;
        default = true;
        example = false;
        description = ''
          Whether the state directory is a volume of its own, which outlives the host. Without it
          the state is on the root disk and is lost with the host.
        '';
      };

      label = mkOption {
        type = types.strMatching "[A-Za-z0-9_.-]{1,12}";
        default = clawd.volume.defaults.label;
        description = "The label of the file system; `clawd` gives it to what it formats.";
      };

      fsType = mkOption {
        type = types.enum [
          "ext4"
          "xfs"
        ];
        default = clawd.volume.defaults.fsType;
        description = "The file system; what a plan gives to `mount_volume` as `fs`.";
      };

      deviceTimeout = mkOption {
        type = types.ints.positive;
        default = clawd.volume.defaults.deviceTimeout;
        description = "How many seconds mounting waits for the device. Booting does not wait.";
      };
    };
  };

  config = mkIf cfg.enable {
    networking.hostName = mkIf (cfg.hostName != null) cfg.hostName;

    environment.systemPackages = [ cfg.package ];

    environment.etc."clawd/host.json".text = builtins.toJSON (
      clawd.host.facts {
        name = cfg.hostName;
        inherit (cfg) paths;
        inherit (cfg.memory) remote;
        volume = if cfg.dataVolume.enable then { inherit (mount) unit device; } else null;
      }
    );

    users.users.${cfg.user} = {
      isSystemUser = true;
      description = "CLAWDINATOR";
      inherit (cfg) uid group;
      home = cfg.stateDir;
      # The home is the volume. Made at boot, it would be made on the root disk.
      createHome = false;
    };
    users.groups.${cfg.group} = { inherit (cfg) gid; };

    fileSystems = mkIf cfg.dataVolume.enable {
      ${cfg.stateDir} = { inherit (mount) device fsType options; };
    };

    # At boot, when there is no volume to wait for.
    systemd.tmpfiles.rules = mkIf (!cfg.dataVolume.enable) layout.tmpfiles;

    # Otherwise whenever the volume is mounted, at boot or by a plan days later, and only then. Rules in
    # /etc/tmpfiles.d would run before a volume that came late, on the root disk beneath it.
    systemd.services.clawdinator-layout = mkIf cfg.dataVolume.enable {
      description = "Make the runtime layout on the state volume";
      wantedBy = [ mount.unit ];
      bindsTo = [ mount.unit ];
      after = [ mount.unit ];
      serviceConfig = {
        Type = "oneshot";
        RemainAfterExit = true;
        ExecStart = "${config.systemd.package}/bin/systemd-tmpfiles --create ${rules}";
      };
    };

    # `sync_memory` starts it once the directory is a memory, and from then on it runs whenever the volume is there. It stops before
    # the volume goes, so that a plan can take it away.
    systemd.services.clawd-memory = {
      description = "Keep the shared memory in step";
      wantedBy = lib.optional cfg.memory.watch (if cfg.dataVolume.enable then mount.unit else "multi-user.target");
      bindsTo = lib.optional cfg.dataVolume.enable mount.unit;
      after = [
        "network-online.target"
        "clawdinator-layout.service"
      ]
      ++ lib.optional cfg.dataVolume.enable mount.unit;
      wants = [ "network-online.target" ];
      unitConfig.ConditionPathExists = "${layout.paths.memory}/.clawd-memory.json";
      serviceConfig = {
        ExecStart = "${lib.getExe cfg.package} memory sync --watch --dir ${layout.paths.memory}";
        User = cfg.user;
        Group = cfg.group;
        Restart = "on-failure";
        RestartSec = 30;
        # A round that runs is finished first.
        TimeoutStopSec = 120;
      };
    };
  };
}
