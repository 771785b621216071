//! Every legal change of state, once.

use crate::message::State;

/// What can happen to a message.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Step {
    /// A worker takes it; also the sweep, when a lease is lost or a grace is over.
    Claim,
    /// Its handler did it.
    Complete,
    /// It goes back to wait: retry, snooze, hand-back, grace.
    Release,
    /// It is held.
    Park,
    /// Its hold is over.
    Unpark,
    /// It is given up.
    Bury,
    /// It is stopped, or too late.
    Cancel,
    /// It goes round again as its next generation.
    Replay,
}

impl Step {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::Claim,
        Self::Complete,
        Self::Release,
        Self::Park,
        Self::Unpark,
        Self::Bury,
        Self::Cancel,
        Self::Replay,
    ];
}

/// A step that the state does not allow.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("a {} message cannot {step:?}", state.as_str())]
pub struct IllegalStep {
    /// Where the message stands.
    pub state: State,
    /// What was asked.
    pub step: Step,
}

impl State {
    /// Gives the state after a step.
    ///
    /// # Errors
    /// The step is not legal from here; nothing may be written then.
    pub const fn after(self, step: Step) -> Result<Self, IllegalStep> {
        match (self, step) {
            (Self::Waiting | Self::Leased, Step::Claim) => Ok(Self::Leased),
            (Self::Leased, Step::Complete) => Ok(Self::Completed),
            (Self::Leased, Step::Release) | (Self::Parked, Step::Unpark) => Ok(Self::Waiting),
            (Self::Waiting | Self::Leased, Step::Park) => Ok(Self::Parked),
            (Self::Leased, Step::Bury) => Ok(Self::Dead),
            // A person may turn dead into cancelled: it frees the key behind it.
            (Self::Waiting | Self::Leased | Self::Parked | Self::Dead, Step::Cancel) => {
                Ok(Self::Cancelled)
            }
            (Self::Dead | Self::Completed, Step::Replay) => Ok(Self::Waiting),
            (
                state @ (Self::Waiting
                | Self::Leased
                | Self::Parked
                | Self::Completed
                | Self::Dead
                | Self::Cancelled),
                step,
            ) => Err(IllegalStep { state, step }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_of_legal_steps_is_this_one() {
        let legal: Vec<String> = State::ALL
            .into_iter()
            .flat_map(|state| Step::ALL.into_iter().map(move |step| (state, step)))
            .filter_map(|(state, step)| {
                let after = state.after(step).ok()?;
                Some(format!("{} {step:?} {}", state.as_str(), after.as_str()))
            })
            .collect();
        assert_eq!(
            legal,
            [
                "waiting Claim leased",
                "waiting Park parked",
                "waiting Cancel cancelled",
                "leased Claim leased",
                "leased Complete completed",
                "leased Release waiting",
                "leased Park parked",
                "leased Bury dead",
                "leased Cancel cancelled",
                "parked Unpark waiting",
                "parked Cancel cancelled",
                "completed Replay waiting",
                "dead Cancel cancelled",
                "dead Replay waiting",
            ]
        );
    }

    #[test]
    fn an_end_is_left_only_by_a_person() {
        for state in State::ALL.into_iter().filter(|state| state.is_end()) {
            for step in Step::ALL {
                let by_person = matches!(step, Step::Replay | Step::Cancel);
                assert!(
                    state.after(step).is_err() || by_person,
                    "{state:?} {step:?}"
                );
            }
        }
    }
}
