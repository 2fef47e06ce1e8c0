// A connection to evapid that comes back whenever it is lost.

import { EventEmitter } from 'node:events';
import { connect } from 'node:net';
import { Decoder, encode, FrameError } from './netstring.mjs';

const CONNECT_MS = 5_000;
const FIRST_PAUSE_MS = 100;
const LONGEST_PAUSE_MS = 10_000;
const STOP_MS = 2_000;
const MAX_UNSENT = 1 << 20; // bytes; when evapid takes no more than that, nothing more is read from it

/** Emits 'connected', 'event' (the payload, a Buffer), 'lost' (why, and the pause in ms until the next try), 'stopped'.
 *
 * Each connection is a new client to Kamailio, without a tag: who listens to 'connected' says there what it wants. */
export class Bus extends EventEmitter {
  #host;
  #port;
  #socket = null; // that of a connection that stands
  #connecting = null;
  #failures = 0; // connections in a row that were not worth having
  #timer = null;
  #stopping = false;

  constructor(host, port) {
    super();
    this.#host = host;
    this.#port = port;
  }

  start() {
    const address = { host: this.#host, port: this.#port };
    const socket = connect({ ...address, noDelay: true, keepAlive: true, keepAliveInitialDelay: 30_000 });
    const decoder = new Decoder();
    let reason = 'closed by evapid';
    let since = null;
    this.#connecting = socket;
    socket.setTimeout(CONNECT_MS, () => socket.destroy(new Error('no answer')));
    socket.on('connect', () => {
      socket.setTimeout(0);
      since = performance.now();
      this.#socket = socket;
      this.emit('connected');
    });
    socket.on('data', (chunk) => {
      try {
        for (const payload of decoder.push(chunk)) this.emit('event', payload);
      } catch (error) {
        if (!(error instanceof FrameError)) throw error;
        socket.destroy(error);
      }
    });
    socket.on('drain', () => socket.resume());
    socket.on('error', (error) => { reason = error.message; });
    socket.on('close', () => {
      this.#socket = null;
      this.#connecting = null;
      this.#lost(reason, since === null ? 0 : performance.now() - since);
    });
  }

  /** Send a message. Returns false when there is no connection: it is lost then. A later one would not know of it. */
  send(payload) {
    if (this.#socket === null || !this.#socket.writable) return false;
    this.#socket.write(encode(payload));
    if (this.#socket.writableLength > MAX_UNSENT) this.#socket.pause(); // until 'drain'
    return true;
  }

  /** Send what is still to be sent, and end. */
  stop() {
    this.#stopping = true;
    clearTimeout(this.#timer);
    if (this.#connecting === null) this.emit('stopped');
    else if (this.#socket === null) this.#connecting.destroy();
    else {
      this.#socket.resume();
      this.#socket.end();
      setTimeout(() => this.#connecting?.destroy(), STOP_MS).unref();
    }
  }

  #lost(reason, lastedMs) {
    if (this.#stopping) {
      this.emit('stopped');
      return;
    }
    // A connection that is accepted and closed at once (max_clients, say) is a failure as well.
    this.#failures = lastedMs > LONGEST_PAUSE_MS ? 1 : this.#failures + 1;
    const longest = Math.min(LONGEST_PAUSE_MS, FIRST_PAUSE_MS * 2 ** (this.#failures - 1));
    const pause = Math.round(longest * (0.5 + Math.random() / 2)); // not all clients at the same moment
    this.emit('lost', reason, pause);
    this.#timer = setTimeout(() => this.start(), pause);
  }
}
