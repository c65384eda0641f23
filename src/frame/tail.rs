//! The checksum over a frame's last 16 bytes under it: the header's fields and the seed.
//!
//! It owns one table and a walk of 16 steps through it. Invariant: the same number as [`crc32fast`] gives
//! (a test compares them).
//!
//! Why by hand: crc32fast is made for long inputs. For 16 bytes it costs as much as for a hundred, and there
//! are 16 such bytes in every frame: of small records that was half the work of a scan. Here the steps do not
//! wait for each other, and all but four not even for the payload's checksum.

const POLYNOMIAL: u32 = 0xEDB8_8320;

/// What a byte contributes to the checksum that ends `n` bytes behind it.
static BEHIND: [[u32; 256]; 16] = tables();

#[expect(clippy::indexing_slicing, reason = "evaluated when it is compiled, where a wrong index is an error")]
const fn tables() -> [[u32; 256]; 16] {
    let mut tables = [[0u32; 256]; 16];
    let mut byte = 0u32;
    while byte < 256 {
        let mut value = byte;
        let mut bit = 0;
        while bit < 8 {
            value = if value & 1 == 1 { (value >> 1) ^ POLYNOMIAL } else { value >> 1 };
            bit += 1;
        }
        tables[0][byte as usize] = value;
        byte += 1;
    }
    let mut distance = 1;
    while distance < 16 {
        let mut byte = 0;
        while byte < 256 {
            let nearer = tables[distance - 1][byte];
            tables[distance][byte] = (nearer >> 8) ^ tables[0][(nearer & 0xFF) as usize];
            byte += 1;
        }
        distance += 1;
    }
    tables
}

/// Continues `checksum` over `words`, little-endian.
#[inline]
pub(super) fn continued(checksum: u32, words: [u32; 4]) -> u32 {
    let [first, second, third, fourth] = words;
    let [t0, t1, t2, t3, t4, t5, t6, t7, t8, t9, t10, t11, t12, t13, t14, t15] = &BEHIND;
    let known =
        over(second, [t11, t10, t9, t8]) ^ over(third, [t7, t6, t5, t4]) ^ over(fourth, [t3, t2, t1, t0]);
    !(known ^ over(first ^ !checksum, [t15, t14, t13, t12]))
}

#[inline]
fn over(word: u32, tables: [&[u32; 256]; 4]) -> u32 {
    let [a, b, c, d] = word.to_le_bytes();
    let [at, bt, ct, dt] = tables;
    entry(at, a) ^ entry(bt, b) ^ entry(ct, c) ^ entry(dt, d)
}

#[inline]
fn entry(table: &[u32; 256], byte: u8) -> u32 {
    // (A byte is always within 256 entries.)
    table.get(usize::from(byte)).copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::property;
    use proptest::prelude::*;

    proptest! {
        #![proptest_config(property::config(256, None))]
        #[test]
        fn it_is_the_checksum_that_crc32fast_gives(checksum in any::<u32>(), words in any::<[u32; 4]>()) {
            let mut hasher = crc32fast::Hasher::new_with_initial(checksum);
            for word in words {
                hasher.update(&word.to_le_bytes());
            }
            prop_assert_eq!(continued(checksum, words), hasher.finalize());
        }
    }
}
