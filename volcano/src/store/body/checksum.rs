//! Checksums of blocks: CRC-32C over each 64 KiB of a resting body.

use std::collections::BTreeMap;
use std::ops::Range;

use super::super::db::BlockSum;

/// Bytes of a block.
pub(in super::super) const BLOCK: u64 = 64 << 10;

/// The blocks that a range of bytes touches.
pub(in super::super) fn blocks(offset: u64, end: u64) -> Range<u64> {
    offset / BLOCK..end.div_ceil(BLOCK)
}

/// The checksum of a block's first bytes.
pub(in super::super) fn sum(bytes: &[u8]) -> BlockSum {
    BlockSum { length: bytes.len() as u32, crc: crc32c::crc32c(bytes) }
}

/// The range widened so that every block of which `sums` has a checksum is read as far as that covers it.
pub(super) fn widen(sums: &BTreeMap<u64, BlockSum>, offset: u64, end: u64) -> Range<u64> {
    let first = sums.keys().next().map_or(offset, |block| offset.min(block * BLOCK));
    let last =
        sums.last_key_value().map_or(end, |(block, sum)| end.max(block * BLOCK + u64::from(sum.length)));
    first..last
}

/// The first block in `bytes`, which start at `offset`, that its checksum does not fit.
pub(super) fn mismatch(sums: &BTreeMap<u64, BlockSum>, offset: u64, bytes: &[u8]) -> Option<u64> {
    let fits = |block: u64, sum: &BlockSum| {
        let start = usize::try_from((block * BLOCK).checked_sub(offset)?).ok()?;
        let covered = bytes.get(start..start + sum.length as usize)?;
        (crc32c::crc32c(covered) == sum.crc).then_some(())
    };
    sums.iter().find(|&(&block, sum)| fits(block, sum).is_none()).map(|(&block, _)| block)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_short_last_block_is_covered_as_far_as_it_reaches() {
        let bytes = vec![5; 70_000];
        let sums = BTreeMap::from([(0, sum(&bytes[..65_536])), (1, sum(&bytes[65_536..]))]);
        assert_eq!(widen(&sums, 66_000, 66_001), 0..70_000);
        assert_eq!(mismatch(&sums, 0, &bytes), None);
        let mut bad = bytes;
        bad[69_999] ^= 1;
        assert_eq!(mismatch(&sums, 0, &bad), Some(1));
    }
}
