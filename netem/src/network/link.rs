//! A running link: its profiles, and the faults that befall it.

use std::sync::{Arc, PoisonError};

use super::backend::Backend;
use super::error::NetemError;
use super::plan::Direction;
use super::{Carrier, Ends, Network};
use crate::profile::LinkProfile;
use crate::proxy::Lane;
use crate::shaper::Counters;

/// A running link.
#[derive(Debug, Clone, Copy)]
pub struct Link<'a> {
    pub(super) network: &'a Network,
    pub(super) ends: usize,
}

impl Link<'_> {
    fn ends(&self) -> &Ends {
        &self.network.links[self.ends]
    }

    fn way(&self, direction: Direction) -> (usize, usize) {
        let ends = self.ends();
        match direction {
            Direction::Forth => (ends.one, ends.other),
            Direction::Back => (ends.other, ends.one),
        }
    }

    fn lane(&self, lanes: &[Arc<Lane>], direction: Direction) -> Arc<Lane> {
        let (from, to) = self.way(direction);
        Arc::clone(&lanes[from * self.network.hosts.len() + to])
    }

    /// The profile of a direction, faults aside.
    #[must_use]
    pub fn profile(&self, direction: Direction) -> LinkProfile {
        let profiles = &self.ends().profiles;
        let profiles = profiles.lock().unwrap_or_else(PoisonError::into_inner);
        profiles[direction as usize].clone()
    }

    /// Gives a direction another profile, at once.
    ///
    /// # Errors
    /// A profile that makes no sense or that this way of emulation cannot do; those of tc.
    pub fn set(&self, direction: Direction, profile: LinkProfile) -> Result<(), NetemError> {
        profile.check().map_err(|source| NetemError::Profile {
            link: self.name(),
            source,
        })?;
        if self.network.backend() == Backend::Proxy && profile.needs_packets() {
            return Err(NetemError::Plan(format!(
                "link {}: a relay cannot do {profile}",
                self.name()
            )));
        }
        self.apply(direction, &profile)?;
        let profiles = &self.ends().profiles;
        profiles.lock().unwrap_or_else(PoisonError::into_inner)[direction as usize] = profile;
        Ok(())
    }

    pub(super) fn apply(
        &self,
        direction: Direction,
        profile: &LinkProfile,
    ) -> Result<(), NetemError> {
        let (from, to) = self.way(direction);
        match &self.network.carrier {
            Carrier::Tc(kernel) => kernel.set(from, to, profile)?,
            Carrier::Tun(emulator) => emulator.set(from, to, profile.clone()),
            Carrier::Proxy { lanes, .. } => self.lane(lanes, direction).set(profile.clone()),
        }
        Ok(())
    }

    fn name(&self) -> String {
        let Ends { one, other, .. } = self.ends();
        let hosts = &self.network.hosts;
        format!("{}-{}", hosts[*one].name(), hosts[*other].name())
    }

    /// Lowers the rate of a direction for a while; `None` brings back its own.
    ///
    /// # Errors
    /// Those of tc.
    pub fn slow(&self, direction: Direction, rate_bits: Option<u64>) -> Result<(), NetemError> {
        let mut profile = self.profile(direction);
        profile.rate_bits = rate_bits.or(profile.rate_bits);
        self.apply(direction, &profile)
    }

    /// What has passed a direction so far.
    ///
    /// # Errors
    /// Those of tc.
    pub fn counters(&self, direction: Direction) -> Result<Counters, NetemError> {
        let (from, to) = self.way(direction);
        match &self.network.carrier {
            Carrier::Tc(kernel) => kernel.counters(from, to),
            Carrier::Tun(emulator) => Ok(emulator.counters(from, to)),
            Carrier::Proxy { lanes, .. } => Ok(self.lane(lanes, direction).counters()),
        }
    }

    /// Ends every TCP connection over this link, as a firewall would: both ends are reset. New ones can be made at once.
    ///
    /// # Errors
    /// Those of tc.
    pub fn cut(&self) -> Result<(), NetemError> {
        let Ends { one, other, .. } = *self.ends();
        match &self.network.carrier {
            Carrier::Tc(kernel) => kernel.cut(one, other)?,
            Carrier::Tun(emulator) => emulator.cut(one, other),
            Carrier::Proxy { relays, .. } => {
                let relays = relays.lock().unwrap_or_else(PoisonError::into_inner);
                let between =
                    |from: usize, to: usize| [(one, other), (other, one)].contains(&(from, to));
                let concerned = relays.iter().filter(|(from, to, _)| between(*from, *to));
                concerned.for_each(|(.., relay)| relay.cut());
            }
        }
        Ok(())
    }

    /// Holds what goes in a direction, or lets it go on. With tc it is lost meanwhile.
    ///
    /// # Errors
    /// Those of tc.
    pub fn stall(&self, direction: Direction, is_stalled: bool) -> Result<(), NetemError> {
        let (from, to) = self.way(direction);
        match &self.network.carrier {
            Carrier::Tc(_) => self.down(direction, is_stalled)?,
            Carrier::Tun(emulator) => emulator.stall(from, to, is_stalled),
            Carrier::Proxy { lanes, .. } => self.lane(lanes, direction).hold(is_stalled),
        }
        Ok(())
    }

    /// Drops everything that goes in a direction, or nothing any more. With the proxy it is held meanwhile.
    ///
    /// # Errors
    /// Those of tc.
    pub fn down(&self, direction: Direction, is_down: bool) -> Result<(), NetemError> {
        let (from, to) = self.way(direction);
        match &self.network.carrier {
            Carrier::Tc(kernel) => {
                let mut profile = self.profile(direction);
                if is_down {
                    profile.loss = 1.0;
                }
                kernel.set(from, to, &profile)?;
            }
            Carrier::Tun(emulator) => emulator.down(from, to, is_down),
            Carrier::Proxy { lanes, .. } => self.lane(lanes, direction).hold(is_down),
        }
        Ok(())
    }
}
