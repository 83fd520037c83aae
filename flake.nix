{
  description = "clawd, and the NixOS hosts and images its fleet plans are about";

  inputs = {
    agenix.url = "github:ryantm/agenix";
    # github:moltbot/nix-moltbot under its name of today.
    nix-openclaw.url = "github:openclaw/nix-openclaw";
    # One nixpkgs: the one the gateway is tested with.
    nixpkgs.follows = "nix-openclaw/nixpkgs";
  };

  # An image is its store path, and a new path is a new AMI. So nothing here may depend on more than what is in the
  # image: no `self.rev`, no `self.lastModified`, and never `self` or `./.` as text, which are this whole tree. The
  # package's source is a set of files (nix/package.nix), and the modules put values into the image, not files.
  outputs =
    {
      self,
      nixpkgs,
      agenix,
      nix-openclaw,
    }:
    let
      inherit (nixpkgs) lib;

      forSystems = lib.genAttrs [
        "x86_64-linux"
        "aarch64-linux"
      ];

      # All hosts of a system are one configuration: a host's name is not in its image.
      hostOn =
        system: more:
        lib.nixosSystem {
          modules = [
            {
              nixpkgs.hostPlatform = system;
              nixpkgs.overlays = [ nix-openclaw.overlays.default ];
            }
            agenix.nixosModules.default
            nix-openclaw.nixosModules.openclaw-gateway
            self.nixosModules.clawdinator
            ./nix/host.nix
          ]
          ++ more;
        };

      # What can be said of an image before it is built stands beside the derivation, for people and scripts: clawd
      # itself reads what the built image says of itself.
      imageOf =
        system: host: variant:
        host.config.system.build.images.${variant} // { clawd = self.lib.image.facts system; };
    in
    {
      lib = import ./nix/lib;

      overlays.default = final: prev: { clawd = final.callPackage ./nix/package.nix { }; };

      nixosModules = {
        clawdinator = {
          imports = [ ./nix/modules/clawdinator.nix ];
          nixpkgs.overlays = [ self.overlays.default ];
        };
        default = self.nixosModules.clawdinator;
      };

      nixosConfigurations = {
        clawdinator = hostOn "x86_64-linux" [ ];
        clawdinator-next = hostOn "x86_64-linux" [ ./nix/next.nix ];
      };

      packages = forSystems (
        system:
        let
          host = hostOn system [ ];
          next = hostOn system [ ./nix/next.nix ];
        in
        {
          inherit (host.pkgs) clawd;
          default = host.pkgs.clawd;
          clawdinator-image = imageOf system host "amazon";
          clawdinator-image-next = imageOf system next "amazon";
          clawdinator-image-repart = imageOf system host "repart";
        }
      );

      formatter = forSystems (system: nixpkgs.legacyPackages.${system}.nixfmt-tree);
    };
}
