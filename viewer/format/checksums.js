/** CRC-32C (FORMAT.md, section 1). */

const CASTAGNOLI = 0x82f63b78;

const TABLE = Uint32Array.from({ length: 256 }, (_, byte) => {
  let register = byte;
  for (let bit = 0; bit < 8; bit++) register = (register >>> 1) ^ (register & 1 ? CASTAGNOLI : 0);
  return register;
});

/**
 * @param {Uint8Array} bytes
 * @returns {number} 32 bits, unsigned
 */
export function crc32c(bytes) {
  let register = 0xffffffff;
  for (const byte of bytes) register = (register >>> 8) ^ TABLE[(register ^ byte) & 255];
  return (register ^ 0xffffffff) >>> 0;
}

/**
 * @param {Uint8Array} bytes
 * @returns {number} the low 16 bits of the CRC-32C
 */
export const shortCheck = (bytes) => crc32c(bytes) & 0xffff;
