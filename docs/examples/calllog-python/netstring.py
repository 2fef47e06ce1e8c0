"""Netstrings: a length in decimal, a colon, that many bytes, a comma. Payloads are bytes, whatever they mean."""

import re

MAX_PAYLOAD = 4 << 20  # as large as events are with the module's default queue_size
LENGTH = re.compile(rb"(0|[1-9][0-9]*):")
UNFINISHED_LENGTH = re.compile(rb"(0|[1-9][0-9]*)?")


class FrameError(Exception):
    """The stream is no netstring: nothing behind that place can be known."""


def encode(payload):
    return b"%d:%b," % (len(payload), payload)


class Decoder:
    """Finds frames in a stream whose pieces end anywhere. It keeps one unfinished frame at most, and what came with
    it."""

    def __init__(self, limit=MAX_PAYLOAD):
        self.limit = limit
        self.buffer = bytearray()

    def push(self, piece):
        """The payloads that piece completes, one after the other."""
        self.buffer += piece
        while (payload := self._take()) is not None:
            yield payload

    def _take(self):
        head = self.buffer[:len(str(self.limit)) + 1]  # no more than the longest length and its colon
        found = LENGTH.match(head)
        if found is None:
            if not UNFINISHED_LENGTH.fullmatch(head) or len(head) > len(str(self.limit)):
                raise FrameError("no length")
            return None
        length, start = int(found[1]), found.end()
        if length > self.limit:
            raise FrameError(f"a frame of more than {self.limit} bytes")
        if len(self.buffer) <= start + length:
            return None
        if self.buffer[start + length] != ord(","):
            raise FrameError("no comma after the payload")
        payload = bytes(self.buffer[start:start + length])
        del self.buffer[:start + length + 1]
        return payload
