"""A test in the place of an evapi worker: it attaches to evapid, and plays the worker's part. docs/protocol.md has the protocol."""

import os

import wire
from ring import DONE, WORKER, WORKERS, Ring, Wake, make_ring, record

INSTANCE = 0x1234567890ABCDEF


class Worker:
    """An evapi worker, and the only producer of its ring."""

    def __init__(self, stage, ring=None, index=0, workers=1, instance=INSTANCE, **more):
        self.index = index
        self.memory, self.wake = ring or (make_ring(65536), Wake())
        self.ring = Ring(None, os.dup(self.memory))
        self.ring.set(WORKERS + WORKER * index, 0)
        self.link = wire.Link(stage.evapid.kamailio_socket)
        self.link.send(wire.hello(instance=instance, pid=os.getpid(), worker=index, workers=workers, **more),
                       [self.memory, self.wake.passed])

    def welcomed(self):
        kind, body = self.link.frame()
        assert kind == wire.WELCOME
        version, self.session, self.evapid = (int.from_bytes(body[at:at + 4], "little") for at in (0, 4, 8))
        assert version == wire.VERSION and self.session != 0
        return self

    def push(self, type_, tag=b"", payload=b"", wake=True, **more):
        head = record(type_, tag=len(tag), payload=len(payload), **more)
        self.ring.push(head, tag, payload)
        if wake:
            self.wake.send()

    def begin(self):
        """The next event; its route counts as begun."""
        kind, body = self.link.frame()
        event = wire.event(body)
        self.ring.set(WORKERS + WORKER * self.index, event[0])
        return kind, event

    def done(self, sequence, wake=True):
        self.push(DONE, wake=wake, worker=self.index, session=self.session, target=sequence)

    def awaited(self):
        """The sequence number up to which evapid wants to be woken by a DONE."""
        return self.ring.get(WORKERS + WORKER * self.index + 8)

    def run(self):
        """The next event, whose route ends at once."""
        kind, event = self.begin()
        self.done(event[0])
        return kind, event

    def close(self):
        self.link.close()
