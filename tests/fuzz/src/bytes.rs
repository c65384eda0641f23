//! A fuzzer's bytes as choices. What is not there is zero, so that every input means something and
//! a shorter one means less.

pub struct Bytes<'a>(pub &'a [u8]);

impl<'a> Bytes<'a> {
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// At most `count` bytes, as many as there are.
    pub fn take(&mut self, count: usize) -> &'a [u8] {
        let (taken, rest) = self.0.split_at(count.min(self.0.len()));
        self.0 = rest;
        taken
    }

    fn array<const N: usize>(&mut self) -> [u8; N] {
        let mut array = [0; N];
        let taken = self.take(N);
        array[..taken.len()].copy_from_slice(taken);
        array
    }

    pub fn u8(&mut self) -> u8 {
        self.array::<1>()[0]
    }

    pub fn u16(&mut self) -> u16 {
        u16::from_le_bytes(self.array())
    }

    pub fn u32(&mut self) -> u32 {
        u32::from_le_bytes(self.array())
    }

    /// A number: small, at an edge, or any.
    pub fn number(&mut self) -> u64 {
        let choice = self.u8();
        match choice {
            0..=199 => u64::from(choice),
            200..=219 => u64::from(self.u16()),
            220..=229 => u64::from(self.u32()),
            230..=239 => u64::from_le_bytes(self.array()),
            240 => u64::MAX,
            241 => u64::MAX - 1,
            242 => 1 << 63,
            243 => 1 << 62,
            244 => (1 << 62) + 1,
            245 => (1 << 62) - 1,
            246 => u64::from(u32::MAX),
            247 => u64::from(u32::MAX) + 1,
            248 => 1 << 35,
            249 => 1 << 28,
            250 => (1 << 28) - 1,
            251 => 1024,
            252 => 1040,
            253 => i64::MAX as u64,
            254 => 4096,
            255 => 65_536,
        }
    }

    /// Up to 255 bytes, their number first.
    pub fn piece(&mut self) -> &'a [u8] {
        let count = usize::from(self.u8());
        self.take(count)
    }
}
