//! The machines that nix builds on, and whether one of them takes a derivation.

use std::fs;

/// A machine that builds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Builder {
    pub(super) name: String,
    pub(super) systems: Vec<String>,
    pub(super) features: Vec<String>,
}

/// Nix's `builders`: machines one per line or between semicolons, or `@` and a file of them. Their fields: address,
/// systems, key, jobs, speed, features, mandatory features.
pub(super) fn remote_builders(text: &str) -> Vec<Builder> {
    let mut found = Vec::new();
    for line in text.split(['\n', ';']).map(|line| line.split('#').next().unwrap_or_default().trim()) {
        if let Some(file) = line.strip_prefix('@') {
            // Nix takes a missing file as an empty one.
            found.extend(remote_builders(&fs::read_to_string(file).unwrap_or_default()));
            continue;
        }
        let fields: Vec<&str> = line.split_whitespace().collect();
        let list = |at: usize| -> Vec<String> {
            let field = fields.get(at).copied().filter(|field| *field != "-").unwrap_or_default();
            field.split(',').filter(|part| !part.is_empty()).map(str::to_owned).collect()
        };
        if let Some(name) = fields.first() {
            let mut features = list(5);
            features.extend(list(6));
            found.push(Builder { name: (*name).to_owned(), systems: list(1), features });
        }
    }
    found
}

pub(super) fn hindrance(features: &[String], system: &str, builders: &[Builder]) -> Option<String> {
    let missing = |builder: &Builder| -> Vec<String> {
        features.iter().filter(|it| !builder.features.contains(it)).cloned().collect()
    };
    let of_system: Vec<&Builder> =
        builders.iter().filter(|builder| builder.systems.iter().any(|it| it == system)).collect();
    if of_system.iter().any(|builder| missing(builder).is_empty()) {
        return None;
    }
    if of_system.is_empty() {
        let names: Vec<&str> = builders.iter().map(|builder| builder.name.as_str()).collect();
        return Some(format!("no builder is for {system} (there are: {})", names.join(", ")));
    }
    let each: Vec<String> = of_system
        .iter()
        .map(|builder| format!("{} lacks {}", builder.name, missing(builder).join(", ")))
        .collect();
    Some(format!("it needs the features {}: {}", features.join(", "), each.join("; ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(list: &[&str]) -> Vec<String> {
        list.iter().map(|it| (*it).to_owned()).collect()
    }

    #[test]
    fn builders_are_read_and_the_missing_feature_is_named() {
        let text = "ssh://a x86_64-linux,i686-linux /key 4 1 big-parallel,kvm - key # comment\nssh://b aarch64-linux";
        let mut builders = vec![Builder {
            name: "this machine".into(),
            systems: words(&["x86_64-linux"]),
            features: words(&["big-parallel"]),
        }];
        let local = hindrance(&words(&["kvm"]), "x86_64-linux", &builders).unwrap();
        assert_eq!(local, "it needs the features kvm: this machine lacks kvm");
        builders.extend(remote_builders(text));
        assert_eq!(builders.len(), 3);
        assert_eq!(hindrance(&words(&["kvm"]), "x86_64-linux", &builders), None);
        assert_eq!(
            hindrance(&words(&["kvm"]), "aarch64-linux", &builders).unwrap(),
            "it needs the features kvm: ssh://b lacks kvm"
        );
        assert!(
            hindrance(&[], "riscv64-linux", &builders).unwrap().contains("no builder is for riscv64-linux")
        );
    }
}
