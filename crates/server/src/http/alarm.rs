//! The timer of one connection, armed about once in a time-out instead of twice a request.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use hyper::rt::{Sleep, Timer};

/// Gives hyper its deadlines, of which a connection waits for one at a time.
///
/// A request that comes in time takes its deadline back, and the next one is later by nearly nothing. So
/// the runtime's timer, behind a lock that all connections share, is left as it stands; when it rings for
/// a deadline that was taken back, it is set to the one that is waited for.
#[derive(Clone, Default)]
pub(crate) struct Alarm(Arc<Mutex<Option<Pin<Box<tokio::time::Sleep>>>>>);

impl fmt::Debug for Alarm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Alarm")
    }
}

impl Timer for Alarm {
    fn sleep(&self, wait: Duration) -> Pin<Box<dyn Sleep>> {
        self.sleep_until(self.now() + wait)
    }

    fn sleep_until(&self, deadline: Instant) -> Pin<Box<dyn Sleep>> {
        Box::pin(Deadline {
            at: deadline.into(),
            alarm: self.clone(),
        })
    }

    fn now(&self) -> Instant {
        tokio::time::Instant::now().into()
    }
}

/// Waits for its time.
struct Deadline {
    at: tokio::time::Instant,
    alarm: Alarm,
}

impl Future for Deadline {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let mut armed = self.alarm.0.lock().unwrap_or_else(PoisonError::into_inner);
        let sleep = armed.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(self.at)));
        if sleep.deadline() > self.at {
            sleep.as_mut().reset(self.at);
        }
        loop {
            ready!(sleep.as_mut().poll(cx));
            if sleep.deadline() >= self.at {
                return Poll::Ready(());
            }
            sleep.as_mut().reset(self.at);
        }
    }
}

impl Sleep for Deadline {}

#[cfg(test)]
mod tests {
    use super::*;

    const WAIT: Duration = Duration::from_secs(10);

    #[tokio::test(start_paused = true)]
    async fn a_deadline_that_was_taken_back_does_not_end_the_next_one_early() {
        let alarm = Alarm::default();
        let began = alarm.now();
        let mut first = alarm.sleep(WAIT);
        assert!(futures_util::poll!(&mut first).is_pending());
        tokio::time::advance(WAIT / 2).await;
        drop(first);
        alarm.sleep(WAIT).await;
        assert_eq!(alarm.now() - began, WAIT + WAIT / 2);
        // And the one after an alarm that rang while nobody waited.
        tokio::time::advance(WAIT * 3).await;
        let began = alarm.now();
        alarm.sleep(WAIT).await;
        assert_eq!(alarm.now() - began, WAIT);
    }

    #[tokio::test(start_paused = true)]
    async fn a_deadline_earlier_than_the_one_taken_back_is_kept() {
        let alarm = Alarm::default();
        let began = alarm.now();
        let mut first = alarm.sleep(WAIT);
        assert!(futures_util::poll!(&mut first).is_pending());
        drop(first);
        alarm.sleep(WAIT / 10).await;
        assert_eq!(alarm.now() - began, WAIT / 10);
    }
}
