//! Flaws that can be planted on purpose, to show that the simulator and the suites find them.
//!
//! A run-time switch, not a build: what is shown to find bugs is the very code that ships. Only a
//! constructor sets it (`GateSet::with_flaws`, `Memory::with_flaws`, the simulator's `Scenario`), never
//! configuration, environment or request; the engine and the server do not know the word, which
//! `cargo xtask tidy` checks. Most flaws are planted between a node and its store by whoever drives
//! the two, so that few lines here have an `if` for them: [`Flaw::TwoProbes`] and those after it.

/// Declares the flaws once: their names, what each does, and the promise it breaks.
macro_rules! flaws {
    ($($(#[doc = $what:literal])+ $name:ident breaks $promise:literal;)+) => {
        /// A bug that somebody might write. Its documentation says what then happens.
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
        pub enum Flaw {
            $($(#[doc = $what])+ $name,)+
        }

        impl Flaw {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$name),+];

            /// Says what it does, in a sentence.
            #[must_use]
            pub const fn what(self) -> &'static str {
                match self {
                    $(Self::$name => concat!($($what),+),)+
                }
            }

            /// Gives the number of the promise that it breaks.
            #[must_use]
            pub const fn breaks(self) -> u8 {
                match self {
                    $(Self::$name => $promise,)+
                }
            }
        }
    };
}

flaws! {
    /// An accepting answer is given before the commit, and the commit fails.
    AckBeforeCommit breaks 1;
    /// A store forgets idempotency keys.
    IdempotencyForgotten breaks 2;
    /// A refund is given back a second time.
    RefundTwice breaks 3;
    /// Leases of dead workers are never found.
    LeaseNeverEnds breaks 3;
    /// A lost delivery is recorded as done.
    LostIsDone breaks 4;
    /// The success of a probe is recorded as a retry.
    ProbeIsNotWork breaks 4;
    /// A worker whose lease is over renews the lease of the next one.
    StaleRenewal breaks 5;
    /// A lease ends earlier than its worker was told.
    LeaseEndsEarly breaks 5;
    /// A completion is answered and not written.
    EndNotWritten breaks 6;
    /// A dead message goes round again although nobody asked for it.
    DeadReplaysItself breaks 6;
    /// What a death is to set off is not written with it.
    OnDeadLost breaks 6;
    /// What a death is to set off is written twice.
    OnDeadTwice breaks 6;
    /// A claim whose answer is uncertain is dispatched as if it were on disk.
    IndeterminateDispatched breaks 7;
    /// A claim gives again what an earlier claim gave.
    DeliveryRepeated breaks 7;
    /// An interrupted attempt gives its number to the next one.
    AttemptNumberReused breaks 7;
    /// The error of an attempt that is retried is not kept.
    ErrorForgotten breaks 8;
    /// A step of one node's clock is believed at once, and everything is due.
    ClockStepBelieved breaks 9;
    /// A message that has expired is delivered.
    ExpiredDelivered breaks 9;
    /// A follower does not wait for its head.
    OrderForgotten breaks 10;
    /// Followers pass a dead head although their queue says `block`.
    DeadHeadPasses breaks 10;
    /// A failure counts although an outage explains it.
    AttemptBurned breaks 11;
    /// A message is refunded in any number of outages.
    RefundWithoutEnd breaks 11;
    /// A decision that kills or counts does not name the epochs it was made under.
    EpochsForgotten breaks 11;
    /// A destination's failures are told to the operation, and the other way round.
    EvidenceOnWrongGate breaks 11;
    /// A panic speaks against the circuits.
    PanicIsEvidence breaks 11;
    /// A message is dead at its last failure, before an outage can explain it.
    GraceSkipped breaks 11;
    /// What a destination asked for by `Retry-After` is not kept.
    SilenceForgotten breaks 11;
    /// An answer that asks for silence counts as a failed attempt.
    ThrottlingCounts breaks 11;
    /// A lost lease of a handler outside of our processes counts.
    LostLeaseCounts breaks 11;
    /// A message is tried for ever while nothing of its operation succeeds.
    NeverGivenUp breaks 11;
    /// The late word of an older epoch moves a circuit.
    LateWordMoves breaks 11;
    /// A strike is forgotten as soon as it is got.
    StrikeForgotten breaks 12;
    /// A worker gets a struck message while another one runs there.
    StruckBesideStruck breaks 12;
    /// Deaths beyond the budget of their lane are deaths like any other.
    MassFailureFloods breaks 11;
    /// A replay leaves the dead message and writes a copy.
    ReplayCopies breaks 17;
    /// A drained process drops what it runs instead of handing it back.
    DrainDrops breaks 18;
    /// What a drained process hands back counts as a failed attempt.
    DrainCounts breaks 18;
    /// A half-open circuit lets a second probe out.
    TwoProbes breaks 11;
    /// An open circuit lets everything through.
    OpenLetsThrough breaks 11;
    /// Each operation of a destination that is down sends a probe of its own.
    ProbePerOperation breaks 11;
    /// A failure during a ramp does not halve it.
    RampNeverHalves breaks 11;
    /// A message that is retried gives up its place in the order of its key.
    OrderBrokenOnRetry breaks 10;
    /// A settlement is recorded whatever fence it shows.
    NoFenceCheck breaks 5;
    /// A settlement that is repeated is recorded again.
    SettledTwice breaks 6;
    /// A refunded message keeps the due time that its failure got.
    PullForwardLost breaks 11;
    /// No slot goes to the longest-due message, only to the most urgent.
    PriorityStarves breaks 16;
}

/// A set of flaws; the empty one is what everything runs with.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct Flaws(u64);

impl Flaws {
    /// No flaw.
    pub const NONE: Self = Self(0);

    /// Plants one flaw.
    #[must_use]
    pub const fn only(flaw: Flaw) -> Self {
        Self(1 << flaw as u32)
    }

    /// Tells whether this flaw is planted.
    #[must_use]
    pub const fn has(self, flaw: Flaw) -> bool {
        self.0 & Self::only(flaw).0 != 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_flaw_is_itself_and_no_other() {
        for &flaw in Flaw::ALL {
            let found: Vec<Flaw> = Flaw::ALL
                .iter()
                .copied()
                .filter(|&other| Flaws::only(flaw).has(other))
                .collect();
            assert_eq!(found, [flaw]);
            assert!(!Flaws::NONE.has(flaw));
        }
    }
}
