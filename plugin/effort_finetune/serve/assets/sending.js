// Sends files a few at a time, so that hundreds can be dropped; waits where the server is full or away.

import { send, Refused } from "./server.js";

const AT_ONCE = 3;
const pause = (seconds) => new Promise((done) => setTimeout(done, 1000 * seconds));

export class Sending {
  constructor(onPart, onTrouble) {
    this.held = new Map(); // row -> file, until it is judged: a server that ends before asks for it again
    this.part = new Map(); // row -> share that has been sent
    this.queue = [];
    this.active = 0;
    this.onPart = onPart;
    this.onTrouble = onTrouble;
  }

  add(row, file) {
    if (!this.held.has(row)) this.queue.push(row); // dropped twice: it keeps its place
    this.held.set(row, file);
    this.next();
  }

  // After a start of the server: what it does not have is sent again.
  again(expected) {
    const waiting = new Set([...this.queue, ...this.part.keys()]);
    for (const row of expected) if (this.held.has(row) && !waiting.has(row)) this.queue.push(row);
    this.next();
  }

  drop(row) {
    this.held.delete(row);
    this.queue = this.queue.filter((other) => other !== row);
  }

  next() {
    while (this.active < AT_ONCE && this.queue.length) {
      const row = this.queue.shift();
      if (!this.held.has(row)) continue;
      this.active += 1;
      this.one(row).finally(() => { this.active -= 1; this.part.delete(row); this.next(); });
    }
  }

  async one(row) {
    this.part.set(row, 0);
    try {
      await send(row, this.held.get(row), (share) => { this.part.set(row, share); this.onPart(row); });
    } catch (error) {
      if (!(error instanceof Refused)) await pause(1.5); // away: a restart tells what is missing
      else if ([503, 507].includes(error.status)) await pause(error.wait || 2); // full: scoring makes room
      else {
        if (error.status !== 409) this.held.delete(row); // 409: it is there already
        if (![404, 409].includes(error.status)) this.onTrouble(error.message);
        return;
      }
      if (this.held.has(row)) this.queue.push(row);
    }
  }
}
