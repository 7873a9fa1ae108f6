//! What is to be emulated, and what no way of emulation could do.

use super::error::NetemError;
use crate::limits::HOSTS_MAX;
use crate::profile::LinkProfile;

/// Hosts and the links between them. Hosts without a link between them reach each other unshaped.
#[derive(Debug, Clone, Default)]
pub struct Plan {
    /// Names of the hosts, lower-case letters and digits.
    pub hosts: Vec<String>,
    /// At most one for two hosts.
    pub links: Vec<LinkPlan>,
    /// Of everything that happens by chance.
    pub seed: u64,
}

/// A link between two hosts.
#[derive(Debug, Clone)]
pub struct LinkPlan {
    /// One end.
    pub one: String,
    /// The other.
    pub other: String,
    /// From the one to the other.
    pub forth: LinkProfile,
    /// From the other to the one.
    pub back: LinkProfile,
}

/// One of a link's two directions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// From the first named host to the second.
    Forth,
    /// From the second to the first.
    Back,
}

/// Looks for what no way of emulation could do.
pub(super) fn check(plan: &Plan) -> Result<(), NetemError> {
    let wrong = |reason: String| Err(NetemError::Plan(reason));
    if plan.hosts.len() > HOSTS_MAX {
        return wrong(format!("{} hosts: at most {HOSTS_MAX}", plan.hosts.len()));
    }
    for (number, name) in plan.hosts.iter().enumerate() {
        let is_plain = name
            .bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
        if name.is_empty() || !is_plain || plan.hosts[..number].contains(name) {
            return wrong(format!(
                "host {name:?}: lower-case letters and digits, each name once"
            ));
        }
    }
    for (number, link) in plan.links.iter().enumerate() {
        let named = format!("{}-{}", link.one, link.other);
        for end in [&link.one, &link.other] {
            if !plan.hosts.contains(end) {
                return wrong(format!("link {named}: there is no host {end:?}"));
            }
        }
        let same = |other: &LinkPlan| {
            [(&other.one, &other.other), (&other.other, &other.one)]
                .contains(&(&link.one, &link.other))
        };
        if link.one == link.other || plan.links[..number].iter().any(same) {
            return wrong(format!("link {named}: one link between two hosts"));
        }
        for profile in [&link.forth, &link.back] {
            profile.check().map_err(|source| NetemError::Profile {
                link: named.clone(),
                source,
            })?;
        }
    }
    Ok(())
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(in crate::network) fn plan(hosts: &[&str], links: &[(&str, &str, &str)]) -> Plan {
        Plan {
            hosts: hosts.iter().map(|host| (*host).to_owned()).collect(),
            links: (links.iter())
                .map(|(one, other, profile)| LinkPlan {
                    one: (*one).to_owned(),
                    other: (*other).to_owned(),
                    forth: profile.parse().unwrap(),
                    back: profile.parse().unwrap(),
                })
                .collect(),
            seed: 1,
        }
    }

    #[test]
    fn plans_that_cannot_be_are_named() {
        for (plan, named) in [
            (plan(&["a", "a"], &[]), "host \"a\""),
            (plan(&["A"], &[]), "host \"A\""),
            (plan(&["a"], &[("a", "b", "unshaped")]), "no host \"b\""),
            (
                plan(
                    &["a", "b"],
                    &[("a", "b", "unshaped"), ("b", "a", "unshaped")],
                ),
                "one link",
            ),
            (plan(&["a"], &[("a", "a", "unshaped")]), "one link"),
        ] {
            let error = check(&plan).unwrap_err().to_string();
            assert!(error.contains(named), "{error}");
        }
    }
}
