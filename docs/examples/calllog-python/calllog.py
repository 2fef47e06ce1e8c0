#!/usr/bin/python3
"""A call log: Kamailio's events about calls that have ended, into a table of PostgreSQL.

    calllog.py HOST PORT "dbname=calls"

Calls are written in batches, each in one transaction, and confirmed behind its commit. What has not been confirmed
Kamailio sends again when it is asked to; the table's key takes each call once."""

import json
import logging
import random
import signal
import sys
import time
from datetime import datetime, timezone
from pathlib import Path
from urllib.parse import unquote_to_bytes

import psycopg2
from psycopg2.extras import execute_values

from bus import Bus

MOST_ROWS = 500  # of a batch
GATHER_S = 0.2  # how long a call waits for others to be written with it
ASK_AGAIN_S = 60.0  # for what has not been confirmed
LONGEST_PAUSE_S = 10.0

INSERT = """INSERT INTO calls (key, call_id, caller, callee, outcome, seconds, ended) VALUES %s
            ON CONFLICT (key) DO NOTHING RETURNING key"""

log = logging.getLogger("calllog")


def text_of(quoted):
    """What phones write need not be UTF-8, and no text of PostgreSQL may hold a NUL: such bytes are replaced."""
    return unquote_to_bytes(quoted).decode(errors="replace").replace("\0", "\ufffd")


def call_of(payload):
    """Key and row of an event, or None when it is no call."""
    try:
        call = json.loads(payload)
        texts = [text_of(call[name]) for name in ("key", "call_id", "caller", "callee", "outcome")]
        ended = datetime.fromtimestamp(call["ended"], timezone.utc)
        return texts[0], (*texts, int(call["seconds"]), ended)
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError, OSError) as error:
        log.error("not understood (%s): %r", error, payload[:200])
        return None


class Database:
    def __init__(self, dsn):
        self.dsn, self.connection = dsn, None

    def store(self, rows):
        """Write rows in one transaction; returns how many of them were new. psycopg2.Error: the database is away,
        or does not want them, and nothing is known about them."""
        if self.connection is None:
            self.connection = psycopg2.connect(self.dsn, connect_timeout=5, tcp_user_timeout=15000,
                                               options="-c statement_timeout=10s")
            with self.connection, self.connection.cursor() as cursor:
                cursor.execute(Path(__file__).with_name("schema.sql").read_text())
            log.info("connected to the database")
        with self.connection, self.connection.cursor() as cursor:
            return len(execute_values(cursor, INSERT, rows, page_size=len(rows), fetch=True))

    def close(self):
        if self.connection is not None:
            self.connection.close()
            self.connection = None


class CallLog:
    """batch: calls that are not stored, by their key. At most MOST_ROWS and what one read brings: nothing is read while
    it is full. Then TCP holds evapid back; should that lose patience with us, Kamailio still has what we have not
    confirmed."""

    def __init__(self, bus, database):
        self.bus, self.database = bus, database
        self.batch, self.due = {}, 0.0
        self.failures, self.ask_at = 0, time.monotonic() + ASK_AGAIN_S

    def turn(self):
        """Wait for calls, and store them when it is time."""
        now = time.monotonic()
        if now >= self.ask_at and not self.failures:
            self.bus.send(b"pending")
            self.ask_at = now + ASK_AGAIN_S
        if len(self.batch) < MOST_ROWS:
            wait = self.due if self.batch else self.ask_at
            self.take(self.bus.receive(max(0.0, wait - now)))
        else:
            self.bus.rest(max(0.0, self.due - now))
        if self.batch and (time.monotonic() >= self.due or self.full()):
            self.store()

    def full(self):
        return len(self.batch) >= MOST_ROWS and not self.failures

    def take(self, events):
        if events and not self.batch and not self.failures:
            self.due = time.monotonic() + GATHER_S
        self.batch.update(call for call in map(call_of, events) if call is not None)

    def store(self):
        try:
            new = self.database.store(list(self.batch.values()))
        except psycopg2.Error as error:
            self.database.close()
            self.failures += 1
            pause = min(LONGEST_PAUSE_S, 0.2 * 2 ** min(self.failures, 16)) * random.uniform(0.5, 1.0)
            self.due = time.monotonic() + pause
            log.error("not stored: %s; %d calls wait, again in %.1f s", str(error).strip(), len(self.batch), pause)
            return
        log.info("stored %d calls, %d were there already", new, len(self.batch) - new)
        self.bus.send(*(b"stored " + key.encode() for key in self.batch))
        self.batch, self.failures = {}, 0


def main(host, port, dsn):
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s: %(message)s")
    stopping = []
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopping.append(True))
    bus, database = Bus(host, int(port), hello=b"pending"), Database(dsn)
    calls = CallLog(bus, database)
    while not stopping:
        calls.turn()
    if calls.batch:
        calls.store()  # once; what fails is not confirmed, and comes again
    bus.close()
    database.close()
    log.info("stopped, %d calls not stored", len(calls.batch))


if __name__ == "__main__":
    if len(sys.argv) != 4:
        sys.exit('Usage: calllog.py HOST PORT "dbname=calls"')
    main(*sys.argv[1:])
