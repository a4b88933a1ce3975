//! What becomes of a frame, or of a vouch for one, when it arrives. Not here: why (`pool`).

/// What an arriving frame is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Arrival {
    /// It was not here before.
    Fresh,
    /// It waits for its order already.
    Known,
    /// It was executed not long ago: the client wants its reply again.
    Executed,
    /// It came before, and its principal repeats itself too often.
    TooOften,
    /// The principal is at its quota.
    OverQuota,
}

/// What a vouch came to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Vouched {
    /// It counts, and the frame is here.
    Held,
    /// It counts; the frame has not come yet.
    Bodyless,
    /// The frame was executed not long ago.
    Late,
    /// The peer vouches for too many frames that have not come.
    TooMany,
}
