//! CRC-32C (Castagnoli), as in RFC 3720 appendix B.4 and in Linux `lib/crc32c`.

/// The checksum of `data`, as files and network protocols store it.
pub(super) fn checksum(data: &[u8]) -> u32 {
    !update(!0, data)
}

/// The kernel's `crc32c(seed, data)`: no inversion at the start or at the end.
pub(super) fn update(seed: u32, data: &[u8]) -> u32 {
    data.iter().fold(seed, |crc, byte| {
        let index = (crc ^ u32::from(*byte)) & 0xff;
        (crc >> 8) ^ TABLE[index as usize]
    })
}

const TABLE: [u32; 256] = table();

const fn table() -> [u32; 256] {
    const POLYNOMIAL: u32 = 0x82f6_3b78;
    let mut table = [0; 256];
    let mut index = 0;
    while index < 256 {
        let mut crc = index;
        let mut bit = 0;
        while bit < 8 {
            crc = if crc & 1 == 1 { (crc >> 1) ^ POLYNOMIAL } else { crc >> 1 };
            bit += 1;
        }
        table[index as usize] = crc;
        index += 1;
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_vectors_of_rfc_3720_hold() {
        assert_eq!(checksum(&[0; 32]), 0x8a91_36aa);
        assert_eq!(checksum(&[0xff; 32]), 0x62a8_ab43);
        assert_eq!(checksum(b"123456789"), 0xe306_9283);
    }
}
