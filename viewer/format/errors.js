/**
 * The errors of a decoder. Their messages are sentences for the person who opened the file.
 */

/** What every error of the decoder is. */
export class SodecError extends Error {
  /** @param {string} message */
  constructor(message) {
    super(message);
    this.name = new.target.name;
  }
}

/** The bytes are not those of a stream, or no longer. */
export class CorruptStreamError extends SodecError {}

/** The stream uses something that version 1 of the format does not have. */
export class NewerFormatError extends SodecError {}

/** The picture or its tiles are larger than the caller accepts. */
export class PictureTooLargeError extends SodecError {}

/** A file of the decoder can't be fetched, or is not whole. */
export class DownloadError extends SodecError {}

/** The stream needs the weights of another coding. */
export class UnknownModelError extends SodecError {}

/**
 * @param {unknown} condition
 * @param {string} message what is wrong where the condition is false
 * @returns {asserts condition}
 */
export function require(condition, message) {
  if (!condition) throw new CorruptStreamError(message);
}
