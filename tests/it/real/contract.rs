//! The contract of the ports, asked of the AWS adapters against moto.

use super::project::adapters;
use super::{Proxy, moto};
use crate::contract::{self, World};

#[tokio::test]
async fn the_contract_of_volumes_holds_for_moto() {
    let dir = tempfile::tempdir().unwrap();
    let proxy = Proxy::plain();
    let (ec2, upload) = adapters(&proxy.url(), dir.path());
    let fleet = format!("volumes-{}", std::process::id());
    let hosts = [moto::launch(), moto::launch()];
    let world = World { ec2, upload, clock: None, fleet, bucket: String::new() };
    contract::volumes_hold(&world, "eu-central-1a", [&hosts[0], &hosts[1]]).await;
}

#[tokio::test]
async fn the_contract_of_images_and_uploads_holds_for_moto() {
    let dir = tempfile::tempdir().unwrap();
    let proxy = Proxy::plain();
    let (ec2, upload) = adapters(&proxy.url(), dir.path());
    let fleet = format!("contract-{}", std::process::id());
    let bucket = format!("contract-{}", std::process::id());
    moto::make_bucket(&bucket);
    contract::holds(&World { ec2, upload, clock: None, fleet, bucket }, dir.path()).await;
}
