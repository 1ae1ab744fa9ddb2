//! Reads choices from a fuzz input. At its end every choice is zero.

/// What is left of an input.
pub(crate) struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    /// All of `bytes`.
    pub(crate) const fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    /// Whether nothing is left.
    pub(crate) const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// One byte.
    pub(crate) fn byte(&mut self) -> u8 {
        self.take(1).first().copied().unwrap_or(0)
    }

    /// Two bytes, little endian.
    pub(crate) fn u16(&mut self) -> u16 {
        u16::from_le_bytes([self.byte(), self.byte()])
    }

    /// Up to `len` bytes.
    pub(crate) fn take(&mut self, len: usize) -> &'a [u8] {
        let (taken, rest) = self.0.split_at(len.min(self.0.len()));
        self.0 = rest;
        taken
    }

    /// Flips bits of `message` at places that the input chooses; says which bytes changed.
    pub(crate) fn damage(&mut self, message: &mut [u8]) -> Vec<usize> {
        let original = message.to_vec();
        for _ in 0..self.byte() % 8 {
            let (at, bits) = (usize::from(self.u16()), self.byte());
            let at = at % message.len().max(1);
            if let Some(byte) = message.get_mut(at) {
                *byte ^= bits;
            }
        }
        (0..message.len()).filter(|at| message[*at] != original[*at]).collect()
    }
}
