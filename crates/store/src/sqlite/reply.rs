//! How answers go back: to one caller each, or to whoever asked several things together.

use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::oneshot;

use crate::StoreError;

/// What one call is answered with.
pub(super) type Told<R> = Result<R, StoreError>;

/// Where the answer of one call goes. A caller that has gone wants none; what was written stays.
pub(super) enum Reply<R> {
    /// To its caller.
    Alone(oneshot::Sender<Told<R>>),
    /// To its place among those that were asked together.
    Together(usize, Arc<Gather<R>>),
}

impl<R> Reply<R> {
    /// Answers.
    pub(super) fn tell(self, answer: Told<R>) {
        match self {
            Self::Alone(caller) => drop(caller.send(answer)),
            Self::Together(place, gather) => gather.tell(place, answer),
        }
    }
}

/// Gathers the answers of calls that were asked together. Their caller is woken once, by the last of
/// them; if one is never answered, the caller hears that by the end of all.
pub(super) struct Gather<R>(Mutex<Gathered<R>>);

struct Gathered<R> {
    answers: Vec<Option<Told<R>>>,
    missing: usize,
    caller: Option<oneshot::Sender<Vec<Told<R>>>>,
}

impl<R> Gather<R> {
    /// Waits for so many answers.
    pub(super) fn new(count: usize) -> (Arc<Self>, oneshot::Receiver<Vec<Told<R>>>) {
        let (caller, answers) = oneshot::channel();
        let gathered = Gathered {
            answers: std::iter::repeat_with(|| None).take(count).collect(),
            missing: count,
            caller: Some(caller),
        };
        (Arc::new(Self(Mutex::new(gathered))), answers)
    }

    fn tell(&self, place: usize, answer: Told<R>) {
        let mut gathered = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(empty) = gathered
            .answers
            .get_mut(place)
            .filter(|place| place.is_none())
        else {
            return;
        };
        *empty = Some(answer);
        gathered.missing -= 1;
        if gathered.missing == 0
            && let Some(caller) = gathered.caller.take()
        {
            let answers = std::mem::take(&mut gathered.answers);
            drop(caller.send(answers.into_iter().flatten().collect()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_given_together_stand_in_the_order_of_the_questions() {
        let (gather, mut answers) = Gather::new(3);
        for place in [1, 2, 0] {
            assert!(answers.try_recv().is_err(), "not before the last");
            Reply::Together(place, Arc::clone(&gather)).tell(Ok(place));
        }
        let told = answers.try_recv().expect("all are there");
        let told: Vec<usize> = told.into_iter().map(|one| one.expect("fine")).collect();
        assert_eq!(told, [0, 1, 2]);
    }

    #[test]
    fn a_question_that_is_dropped_unanswered_ends_the_waiting() {
        let (gather, mut answers) = Gather::new(2);
        let other = Reply::Together(1, Arc::clone(&gather));
        Reply::Together(0, gather).tell(Ok(0));
        drop(other);
        assert_eq!(
            answers.try_recv().err(),
            Some(oneshot::error::TryRecvError::Closed)
        );
    }
}
