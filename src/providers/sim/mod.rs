//! The simulator: an in-process world behind the same ports as AWS, kept under `.clawd/sim/`, for rehearsals
//! and tests. It refuses what EC2 refuses, and takes the time that EC2 takes on a virtual clock.
//!
//! Never touches the network or runs a process. Failures can be injected by seed (`faults`). State is an
//! append-only log (`world`), so a kill at any moment leaves a world that some sequence of whole calls made.

#![allow(clippy::disallowed_methods)] // this is where it is done

mod ec2;
mod faults;
mod hosts;
mod images;
mod nix;
mod tables;
mod tofu;
mod upload;
mod volumes;
mod world;

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;

use super::model::StackModel;
use super::ports::{Answer, Clock, Providers};
use crate::units::Seconds;

pub use faults::Faults;
pub use world::World;

/// The region of a simulated world when nobody says otherwise. Instances, volumes and uploads are in the world's own region;
/// others have images and their snapshots only.
pub const HOME_REGION: &str = "eu-central-1";

/// How a simulated world behaves.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Settings {
    /// Failures to inject.
    pub faults: Faults,
    /// Real seconds per virtual second; 0 does not wait at all.
    pub time_scale: f64,
}

/// The simulator's adapters over one world; `Ec2Sim` adds the region.
pub(crate) struct Sim {
    root: PathBuf,
    /// The region the world is in.
    home: String,
    world: World,
    model: Arc<dyn StackModel>,
    settings: Settings,
    /// The virtual clock in milliseconds since the epoch.
    now_ms: AtomicI64,
    faults: faults::Injector,
    /// Contents of flakes' files by directory, until the next refresh.
    flakes: Mutex<HashMap<String, Arc<[u8]>>>,
}

impl Sim {
    fn now(&self) -> i64 {
        self.now_ms.load(Ordering::Relaxed).div_euclid(1000)
    }

    /// The moment something is ready that takes `time` from now on.
    fn ready_after(&self, time: Seconds) -> i64 {
        self.now().saturating_add(i64::try_from(time.0).unwrap_or(i64::MAX))
    }
}

/// Providers over the simulated world in `dir`. `root` is the project, whose modules the stacks are, `home` the region that
/// the world is in.
///
/// # Errors
/// When the world cannot be read.
pub fn providers(
    root: PathBuf,
    dir: PathBuf,
    home: String,
    model: Arc<dyn StackModel>,
    settings: Settings,
) -> Answer<Providers> {
    let world = World::open(dir)?;
    let now_ms = AtomicI64::new(world.read(|tables| tables.now).saturating_mul(1000));
    let faults = faults::Injector::new(settings.faults);
    let sim = Arc::new(Sim { root, home, world, model, settings, now_ms, faults, flakes: Mutex::default() });
    Ok(Providers {
        nix: Arc::clone(&sim) as Arc<_>,
        ec2: Arc::new(ec2::Ec2Sim::of(&sim, &sim.home)),
        upload: Arc::clone(&sim) as Arc<_>,
        tofu: Arc::clone(&sim) as Arc<_>,
        hosts: Arc::clone(&sim) as Arc<_>,
        clock: sim,
    })
}

#[async_trait]
impl Clock for Sim {
    fn now(&self) -> i64 {
        Sim::now(self)
    }

    async fn sleep(&self, duration: Duration) {
        let millis = i64::try_from(duration.as_millis()).unwrap_or(i64::MAX);
        self.now_ms.fetch_add(millis, Ordering::Relaxed);
        if self.settings.time_scale > 0.0 {
            tokio::time::sleep(duration.mul_f64(self.settings.time_scale)).await;
        } else {
            tokio::task::yield_now().await;
        }
    }

    fn settle(&self) -> Answer<()> {
        self.world.keep_time(Sim::now(self))
    }

    fn refresh(&self) -> Answer<()> {
        self.world.refresh()?;
        self.flakes.lock().unwrap_or_else(PoisonError::into_inner).clear();
        let stored = self.world.read(|tables| tables.now).saturating_mul(1000);
        self.now_ms.fetch_max(stored, Ordering::Relaxed);
        Ok(())
    }
}
