# What can be said of hosts and images without nixpkgs: plain functions from data to data, over builtins only.
# Modules and images take their values from here; tests.nix holds what each function gives.
{
  host = import ./host.nix;
  image = import ./image.nix;
  layout = import ./layout.nix;
  volume = import ./volume.nix;
}
