//! Both directions of a connection in shared memory, as one of its ends has them.
//!
//! Not here: the socket. Whoever owns it rings the bell when [`Moved::bell`] says so: it sends one
//! byte.

use std::sync::Arc;

use crate::region::Region;
use crate::ring::{Broken, Consumer, Memory, Producer};
use crate::sync::Word;

impl Memory for Arc<Region> {
    fn words(&self) -> &[Word] {
        Region::words(self)
    }
}

/// What a read or a write did.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Moved {
    /// So many bytes.
    pub bytes: usize,
    /// The other end is to be woken.
    pub bell: bool,
}

const NOTHING: Moved = Moved { bytes: 0, bell: false };

/// One end of a connection.
#[derive(Debug)]
pub struct Channel {
    out: Producer<Arc<Region>>,
    inward: Consumer<Arc<Region>>,
}

impl Channel {
    /// The end of who made the memory.
    #[must_use]
    pub fn dialler(region: Region) -> Channel {
        Channel::new(region, 0)
    }

    /// The end of who was handed it.
    #[must_use]
    pub fn listener(region: Region) -> Channel {
        Channel::new(region, 1)
    }

    fn new(region: Region, direction: usize) -> Channel {
        let region = Arc::new(region);
        let (first, words) = Region::ring(direction);
        let out = Producer::new(Arc::clone(&region), first, words);
        let (first, words) = Region::ring(1 - direction);
        Channel { out, inward: Consumer::new(region, first, words) }
    }

    /// Writes what there is room for.
    ///
    /// # Errors
    /// [`Broken`]: close the connection.
    pub fn write(&mut self, bytes: &[u8]) -> Result<Moved, Broken> {
        match self.out.write(bytes)? {
            0 => Ok(NOTHING),
            bytes => Ok(Moved { bytes, bell: self.out.rouse() }),
        }
    }

    /// Reads what has come and fits.
    ///
    /// # Errors
    /// [`Broken`]: close the connection.
    pub fn read(&mut self, into: &mut [u8]) -> Result<Moved, Broken> {
        match self.inward.read(into)? {
            0 => Ok(NOTHING),
            bytes => Ok(Moved { bytes, bell: self.inward.rouse() }),
        }
    }

    /// Whether nothing has come, at a glance.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.inward.is_empty()
    }

    /// Asks for a bell once something has come. False when something has: read it.
    ///
    /// # Errors
    /// [`Broken`]: close the connection.
    pub fn doze(&mut self) -> Result<bool, Broken> {
        self.inward.doze()
    }

    /// Asks for no bell any more.
    pub fn awake(&self) {
        self.inward.awake();
    }

    /// Asks for a bell once there is room to write. False when there is: write.
    ///
    /// # Errors
    /// [`Broken`]: close the connection.
    pub fn await_room(&mut self) -> Result<bool, Broken> {
        self.out.await_room()
    }
}

#[cfg(all(test, not(loom), not(miri)))]
mod tests {
    use super::*;

    #[test]
    fn two_ends_talk() {
        let (region, file) = Region::create().expect("memory");
        let mut one = Channel::dialler(region);
        let mut other = Channel::listener(Region::adopt(file).expect("sealed"));
        assert_eq!(other.doze(), Ok(true));
        assert_eq!(one.write(b"question"), Ok(Moved { bytes: 8, bell: true }));
        let mut bytes = [0; 16];
        assert!(!other.is_empty() && one.is_empty());
        assert_eq!(other.read(&mut bytes).expect("sound").bytes, 8);
        assert_eq!(&bytes[..8], b"question");
        assert_eq!(other.write(b"answer"), Ok(Moved { bytes: 6, bell: false }));
        assert_eq!(one.doze(), Ok(false));
        assert_eq!(one.read(&mut bytes).expect("sound").bytes, 6);
        assert_eq!(&bytes[..6], b"answer");
        let full = vec![0; crate::RING_BYTES];
        assert_eq!(one.write(&full).expect("sound").bytes, crate::RING_BYTES - 8);
        assert_eq!(one.await_room(), Ok(true));
        assert_eq!(other.read(&mut bytes), Ok(Moved { bytes: 16, bell: true }));
    }
}
