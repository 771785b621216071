//! Streams of commands, each made of one number: whoever draws numbers draws streams, and a stream
//! that shows a difference gets smaller by leaving numbers out.

use std::time::Duration;

use waystation_core::time::Rolls;

/// One thing that is asked of both stores. What it names (a delivery, a message, a lane) is a
/// number that is folded into what is there.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Command {
    /// Sends drafts.
    Send {
        /// What each is like.
        drafts: Vec<Like>,
        /// The room for births; 0 asks for none.
        birth: u32,
    },
    /// Claims.
    Claim {
        /// As which of the two nodes.
        node: usize,
        /// Which.
        what: What,
        /// The most.
        room: u32,
        /// Whether the leases end with the node.
        tied: bool,
    },
    /// Settles deliveries that are held.
    Settle {
        /// From which on.
        from: usize,
        /// How many.
        count: usize,
        /// How they ended, each its own.
        outcomes: u64,
        /// Whether they are held on to, to be settled again with an old fence.
        keep: bool,
    },
    /// Extends a lease that is held.
    Extend(usize),
    /// Reads a lease that is held.
    Read(usize),
    /// Does something to a message, as a person.
    Operate {
        /// To which.
        message: usize,
        /// What.
        what: u64,
    },
    /// Unparks or cancels what is parked in a lane.
    Release {
        /// Which lane.
        lane: usize,
        /// Whether it is cancelled.
        cancel: bool,
    },
    /// Gives a gate an order.
    Order {
        /// Which gate.
        gate: usize,
        /// Which order.
        order: u64,
    },
    /// Heals.
    Heal {
        /// The most rows.
        limit: u32,
    },
    /// Reports the latest health check.
    Report {
        /// What it found.
        ok: bool,
    },
    /// Lets a node leave, and another join in its place.
    Leave {
        /// Which of the two.
        node: usize,
    },
    /// Lets time pass.
    Pass(Duration),
    /// Lets the asker's clock fall behind for the next commands.
    FallBehind,
}

/// Which messages are claimed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum What {
    /// Due ones, struck ones among them.
    Due,
    /// Due ones, but no struck ones.
    DueUnstruck,
    /// Lost ones.
    Lost,
    /// Those whose grace is over.
    GraceOver,
}

/// What a draft is like.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Like {
    /// Of which lane.
    pub lane: usize,
    /// With which ordering key.
    pub key: Option<u64>,
    /// How urgent.
    pub priority: u8,
    /// How much later it is due.
    pub delay: Option<Duration>,
    /// After how long it expires.
    pub ttl: Option<Duration>,
    /// With which idempotency key and meaning.
    pub once: Option<(u64, u8)>,
}

/// Commands in their order.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Stream(pub Vec<Command>);

impl Stream {
    /// Makes one command of each number.
    #[must_use]
    pub fn from_numbers(numbers: &[u64]) -> Self {
        let make = |number: &u64| Command::draw(&mut Draw(Rolls::new(*number)));
        Self(numbers.iter().map(make).collect())
    }
}

struct Draw(Rolls);

impl Draw {
    fn below(&mut self, limit: u64) -> u64 {
        self.0.bits() % limit
    }

    fn index(&mut self, limit: u64) -> usize {
        usize::try_from(self.below(limit)).unwrap_or(0)
    }

    fn some(&mut self, count: u64) -> u32 {
        u32::try_from(self.below(count)).unwrap_or(0)
    }

    fn one_in(&mut self, count: u64) -> bool {
        self.below(count) == 0
    }

    fn millis(&mut self, limit: u64) -> Duration {
        Duration::from_millis(self.below(limit))
    }
}

impl Command {
    fn draw(draw: &mut Draw) -> Self {
        match draw.below(32) {
            0..=6 => Self::Send {
                drafts: (0..=draw.below(4)).map(|_| Like::draw(draw)).collect(),
                birth: if draw.one_in(2) { draw.some(4) } else { 0 },
            },
            7..=13 => Self::Claim {
                node: draw.index(2),
                what: match draw.below(6) {
                    0 => What::DueUnstruck,
                    1 => What::Lost,
                    2 => What::GraceOver,
                    _ => What::Due,
                },
                room: 1 + draw.some(6),
                tied: draw.one_in(2),
            },
            14..=21 => Self::Settle {
                from: draw.index(8),
                count: 1 + draw.index(5),
                outcomes: draw.0.bits(),
                keep: draw.one_in(5),
            },
            22 => Self::Extend(draw.index(8)),
            23 => Self::Read(draw.index(8)),
            24 => Self::Operate {
                message: draw.index(64),
                what: draw.0.bits(),
            },
            25 => Self::Release {
                lane: draw.index(64),
                cancel: draw.one_in(2),
            },
            26 => Self::Order {
                gate: draw.index(64),
                order: draw.below(8),
            },
            27 => Self::Heal {
                limit: 1 + draw.some(8),
            },
            28 => Self::Report { ok: draw.one_in(2) },
            29 => match draw.below(4) {
                0 => Self::Leave {
                    node: draw.index(2),
                },
                1 => Self::FallBehind,
                _ => Self::Pass(draw.millis(40_000)),
            },
            _ => Self::Pass(draw.millis(4_000)),
        }
    }
}

impl Like {
    fn draw(draw: &mut Draw) -> Self {
        Self {
            lane: draw.index(16),
            key: draw.one_in(3).then(|| draw.below(3)),
            priority: u8::try_from(draw.below(10)).unwrap_or(0),
            delay: draw.one_in(4).then(|| draw.millis(5_000)),
            ttl: draw.one_in(5).then(|| draw.millis(20_000)),
            once: draw
                .one_in(4)
                .then(|| (draw.below(4), u8::from(draw.one_in(8)))),
        }
    }
}
