//! What may happen in a run, and how that is written on a command line.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use waystation_core::flaw::Flaws;

const DAY: Duration = Duration::from_secs(24 * 3600);
/// Messages a simulated day in the scenario that speed is measured with.
const MESSAGES_A_DAY: u32 = 500;

/// Which kinds of faults may happen in a run; a seed switches each of them on or off again.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Faults {
    /// Nodes are killed and started again.
    pub kills: bool,
    /// Nodes stand still for longer than a lease, and go on as if nothing had been.
    pub freezes: bool,
    /// Nodes are drained and started again.
    pub drains: bool,
    /// The store is away for a while.
    pub store_outages: bool,
    /// The store's answers are lost, whether it did what was asked or not.
    pub lost_answers: bool,
    /// Destinations are down, slow, recover slowly, or ask for silence.
    pub destination_outages: bool,
    /// Clocks drift apart, and are set forwards and back.
    pub clocks: bool,
    /// Workers outside of our processes lease by the same interface, and some disappear.
    pub pull_workers: bool,
    /// People pause, hold open, reset, retry, cancel, park and edit.
    pub people: bool,
    /// Nodes start with other policies, kinds and slots than they had.
    pub reconfigurations: bool,
}

impl Faults {
    /// Everything may happen.
    pub const ALL: Self = Self::all_are(true);
    /// Nothing goes wrong but what is in the messages.
    pub const NONE: Self = Self::all_are(false);

    const fn all_are(on: bool) -> Self {
        Self {
            kills: on,
            freezes: on,
            drains: on,
            store_outages: on,
            lost_answers: on,
            destination_outages: on,
            clocks: on,
            pull_workers: on,
            people: on,
            reconfigurations: on,
        }
    }

    /// Each class by its name on the command line.
    pub const fn classes(&mut self) -> [(&'static str, &mut bool); 10] {
        [
            ("kills", &mut self.kills),
            ("freezes", &mut self.freezes),
            ("drains", &mut self.drains),
            ("store-outages", &mut self.store_outages),
            ("lost-answers", &mut self.lost_answers),
            ("destination-outages", &mut self.destination_outages),
            ("clocks", &mut self.clocks),
            ("pull-workers", &mut self.pull_workers),
            ("people", &mut self.people),
            ("reconfigurations", &mut self.reconfigurations),
        ]
    }
}

/// What may happen in a run.
///
/// Its text is the arguments that give it: nothing for the default, and for others some of
/// `--days N`, `--nodes N` or `--nodes N..N`, `--messages N..N`, `--trouble SECONDS`,
/// `--patience SECONDS`, `--at-once PERCENT`, `--without CLASS,CLASS`, `--skip N,N`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Scenario {
    /// The fewest nodes, 1 to `nodes_max`.
    pub nodes_min: u32,
    /// The most nodes, 1 to 5; a seed draws how many there are.
    pub nodes_max: u32,
    /// The fewest and the most messages.
    pub messages: (u32, u32),
    /// Messages that are left out, by their number.
    pub skip: BTreeSet<u32>,
    /// How many of 100 messages are handed over at once, in the beginning; the others come one by
    /// one.
    pub at_once: u32,
    /// For how long things go wrong, and messages are handed over.
    pub trouble_for: Duration,
    /// How long everything may take to come to its end after that.
    pub patience: Duration,
    /// What may go wrong.
    pub faults: Faults,
    /// What is wrong with the product itself: nothing, unless the checkers are to show that they see
    /// it. No text gives it.
    pub flaws: Flaws,
}

impl Default for Scenario {
    fn default() -> Self {
        Self {
            nodes_min: 1,
            nodes_max: 5,
            messages: (40, 60),
            skip: BTreeSet::new(),
            at_once: 50,
            trouble_for: Duration::from_secs(120),
            patience: Duration::from_secs(3600),
            faults: Faults::ALL,
            flaws: Flaws::NONE,
        }
    }
}

impl Scenario {
    /// The fixed scenario that speed is measured with: three nodes and 500 messages a simulated day,
    /// everything going wrong as often a day as in a run of the default scenario.
    #[must_use]
    pub fn days(days: u32) -> Self {
        let messages = MESSAGES_A_DAY * days;
        Self {
            nodes_min: 3,
            nodes_max: 3,
            messages: (messages, messages),
            at_once: 2,
            trouble_for: DAY * days,
            ..Self::default()
        }
    }

    /// How many days of trouble there are, at least one.
    pub(crate) fn rounds(&self) -> u64 {
        (self.trouble_for.as_secs() / DAY.as_secs()).max(1)
    }

    fn set(&mut self, flag: &str, value: &str) -> Result<(), ScenarioError> {
        let wrong = || ScenarioError(format!("{flag} cannot be {value:?}"));
        let number = |text: &str| text.parse::<u32>().map_err(|_| wrong());
        let span = |text: &str| match text.split_once("..") {
            Some((least, most)) => Ok((number(least)?, number(most)?)),
            None => number(text).map(|number| (number, number)),
        };
        match flag {
            "--days" => *self = Self::days(number(value)?),
            "--nodes" => (self.nodes_min, self.nodes_max) = span(value)?,
            "--messages" => self.messages = span(value)?,
            "--at-once" => self.at_once = number(value)?,
            "--trouble" => self.trouble_for = Duration::from_secs(number(value)?.into()),
            "--patience" => self.patience = Duration::from_secs(number(value)?.into()),
            "--skip" => {
                let numbers = value.split(',').map(number);
                self.skip = numbers.collect::<Result<_, _>>()?;
            }
            "--without" => {
                for class in value.split(',') {
                    let mut classes = self.faults.classes();
                    let found = classes.iter_mut().find(|(name, _)| *name == class);
                    *found.ok_or_else(wrong)?.1 = false;
                }
            }
            _ => return Err(ScenarioError(format!("there is no argument {flag}"))),
        }
        Ok(())
    }
}

/// An argument that says nothing about a scenario.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ScenarioError(String);

impl fmt::Display for ScenarioError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for ScenarioError {}

impl FromStr for Scenario {
    type Err = ScenarioError;

    fn from_str(text: &str) -> Result<Self, ScenarioError> {
        let mut scenario = Self::default();
        let mut words = text.split_whitespace();
        while let Some(flag) = words.next() {
            let value = words
                .next()
                .ok_or_else(|| ScenarioError(format!("{flag} wants a value")))?;
            scenario.set(flag, value)?;
        }
        Ok(scenario)
    }
}

impl fmt::Display for Scenario {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let base = Self::default();
        let mut words: Vec<String> = Vec::new();
        let span = |(least, most): (u32, u32)| {
            if least == most {
                least.to_string()
            } else {
                format!("{least}..{most}")
            }
        };
        let nodes = (self.nodes_min, self.nodes_max);
        if nodes != (base.nodes_min, base.nodes_max) {
            words.push(format!("--nodes {}", span(nodes)));
        }
        if self.messages != base.messages {
            words.push(format!("--messages {}", span(self.messages)));
        }
        if self.at_once != base.at_once {
            words.push(format!("--at-once {}", self.at_once));
        }
        if self.trouble_for != base.trouble_for {
            words.push(format!("--trouble {}", self.trouble_for.as_secs()));
        }
        if self.patience != base.patience {
            words.push(format!("--patience {}", self.patience.as_secs()));
        }
        let mut faults = self.faults;
        let off = faults.classes().into_iter().filter(|(_, on)| !**on);
        let off: Vec<&str> = off.map(|(name, _)| name).collect();
        if !off.is_empty() {
            words.push(format!("--without {}", off.join(",")));
        }
        if !self.skip.is_empty() {
            let skip: Vec<String> = self.skip.iter().map(u32::to_string).collect();
            words.push(format!("--skip {}", skip.join(",")));
        }
        f.write_str(&words.join(" "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scenario_is_what_its_text_says() {
        let check = |text: &str| {
            let scenario: Scenario = text.parse().expect("a scenario");
            assert_eq!(scenario.to_string(), text);
            scenario
        };
        assert_eq!(check(""), Scenario::default());
        let small =
            check("--nodes 2 --messages 3..7 --trouble 60 --without kills,clocks --skip 1,5");
        assert_eq!((small.nodes_min, small.nodes_max), (2, 2));
        assert!(!small.faults.kills && !small.faults.clocks && small.faults.people);
        let days: Scenario = "--days 2".parse().expect("a scenario");
        assert_eq!(days, Scenario::days(2));
        assert_eq!(check(&days.to_string()), days);
    }

    #[test]
    fn an_argument_that_says_nothing_is_refused() {
        for text in ["--without fire", "--nodes", "--speed 3", "--messages x"] {
            assert!(text.parse::<Scenario>().is_err(), "{text}");
        }
    }
}
