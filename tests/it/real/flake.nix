# Images for clawd's tests: sparse raw disks of 32 MiB, made by /bin/sh, so that nothing is fetched. The salt makes them
# each test's own.
{
  outputs =
    { self }:
    let
      system = "x86_64-linux";
      salt = "@salt@";
      change = "";
      make =
        name: script: more:
        derivation (
          {
            inherit name system;
            builder = "/bin/sh";
            PATH = "/usr/bin:/bin";
            args = [
              "-ec"
              script
            ];
          }
          // more
        );
      # 64 blocks of 512 KiB: 8 hold data, one of them depends on the change.
      disk = ''
        for block in 0 1 2 3 20 21 40; do
          echo "${salt} $block" | dd of="$file" bs=524288 seek=$block conv=notrunc 2>/dev/null
        done
        echo "${salt} ${change}" | dd of="$file" bs=524288 seek=63 conv=notrunc 2>/dev/null
        truncate -s 32M "$file"
      '';
      raw = make "test-image" ''
        mkdir -p $out/nix-support
        file=$out/nixos.img
        ${disk}
        echo '{ "boot_mode": "uefi", "system": "x86_64-linux", "file": "'$file'" }' > $out/nix-support/image-info.json
      '' { };
    in
    {
      packages.${system} = {
        inherit raw;
        clawdinator-image = raw;
        file = make "image-file" ''
          file=$out
          ${disk}
        '' { };
        bios = make "bios-image" ''
          mkdir -p $out/nix-support
          file=$out/nixos.img
          ${disk}
          echo '{ "boot_mode": "legacy-bios" }' > $out/nix-support/image-info.json
        '' { };
        arm = make "arm-image" ''
          mkdir -p $out/nix-support
          file=$out/nixos.img
          ${disk}
          echo '{ "system": "aarch64-linux" }' > $out/nix-support/image-info.json
        '' { };
        qcow2 = make "qcow2-image" ''
          mkdir -p $out
          printf 'QFI\373\000\000\000\003 ${salt}' > $out/nixos.qcow2
        '' { };
        vmdk = make "vmdk-image" ''
          mkdir -p $out
          printf 'KDMV ${salt}' > $out/nixos.vmdk
          truncate -s 20M $out/nixos.vmdk
        '' { };
        two = make "two-images" ''
          mkdir -p $out
          echo 1${salt} > $out/a.img
          echo 2 > $out/b.img
        '' { };
        none = make "no-image" ''
          mkdir -p $out
          echo ${salt} > $out/README
        '' { };
        fails = make "failing-image" ''
          echo "making ${salt}"
          echo "the disk is on fire" >&2
          exit 7
        '' { };
        full = make "full-disk" ''
          echo "cp: error writing '/build/nixos.img': No space left on device" >&2
          exit 1
        '' { };
        kvm = make "kvm-image" "echo ${salt} > $out" {
          requiredSystemFeatures = [
            "kvm"
            "quantum"
          ];
        };
        slow = make "slow-image" "sleep 300" { mark = "slow-image-${salt}"; };
        broken = throw "the host's configuration is wrong: ${salt}";
        text = "not a derivation";
      };
      nixosConfigurations.host.config.system.build.images = {
        amazon = raw;
        qemu = self.packages.${system}.qcow2;
      };
    };
}
