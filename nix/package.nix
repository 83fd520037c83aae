# The package `clawd`. It never knows which commit it was built from.
#
# Only what the compiler reads is in its source: the path of a `toSource` is a hash of the files it names, so a
# changed README, test, plan or note gives the same path, the same package and the same AMI.
{ lib, rustPlatform }:

let
  manifest = lib.importTOML ../Cargo.toml;
in
rustPlatform.buildRustPackage {
  pname = manifest.package.name;
  inherit (manifest.package) version;

  src = lib.fileset.toSource {
    root = ../.;
    fileset = lib.fileset.unions [
      ../Cargo.lock
      ../Cargo.toml
      ../src
      # Compiled in by src/script/stdlib.rs.
      ../stdlib
    ];
  };

  cargoLock.lockFile = ../Cargo.lock;

  # The AWS crates declare a newer compiler than the locked nixpkgs has. cargo would refuse before it compiles
  # anything; this leaves the verdict to the compiler.
  cargoBuildFlags = [ "--ignore-rust-version" ];

  # The tests are not in the source. They run in scripts/test, which needs no nix.
  doCheck = false;

  meta = {
    inherit (manifest.package) description;
    license = with lib.licenses; [
      asl20
      mit
    ];
    mainProgram = "clawd";
    platforms = lib.platforms.linux;
  };
}
