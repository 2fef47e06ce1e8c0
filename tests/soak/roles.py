"""What the clients of the soak do. An App is one application; it has one connection at a time, and comes back with a new
one whenever that has ended.

Residents stay as long as evapid lets them: their connections are compared with evapid's books at the end. Visitors come,
go, and misbehave."""

import hashlib
import time

from connection import READ_BYTES, Connection
from event import Violation, merged

KEPT_NETWORK = "127.0.1"  # of the clients whose tag the script knows by their address
WITNESSED = ("R", "M0", "M1", "M2")  # kinds that all of a resident's numbers are looked at of


class App:
    """framing, receive_buffer: of its connections. The crowd calls turn() about 20 times a second, and readable() when
    there is something to read and the app wants to (reading)."""

    role = "reader"
    framing, receive_buffer, source = "netstring", None, None
    may_be_torn = False  # it takes so long to read that evapid may give up on it
    may_be_early = False  # it gets what its predecessor has missed before its connection-new route's own event

    def __init__(self, number, address, random):
        self.name, self.address, self.random = f"{self.role}-{number}", address, random
        self.connection = None
        self.come_at = 0.0
        self.reading = True
        self.quiet = False
        self.connections = 0
        self.mark = None
        self.last = {}     # of all connections: kind and source to the last number
        self.history = {}  # of past connections: kind and source to runs

    # ---- what a role does otherwise

    def on_event(self, event):
        pass

    def on_begin(self):
        pass

    def behave(self, now):
        pass

    def on_quiet(self):
        self.reading = True

    # ---- its life

    def turn(self, now):
        if self.connection is None:
            if now >= self.come_at:
                self._connect(now)
            return
        self.connection.flush()
        if not self.quiet:
            self.behave(now)

    def _connect(self, now):
        try:
            self.connection = Connection(self.address, self.framing, self.receive_buffer, self.source)
        except OSError:
            self.come_at = now + self.random.uniform(0.05, 0.2)
            return
        self.connections += 1
        self.reading = True
        self.on_begin()

    def readable(self, most=READ_BYTES):
        try:
            for event in self.connection.read(most):
                self._seen(event)
                if self.connection is None:
                    return
        except Violation as violation:
            self._report("violation", violation)
            self.leave()
            return
        if self.connection.ended is not None:
            if self.connection.torn():
                self._report("excused" if self.may_be_torn else "torn", self.connection.ended)
            self.leave()

    def _seen(self, event):
        key = event.kind, event.source
        if event.number <= self.last.get(key, 0):
            raise Violation(f"{event} came on a former connection, or was passed over there")
        self.last[key] = event.number
        if event.kind == "R" and event.rest.startswith(b"mark "):
            self.mark = event.words()[1]
        self.on_event(event)

    def _report(self, what, detail):
        print(f"{what}: {time.time():.3f} {self.name} port {self.connection.port}: {detail}", flush=True)

    def leave(self):
        """The connection is over."""
        if self.connection.early is not None and not self.may_be_early:
            self._report("early", f"{self.connection.connected:.3f} {self.connection.early.source}")
        for (kind, source), runs in self.connection.runs.runs.items():
            if kind in WITNESSED:
                self.history.setdefault((kind, source), []).extend(runs)
        self.connection.close()
        self.connection = None
        self.come_at = time.monotonic() + self.random.uniform(0.02, 0.3)

    def seen(self):
        """All that it has ever seen: kind and source to runs."""
        runs = dict(self.connection.runs.runs) if self.connection else {}
        return {key: merged([self.history.get(key, []), runs.get(key, [])]) for key in {*self.history, *runs}
                if key[0] in WITNESSED}

    def report(self):
        """What its connection has seen, for the books; None without one."""
        at = self.connection
        if at is None:
            return None
        return {"name": self.name, "role": self.role, "port": at.port, "index": at.index, "began": at.began,
                "connections": self.connections, "frames": at.frames, "bytes": at.bytes, "messages": at.messages,
                "mark": self.mark, "early": [[*key, number] for key, number in at.early_last.items()],
                "runs": [[kind, source, runs] for (kind, source), runs in at.runs.runs.items() if kind in WITNESSED],
                **self.more()}

    def more(self):
        return {}


class Raw(App):
    """Reads events without framing."""

    role, framing = "raw", "raw"


class Narrow(App):
    """At a listener whose clients may have less queued than a large event needs."""

    role = "narrow"


class Slow(App):
    """Takes a little at a time: now and then evapid cuts it off."""

    role, receive_buffer, may_be_torn = "slow", 8192, True

    def on_begin(self):
        self.reading = self.quiet
        self.pace = self.random.choice((1000, 4000, 20000))

    def behave(self, now):
        self.readable(self.pace)


class Staller(App):
    """Reads nothing for seconds: fewer than the 10 that evapid gives one that it cuts off."""

    role, receive_buffer = "staller", 8192

    def on_begin(self):
        self.change_at = time.monotonic() + self.random.uniform(0.5, 8)

    def behave(self, now):
        if now >= self.change_at:
            self.reading = not self.reading
            self.change_at = now + (self.random.uniform(0.5, 8) if self.reading else self.random.uniform(0.5, 5))


class Newest(Staller):
    """The same, at a listener where it stays and misses the newest events."""

    role = "newest"


class Oldest(Staller):
    """The same, where it misses the oldest."""

    role = "oldest"


class Sender(App):
    """Sends numbered messages and hears of each that a route has run for it, in order, once, with its bytes intact.

    A message whose route a dying Kamailio had begun is not run again: missing counts those that were passed over."""

    role = "sender"

    def on_begin(self):
        self.own = False  # it has a tag of its own, by which it can be reached
        self.ask_at = 0.0
        self.sent, self.heard, self.missing = 0, 0, 0
        self.sums = {}

    def behave(self, now):
        if not self.own:
            if self.connection.index is not None and now >= self.ask_at:
                self.connection.send(b"own:0")
                self.ask_at = now + 5  # that one may have been lost with a worker
        elif self.sent - self.heard - self.missing < 200 and not self.connection.output and self.random.random() < 0.2:
            for _ in range(self.random.choice((1, 1, 1, 10))):
                self._say()

    def _say(self):
        self.sent += 1
        length = 50000 if self.random.random() < 0.02 else self.random.randrange(10, 3000)
        message = b"N:%d:%s" % (self.sent, self.random.randbytes(length).hex()[:length].encode())
        self.sums[self.sent] = hashlib.md5(message).hexdigest()
        self.connection.send(message)

    def on_event(self, event):
        if event.kind != "K":
            return
        index, number, sum_ = event.words()
        if int(index) != self.connection.index:
            raise Violation(f"{event} is for connection {index}, not {self.connection.index}")
        number = int(number)
        if number == 0:
            self.own = True
            return
        if number <= self.heard:
            raise Violation(f"message {number} was run after {self.heard}")
        if self.sums.get(number) != sum_:
            raise Violation(f"message {number} is another one than was sent")
        self.missing += number - self.heard - 1
        for passed in range(self.heard + 1, number + 1):
            del self.sums[passed]
        self.heard = number

    def more(self):
        return {"sent": self.sent, "heard": self.heard, "missing": self.missing}


class Answerer(App):
    """Resumes the requests that it is asked about."""

    role = "answerer"

    def on_begin(self):
        self.ask_at = 0.0

    def behave(self, now):
        if self.connection.index is not None and now >= self.ask_at:
            self.connection.send(b"answer")
            self.ask_at = now + 10

    def on_event(self, event):
        if event.kind == "A":
            index, label = event.words()
            self.connection.send(f"C:{index}:{label}".encode())


class Restarter(App):
    """An application that is restarted again and again, whose tag is kept: the script gives it a tag by its address. It ends
    its side of the connection, and reads what evapid has sent by then, so it knows of each event whether it got it: none may
    be missing, whichever of its connections it came on. evapid may stop within a frame, which comes again whole."""

    role, may_be_torn, may_be_early = "restarter", True, True

    first_host = 1

    def __init__(self, number, *others):
        super().__init__(number, *others)
        self.source = f"{KEPT_NETWORK}.{self.first_host + number}"

    def on_begin(self):
        self.going = False
        self.go_at = time.monotonic() + self.random.expovariate(0.5)

    def behave(self, now):
        if not self.going and now >= self.go_at:
            self.going = True
            self.go()

    def go(self):
        self.connection.half_close()

    def more(self):
        return {"all": [[source, runs] for (kind, source), runs in self.seen().items() if kind == "R"]}


class Crasher(Restarter):
    """The same, killed in the middle of everything: what its kernel had is lost with it."""

    role, first_host = "crasher", 101

    def go(self):
        if self.random.random() < 0.5:
            self.connection.reset()
        self.leave()

    def more(self):
        return {}


class Visitor(App):
    """Comes, reads for a while, and goes in one of the ways there are."""

    role = "visitor"

    def on_begin(self):
        self.going = False
        self.go_at = time.monotonic() + self.random.expovariate(1.0)

    def behave(self, now):
        if self.going or now < self.go_at:
            return
        way = self.random.choice(("close", "reset", "half-close", "half-close", "words"))
        if way == "reset":
            self.connection.reset()
        elif way in ("half-close", "words"):  # evapid ends it, and not within a frame
            if way == "words":
                self.connection.send(b"N:0:last words")
            if not self.connection.output:
                self.connection.half_close()
                self.going = True
                return
        self.leave()


GARBAGE = [b"x", b"12", b"007:", b"5:hello!", b"999999999999:", b"70000000:", b"-1:", b"3:ab", b"\0" * 40, b"0:,0:,1:",
           b"GET / HTTP/1.1\r\nHost: there\r\n\r\n", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", b":", b",,,,,"]


class Vandal(App):
    """Sends what is no netstring, in pieces, and leaves or is thrown out."""

    role, may_be_torn = "vandal", True  # a reset takes away what was on the way

    def on_begin(self):
        self.pieces = []
        for _ in range(self.random.randrange(1, 4)):
            if self.random.random() < 0.5:
                self.pieces.append(self.random.randbytes(self.random.choice((1, 10, 1000, 70000))))
            else:
                self.pieces.append(self.random.choice(GARBAGE))
        if self.random.random() < 0.5:
            self.pieces.insert(0, b"14:N:0:last words,")

    def behave(self, now):
        if self.pieces:
            self.connection.send_bytes(self.pieces.pop(0))
        elif self.random.random() < 0.3:
            if self.random.random() < 0.5:
                self.connection.reset()
            self.leave()


RESIDENTS = [(App, 10), (Raw, 2), (Narrow, 3), (Slow, 3), (Staller, 4), (Newest, 3), (Oldest, 3), (Sender, 6),
             (Answerer, 2), (Restarter, 3), (Crasher, 2)]
VISITORS = [(Visitor, 8), (Vandal, 5)]
