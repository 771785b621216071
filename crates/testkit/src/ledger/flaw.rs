//! Everything in which a store, its destination and its clients can disagree.

/// A disagreement, with the message it is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Flaw {
    /// It was accepted and is not kept.
    Lost(String),
    /// It is kept and nobody sent it.
    Invented(String),
    /// It is kept with another payload than was sent.
    ChangedPayload(String),
    /// One idempotency key was answered with two ids.
    TwoIds(String),
    /// One idempotency key has two messages.
    KeptTwice(String),
    /// It was refused and is kept.
    KeptThoughRefused(String),
    /// Of what was sent in one request some is kept and some is not.
    HalfABatch(u64),
    /// The store's own count is not that of what it keeps.
    Miscounted {
        /// What it says that it accepted.
        accepted: usize,
        /// What all states add up to.
        summed: usize,
    },
    /// The store's count is not the clients'.
    CountedOthers {
        /// What it says that it accepted.
        accepted: usize,
        /// What clients know to be accepted.
        known: usize,
    },
    /// Its attempts are not numbered from 1 without a gap.
    AttemptGap(String),
    /// A later attempt has no higher fence.
    FenceDoesNotRise(String),
    /// It completed and went on.
    RanAfterItsEnd(String),
    /// It is completed without an attempt that is, or the other way round.
    StateWithoutAttempt(String),
    /// It was given out again and the attempt before has nothing that says why.
    UnexplainedDuplicate(String),
    /// An attempt was lost and nobody was killed.
    LostWithoutCrash(String),
    /// An attempt that a crash cut off was counted.
    CountedALoss(String),
    /// The destination was called twice under one attempt.
    CalledTwice(String),
    /// The destination was called under an attempt that is not recorded.
    CallWithoutAttempt(String),
    /// The destination was called for a message that nobody sent.
    CallOfNobody(String),
    /// The destination was given another payload than was sent.
    ChangedDelivery(String),
    /// It is completed and the destination did not do it.
    CompletedUndone(String),
    /// The destination did it, and its attempt says something else.
    DoneUnrecorded(String),
    /// Everything is at rest and it is not at its end.
    Unfinished(String),
    /// It began before one with its ordering key, which was accepted before it was sent, had ended.
    OutOfOrder(String),
}
