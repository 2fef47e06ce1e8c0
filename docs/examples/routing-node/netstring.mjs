// Netstrings: a length in decimal, a colon, that many bytes, a comma. Payloads are Buffers: bytes, whatever they mean.

// As large as events are with the module's default queue_size.
export const MAX_PAYLOAD = 4 << 20;

export class FrameError extends Error {}

/** payload (a Buffer, or a string that is sent as UTF-8) as a frame. */
export function encode(payload) {
  const bytes = Buffer.from(payload);
  return Buffer.concat([Buffer.from(`${bytes.length}:`), bytes, Buffer.from(',')]);
}

const [ZERO, NINE, COLON, COMMA] = Buffer.from('09:,');

/** Finds frames in a stream whose pieces end anywhere. It keeps one unfinished frame at most. */
export class Decoder {
  #limit;
  #length = null; // what the digits so far say; null: there was none
  #frame = null; // payload and comma, once the length is known
  #filled = 0;

  constructor(limit = MAX_PAYLOAD) {
    this.#limit = limit;
  }

  /** The payloads that chunk completes. Throws a FrameError where the stream is no netstring: nothing behind that place
   * can be known. */
  *push(chunk) {
    let at = 0;
    while (at < chunk.length) {
      if (this.#frame === null) {
        this.#takeLength(chunk[at++]);
        continue;
      }
      const taken = chunk.copy(this.#frame, this.#filled, at);
      this.#filled += taken;
      at += taken;
      if (this.#filled === this.#frame.length) yield this.#finish();
    }
  }

  #takeLength(byte) {
    if (byte === COLON && this.#length !== null) {
      this.#frame = Buffer.allocUnsafe(this.#length + 1);
      return;
    }
    if (byte < ZERO || byte > NINE || this.#length === 0) throw new FrameError('no length');
    this.#length = (this.#length ?? 0) * 10 + (byte - ZERO);
    if (this.#length > this.#limit) throw new FrameError(`a frame of more than ${this.#limit} bytes`);
  }

  #finish() {
    const frame = this.#frame;
    if (frame.at(-1) !== COMMA) throw new FrameError('no comma after the payload');
    this.#frame = null;
    this.#length = null;
    this.#filled = 0;
    return frame.subarray(0, -1);
  }
}
