# A host's name, what is named after it, and what a host says of itself.
rec {
  # CLAWDINATOR-1 to n, for `types.strMatching`.
  namePattern = "CLAWDINATOR-[1-9][0-9]*";

  isName = name: builtins.isString name && builtins.match namePattern name != null;

  # The file of a host's daily note, relative to the memory; `date` is YYYY-MM-DD. Only that host pushes it, so a
  # wrong name must not pass.
  dailyNote =
    { date, host }:
    if !isName host then
      throw "`${host}` is not the name of a host; names are CLAWDINATOR-1, CLAWDINATOR-2, ..."
    else if builtins.match "[0-9]{4}-[0-9]{2}-[0-9]{2}" date == null then
      throw "`${date}` is not a date; daily notes have YYYY-MM-DD"
    else
      "${date}_${host}.md";

  # The content of /etc/clawd/host.json: what programs on the host would otherwise each hold a copy of. No secrets:
  # every account reads it.
  facts =
    {
      name,
      paths,
      remote,
      volume,
    }:
    {
      host = name;
      inherit paths;
      memory = { inherit remote; };
      inherit volume;
    };
}
