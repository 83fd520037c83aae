//! The simulator refuses what EC2 refuses, and injects failures by seed.

use clawd::providers::ports::{Purpose, StackRequest, Tags, VolumeRequest, VolumeShape};
use clawd::providers::sim::{Faults, Settings};
use clawd::providers::{ErrorKind, Providers};
use clawd::units::GiB;
use clawd::value::{Map, Value};

use crate::contract::{self, Quiet, World};

use crate::support::{Project, simulator};

fn volume(zone: &str) -> VolumeRequest {
    VolumeRequest {
        zone: zone.into(),
        size: GiB(10),
        kind: "gp3".into(),
        iops: None,
        throughput: None,
        kms_key: None,
        snapshot: None,
        tags: Tags::new(),
    }
}

/// Launches one instance in each zone; returns their ids.
async fn instances(providers: &Providers, zones: &[&str]) -> Vec<String> {
    let hosts = zones.iter().enumerate().map(|(number, zone)| {
        let host = Value::map(
            [("type", "t3.large"), ("zone", *zone), ("ami", "ami-0123456789abcdef0")]
                .map(|(key, text)| (key, Value::from(text))),
        );
        (format!("h{number}"), host)
    });
    let request = StackRequest {
        dir: "tofu/fleet".into(),
        workspace: "default".into(),
        vars: Map::from_iter([("instances".into(), Value::map(hosts))]),
        ..StackRequest::default()
    };
    let plan = providers.tofu.plan(&request, Purpose::Show).await.unwrap();
    let outputs = providers.tofu.apply(&request, &plan, &Quiet).await.unwrap();
    let ids = outputs.get("instance_ids").and_then(Value::as_map).unwrap().clone();
    ids.values().map(|id| id.as_str().unwrap().to_owned()).collect()
}

async fn wait(providers: &Providers) {
    providers.clock.sleep(std::time::Duration::from_secs(120)).await;
}

#[tokio::test]
async fn a_token_answers_with_what_it_made_and_refuses_other_parameters() {
    let project = Project::new();
    let ec2 = simulator(project.path(), Settings::default()).ec2;
    let first = ec2.create_volume("token", &volume("a")).await.unwrap();
    assert_eq!(ec2.create_volume("token", &volume("a")).await.unwrap(), first);
    let error = ec2.create_volume("token", &volume("b")).await.unwrap_err();
    assert!(error.message.starts_with("IdempotentParameterMismatch"), "{error}");
    assert_eq!(error.kind, ErrorKind::Permanent);
}

/// The simulator as a world to hold a contract against.
fn world(providers: Providers) -> World {
    World {
        ec2: providers.ec2,
        upload: providers.upload,
        clock: Some(providers.clock),
        fleet: "contract".into(),
        bucket: "any".into(),
    }
}

#[tokio::test]
async fn the_contract_of_volumes_holds() {
    let project = Project::new();
    let providers = simulator(project.path(), Settings::default());
    let hosts = instances(&providers, &["a", "a"]).await;
    let world = world(providers);
    contract::volumes_hold(&world, "a", [&hosts[0], &hosts[1]]).await;
}

#[tokio::test]
async fn the_contract_of_images_and_uploads_holds() {
    let project = Project::new();
    let providers = simulator(project.path(), Settings::default());
    let world = world(providers);
    contract::holds(&world, project.path()).await;
}

#[tokio::test]
async fn volumes_attach_once_in_their_zone_and_never_shrink() {
    let project = Project::new();
    let providers = simulator(project.path(), Settings::default());
    let ec2 = &providers.ec2;
    let hosts = instances(&providers, &["a", "b", "a"]).await;
    let id = ec2.create_volume("token", &volume("a")).await.unwrap();
    let creating = ec2.attach_volume(&id, &hosts[0]).await.unwrap_err();
    assert!(creating.message.starts_with("IncorrectState"), "{creating}");
    wait(&providers).await;
    let zone = ec2.attach_volume(&id, &hosts[1]).await.unwrap_err();
    assert!(zone.message.starts_with("InvalidVolume.ZoneMismatch"), "{zone}");
    ec2.attach_volume(&id, &hosts[0]).await.unwrap();
    ec2.attach_volume(&id, &hosts[0]).await.unwrap();
    let taken = ec2.attach_volume(&id, &hosts[2]).await.unwrap_err();
    assert!(taken.message.starts_with("VolumeInUse"), "{taken}");
    let smaller = VolumeShape { size: GiB(5), kind: "gp3".into(), iops: None, throughput: None };
    let error = ec2.modify_volume(&id, &smaller).await.unwrap_err();
    assert!(error.message.starts_with("InvalidParameterValue"), "{error}");
}

#[tokio::test]
async fn the_world_is_kept_and_a_damaged_one_is_refused() {
    let project = Project::new();
    let id = simulator(project.path(), Settings::default())
        .ec2
        .create_volume("token", &volume("a"))
        .await
        .unwrap();
    let again = simulator(project.path(), Settings::default());
    assert_eq!(again.ec2.volume(&id).await.unwrap().unwrap().id, id);
    // A torn last line is as if the call had not been made.
    let path = project.path().join(".world/world.log");
    let mut log = std::fs::read(&path).unwrap();
    log.extend_from_slice(b"deadbeef {\"now\":1,");
    std::fs::write(&path, &log).unwrap();
    let torn = simulator(project.path(), Settings::default());
    assert!(torn.ec2.volume(&id).await.unwrap().is_some());
    torn.ec2.create_volume("other", &volume("a")).await.unwrap();
    assert_eq!(simulator(project.path(), Settings::default()).ec2.volumes(&[]).await.unwrap().len(), 2);
    // Damage before the end is never guessed at.
    log[30] ^= 1;
    std::fs::write(&path, &log).unwrap();
    project.write("plans/x.rhai", "");
    std::fs::create_dir_all(project.path().join(".clawd/sim")).unwrap();
    std::fs::rename(project.path().join(".world"), project.path().join(".clawd/sim/world")).unwrap();
    insta::assert_snapshot!("damaged-world", project.block(&["plan", "plans/x.rhai"]));
}

#[tokio::test]
async fn failures_come_by_seed() {
    let project = Project::new();
    let outcomes = |seed: u64| {
        let path = project.path().join(format!("w{seed}"));
        async move {
            std::fs::create_dir_all(&path).unwrap();
            let ec2 = simulator(&path, Settings { faults: Faults { seed, rate: 0.5 }, time_scale: 0.0 }).ec2;
            let mut kinds = Vec::new();
            for _ in 0..32 {
                kinds.push(ec2.volume("vol-none").await.map(|_| ()).map_err(|error| error.kind));
            }
            kinds
        }
    };
    let first = outcomes(1).await;
    assert_eq!(first, outcomes(1).await);
    assert_ne!(first, outcomes(2).await);
    assert!(first.iter().any(Result::is_ok) && first.iter().any(Result::is_err));
}
