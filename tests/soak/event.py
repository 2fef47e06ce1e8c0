"""What a client of the soak gets, taken apart and checked: bytes into frames, frames into events (routes.py), and the
numbers of the events into runs."""

import hashlib

LONGEST = 1 << 20  # of an event: anything that says it is longer is none


class Violation(Exception):
    """Something that evapid promises never to happen."""


def take_netstring(buffer):
    """The first frame out of the buffer, or None when it isn't there whole."""
    colon = buffer.find(b":", 0, 10)
    if colon < 0:
        if len(buffer) >= 10 or not (bytes(buffer).isdigit() or not buffer):
            raise Violation(f"no netstring: {bytes(buffer[:60])!r}")
        return None
    if not buffer[:colon].isdigit() or int(buffer[:colon]) > LONGEST:
        raise Violation(f"no netstring: {bytes(buffer[:60])!r}")
    end = colon + 1 + int(buffer[:colon])
    if len(buffer) <= end:
        return None
    if buffer[end] != ord(","):
        raise Violation(f"no comma after a netstring: {bytes(buffer[end - 20:end + 20])!r}")
    frame = bytes(buffer[colon + 1:end])
    del buffer[:end + 1]
    return frame


def take_raw(buffer):
    """The same where nothing stands between the events: their own length tells."""
    if len(buffer) < 41:
        return None
    space = buffer.find(b" ", 33, 41)
    if buffer[32] != ord(" ") or space < 0 or not buffer[33:space].isdigit():
        raise Violation(f"no event: {bytes(buffer[:60])!r}")
    end = space + 1 + int(buffer[33:space])
    if len(buffer) < end:
        return None
    frame = bytes(buffer[:end])
    del buffer[:end]
    return frame


class Event:
    """kind, source, number, turn as routes.py has them; words: the rest of a short event."""

    __slots__ = ("kind", "source", "number", "turn", "rest")

    def __init__(self, frame):
        try:
            sum_, length, checked = frame.split(b" ", 2)
            if int(length) != len(checked) or hashlib.md5(checked).hexdigest().encode() != sum_:
                raise ValueError
            kind, source, number, turn, self.rest = checked.split(b" ", 4)
            self.kind, self.source = kind.decode(), source.decode()
            self.number, self.turn = int(number), int(turn)
        except ValueError:
            raise Violation(f"an event that is not as it was issued: {frame[:100]!r}, {len(frame)} bytes") from None

    def __str__(self):
        return f"{self.kind} {self.number} of {self.source}"

    def words(self):
        return self.rest.decode().split(" ")


class Runs:
    """The numbers that came, by kind and source: for each a list of [first, last], in order."""

    def __init__(self):
        self.runs = {}
        self.turns = {}

    def take(self, event):
        turn = self.turns.get(event.source, 0)
        if event.turn <= turn:
            raise Violation(f"{event}, turn {event.turn}, came after turn {turn}")
        self.turns[event.source] = event.turn
        runs = self.runs.setdefault((event.kind, event.source), [])
        if not runs or event.number > runs[-1][1] + 1:
            runs.append([event.number, event.number])
        elif event.number == runs[-1][1] + 1:
            runs[-1][1] = event.number
        else:
            raise Violation(f"{event} came after number {runs[-1][1]}")


def merged(many):
    """Lists of runs as one, in order and without overlaps."""
    whole = []
    for first, last in sorted(run for runs in many for run in runs):
        if whole and first <= whole[-1][1] + 1:
            whole[-1][1] = max(whole[-1][1], last)
        else:
            whole.append([first, last])
    return whole
