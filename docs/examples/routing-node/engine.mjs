#!/usr/bin/env node
// A routing engine: Kamailio asks by an event where a call shall go, and this program answers by a message.
//
//     engine.mjs HOST PORT ROUTES.json
//
// The question      { "ask": "route", "call": "17:4711", "caller": "sip%3aalice%40example.org", "callee": "4930123" }
// and its answers   { "call": "17:4711", "to": "sip:4930123@192.0.2.7:5060" }
//                   { "call": "17:4711", "code": 403, "reason": "Forbidden" }

import { readFile } from 'node:fs/promises';
import { Bus } from './bus.mjs';

const TAG = 'routing'; // kamailio.cfg asks those who have it
const LONGEST_PREFIX = 15; // digits, as of a whole number (E.164)
const MAX_DECIDING = 500; // calls at a time; those beyond go by kamailio.cfg's default

const log = (...words) => console.error(...words);

/** Where the call goes, by a table: the longest prefix of the number that was called. Put what you have in its place; it
 * may take its time, other calls are decided meanwhile. */
async function decide({ caller, callee }, path) {
  const { blocked, gateways } = JSON.parse(await readFile(path, 'utf8'));
  if (blocked.includes(caller)) return { code: 403, reason: 'Forbidden' };
  for (let digits = Math.min(callee.length, LONGEST_PREFIX); digits > 0; digits--) {
    const gateway = gateways[callee.slice(0, digits)];
    if (gateway !== undefined) return { to: `sip:${callee}@${gateway}` };
  }
  return { code: 404, reason: 'No Route' };
}

/** The question in an event, or null when it is none: other events may go to the same tag. */
function question(payload) {
  try {
    const event = JSON.parse(payload.toString('utf8'));
    if (event.ask !== 'route') return null;
    return { call: event.call, caller: decodeURIComponent(event.caller), callee: decodeURIComponent(event.callee) };
  } catch {
    log('not understood:', JSON.stringify(payload.toString('latin1', 0, 200)));
    return null;
  }
}

function main(host, port, path) {
  const bus = new Bus(host, Number(port));
  let deciding = 0;

  bus.on('connected', () => {
    log(`connected to ${host}:${port}`);
    bus.send(JSON.stringify({ subscribe: TAG }));
  });

  bus.on('event', async (payload) => {
    const asked = question(payload);
    if (asked === null) return;
    if (deciding === MAX_DECIDING) {
      log(`call ${asked.call}: not decided: ${deciding} others are`);
      return;
    }
    let answer;
    deciding++;
    try {
      answer = await decide(asked, path);
    } catch (error) {
      // No answer is an answer too: kamailio.cfg goes by its default when the time is over.
      log(`call ${asked.call}: not decided: ${error.message}`);
      return;
    } finally {
      deciding--;
    }
    const fate = bus.send(JSON.stringify({ call: asked.call, ...answer })) ? '' : ', not sent';
    log(`call ${asked.call}: ${asked.caller} to ${asked.callee}: ${answer.to ?? answer.code}${fate}`);
  });

  bus.on('lost', (reason, pause) => log(`no connection: ${reason}; again in ${pause} ms`));
  bus.on('stopped', () => log('stopped'));
  for (const signal of ['SIGTERM', 'SIGINT']) process.once(signal, () => bus.stop());
  bus.start();
}

if (process.argv.length !== 5) {
  log('Usage: engine.mjs HOST PORT ROUTES.json');
  process.exit(2);
}
main(...process.argv.slice(2));
