# What the functions of this directory give. The project's tests evaluate this file and hold `cases` in a snapshot;
# `failed` names the cases that differ from what is expected here.
#
#     nix-instantiate --eval --strict --json nix/lib/tests.nix
let
  clawd = import ./.;

  # Whether evaluating throws. What it says is for people; that it stops is what callers rely on.
  refuses = value: !(builtins.tryEval (builtins.deepSeq value value)).success;

  matches = pattern: values: map (value: builtins.match pattern value != null) values;

  cases = {
    host-names = {
      actual = map clawd.host.isName [
        "CLAWDINATOR-1"
        "CLAWDINATOR-42"
        "CLAWDINATOR-0"
        "CLAWDINATOR-01"
        "CLAWDINATOR-"
        "clawdinator-1"
        "CLAWDINATOR-1 "
        "CLAWDINATOR-1\n"
        1
      ];
      expected = [
        true
        true
        false
        false
        false
        false
        false
        false
        false
      ];
    };

    daily-note = {
      actual = clawd.host.dailyNote {
        date = "2026-01-28";
        host = "CLAWDINATOR-7";
      };
      expected = "2026-01-28_CLAWDINATOR-7.md";
    };

    daily-note-refuses = {
      actual = {
        host = refuses (
          clawd.host.dailyNote {
            date = "2026-01-28";
            host = "../goals";
          }
        );
        date = refuses (
          clawd.host.dailyNote {
            date = "28.1.2026";
            host = "CLAWDINATOR-7";
          }
        );
      };
      expected = {
        host = true;
        date = true;
      };
    };

    host-facts = {
      actual = clawd.host.facts {
        name = null;
        inherit (clawd.layout.of { }) paths;
        remote = "s3://clawd-memory/hive";
        volume = null;
      };
      expected = {
        host = null;
        paths = {
          root = "/var/lib/clawd";
          memory = "/var/lib/clawd/memory";
          workspace = "/var/lib/clawd/workspace";
          logs = "/var/lib/clawd/logs";
          repos = "/var/lib/clawd/repos";
          self = "/var/lib/clawd/repos/moltinators";
        };
        memory.remote = "s3://clawd-memory/hive";
        volume = null;
      };
    };

    layout = {
      actual = clawd.layout.of { stateDir = "/var/lib/clawd"; };
      expected = {
        paths = {
          root = "/var/lib/clawd";
          memory = "/var/lib/clawd/memory";
          workspace = "/var/lib/clawd/workspace";
          logs = "/var/lib/clawd/logs";
          repos = "/var/lib/clawd/repos";
          self = "/var/lib/clawd/repos/moltinators";
        };
        directories =
          map
            (path: {
              inherit path;
              mode = "0750";
              user = "clawd";
              group = "clawd";
            })
            [
              "/var/lib/clawd"
              "/var/lib/clawd/memory"
              "/var/lib/clawd/workspace"
              "/var/lib/clawd/logs"
              "/var/lib/clawd/repos"
            ];
        tmpfiles = [
          "d /var/lib/clawd 0750 clawd clawd - -"
          "d /var/lib/clawd/memory 0750 clawd clawd - -"
          "d /var/lib/clawd/workspace 0750 clawd clawd - -"
          "d /var/lib/clawd/logs 0750 clawd clawd - -"
          "d /var/lib/clawd/repos 0750 clawd clawd - -"
        ];
      };
    };

    layout-elsewhere = {
      actual =
        (clawd.layout.of {
          stateDir = "/srv/claws";
          memoryDir = "hive/mind";
          user = "agent";
          group = "agents";
          mode = "2770";
        }).tmpfiles;
      expected = [
        "d /srv/claws 2770 agent agents - -"
        "d /srv/claws/hive 2770 agent agents - -"
        "d /srv/claws/hive/mind 2770 agent agents - -"
        "d /srv/claws/workspace 2770 agent agents - -"
        "d /srv/claws/logs 2770 agent agents - -"
        "d /srv/claws/repos 2770 agent agents - -"
      ];
    };

    layout-patterns = {
      actual = {
        absolute = matches clawd.layout.patterns.absolute [
          "/var/lib/clawd"
          "/srv/claws-2"
          "var/lib"
          "/"
          "/var//lib"
          "/var/../etc"
          "/var/lib/clawd/"
          "/var/lib clawd"
        ];
        relative = matches clawd.layout.patterns.relative [
          "memory"
          "hive/mind"
          "/memory"
          "../memory"
          "memory/"
        ];
        remote = matches clawd.layout.patterns.remote [
          "s3://clawd-memory/hive"
          "s3://clawd-memory"
          "file:///srv/hive"
          "s3://Clawd/hive"
          "https://example.org/hive"
        ];
        account = matches clawd.layout.patterns.account [
          "clawd"
          "_agent-2"
          "Clawd"
          "2agents"
          "clawd agent"
          ""
        ];
        mode = matches clawd.layout.patterns.mode [
          "750"
          "2770"
          "0980"
          "75"
          "02770"
          "u=rwx"
        ];
      };
      expected = {
        absolute = [
          true
          true
          false
          false
          false
          false
          false
          false
        ];
        relative = [
          true
          true
          false
          false
          false
        ];
        remote = [
          true
          true
          true
          false
          false
        ];
        account = [
          true
          true
          false
          false
          false
          false
        ];
        mode = [
          true
          true
          false
          false
          false
          false
        ];
      };
    };

    volume = {
      actual = clawd.volume.mount { inherit (clawd.layout.defaults) stateDir; };
      expected = {
        unit = "var-lib-clawd.mount";
        device = "/dev/disk/by-label/clawd-data";
        fsType = "ext4";
        options = [
          "nofail"
          "x-systemd.device-timeout=10s"
          "x-systemd.growfs"
          "noatime"
          "nodev"
          "nosuid"
        ];
      };
    };

    # As `systemd-escape --path --suffix=mount` has them.
    volume-units = {
      actual = map clawd.volume.unit [
        "/srv"
        "/srv/claws-2"
        "/var/lib/clawd_a.b"
      ];
      expected = [
        "srv.mount"
        "srv-claws\\x2d2.mount"
        "var-lib-clawd_a.b.mount"
      ];
    };

    image-names = {
      actual = [
        (clawd.image.name { system = "x86_64-linux"; })
        (clawd.image.name {
          system = "aarch64-linux";
          variant = "repart";
        })
      ];
      expected = [
        "clawdinator-x86_64-linux"
        "clawdinator-repart-aarch64-linux"
      ];
    };

    image-facts = {
      actual = {
        x86_64-linux = clawd.image.facts "x86_64-linux";
        aarch64-linux = clawd.image.facts "aarch64-linux";
      };
      expected = {
        x86_64-linux = {
          architecture = "x86_64";
          bootMode = "uefi";
          format = "raw";
        };
        aarch64-linux = {
          architecture = "arm64";
          bootMode = "uefi";
          format = "raw";
        };
      };
    };

    # Both images fit a volume of this size: what `image-partitions` adds up to stays below it.
    image-disk = {
      actual = clawd.image.diskMiB;
      expected = 8192;
    };

    image-partitions = {
      actual = clawd.image.partitions "x86_64-linux";
      expected = {
        "10-esp" = {
          Type = "esp";
          Format = "vfat";
          Label = "ESP";
          SizeMinBytes = "512M";
          SizeMaxBytes = "512M";
        };
        "20-root" = {
          Type = "root-x86-64";
          Format = "ext4";
          Label = "nixos";
          SizeMinBytes = "7G";
        };
      };
    };

    image-growth = {
      actual = clawd.image.growth "aarch64-linux";
      expected."20-root".Type = "root-arm64";
    };

    image-refuses = {
      actual = {
        name = refuses (clawd.image.name { system = "riscv64-linux"; });
        facts = refuses (clawd.image.facts "riscv64-linux");
        partitions = refuses (clawd.image.partitions "riscv64-linux");
      };
      expected = {
        name = true;
        facts = true;
        partitions = true;
      };
    };
  };
in
{
  cases = builtins.mapAttrs (_: case: case.actual) cases;
  failed = builtins.filter (name: cases.${name}.actual != cases.${name}.expected) (
    builtins.attrNames cases
  );
}
