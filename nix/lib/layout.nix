# The runtime layout of a host: where things are below the state directory, and the tmpfiles rules that make them.
#
# Paths and accounts have no character that tmpfiles or systemd would read otherwise; `patterns` says which they
# may have.
rec {
  # For `types.strMatching`. `relative` and `remote` are those of the primitive `sync_memory`.
  patterns = {
    absolute = "(/[A-Za-z0-9_][A-Za-z0-9._-]*)+";
    relative = "[A-Za-z0-9_][A-Za-z0-9._-]*(/[A-Za-z0-9_][A-Za-z0-9._-]*)*";
    remote = "s3://[a-z0-9][a-z0-9.-]{1,61}[a-z0-9](/[A-Za-z0-9._/-]*)?|file:///.*";
    account = "[a-z_][a-z0-9_-]{0,30}";
    mode = "[0-7]{3,4}";
  };

  # Owner and mode are those of the primitive `mount_volume`: plan and host want the same of the mount's root.
  defaults = {
    stateDir = "/var/lib/clawd";
    memoryDir = "memory";
    user = "clawd";
    group = "clawd";
    mode = "0750";
  };

  of =
    {
      stateDir ? defaults.stateDir,
      memoryDir ? defaults.memoryDir,
      user ? defaults.user,
      group ? defaults.group,
      mode ? defaults.mode,
    }:
    let
      repos = "${stateDir}/repos";
      paths = {
        root = stateDir;
        memory = "${stateDir}/${memoryDir}";
        workspace = "${stateDir}/workspace";
        logs = "${stateDir}/logs";
        inherit repos;
        # The project's clone on the host. git makes this directory.
        self = "${repos}/moltinators";
      };
      # Every directory down to the memory, by name: tmpfiles makes parents it is not told of as root's, and then
      # refuses to go on from an account's directory into one of root's.
      parts = builtins.filter builtins.isString (builtins.split "/" memoryDir);
      upTo =
        count:
        builtins.concatStringsSep "/" (
          [ stateDir ] ++ builtins.genList (builtins.elemAt parts) count
        );
      memories = builtins.genList (index: upTo (index + 1)) (builtins.length parts);
      directories = [
        paths.root
      ]
      ++ memories
      ++ [
        paths.workspace
        paths.logs
        paths.repos
      ];
    in
    {
      inherit paths;
      directories = map (path: {
        inherit
          path
          mode
          user
          group
          ;
      }) directories;
      tmpfiles = map (path: "d ${path} ${mode} ${user} ${group} - -") directories;
    };
}
