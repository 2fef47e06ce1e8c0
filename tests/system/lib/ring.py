"""The ring: that of a process, for a test that scribbles on it, and one of a test's own. include/evapid/ring.h has the
layout."""

import fcntl
import mmap
import os
import socket
import struct

MAGIC, VERSION = b"avidring", 6
RELAY, MULTICAST, UNICAST, CLOSE, TAG, DONE, SEND = range(1, 8)  # enum ring_type

KEY = 24
SLOTS_USED = 64  # producers' line
TAIL = 128       # evapid's line
SLEEPING = 192   # and the number of the last sleep, and the hole
WORKERS_MAX = 128
WORKERS = 256
WORKER = 256      # bytes of one worker's slot
STARTS = 64       # offset in it: for how long messages waited for their routes
PRESENCE = WORKERS + WORKER * WORKERS_MAX
TAG_SLOTS = 32768
CONNECTION_SLOTS = 65536
FIGURES = PRESENCE + 64 + 8 * TAG_SLOTS + 8 * CONNECTION_SLOTS
FIGURE_COUNT = 25
WAITING = (FIGURES + 8 * FIGURE_COUNT + 63) & ~63
WAITING_PLACES = 256
SLOTS = (WAITING + 8 * (WAITING_PLACES + 1) + 63) & ~63
SLOT, SLOT_COUNT = 64, 1024
NOTED, END, CLAIMED = 0, 8, 16  # offsets in a slot
HEADER = SLOTS + SLOT * SLOT_COUNT
RECORDS = (HEADER + 4095) & ~4095
RECORD = struct.Struct("=QIBBHIIQ")  # stamp, size, type, tag length, worker, payload length, session, target


def record(type_, size=None, tag=0, worker=0, payload=0, session=0, target=0):
    """A record's header, not published; size is by default what the rest adds up to."""
    if size is None:
        size = (RECORD.size + tag + payload + 7) & ~7
    return RECORD.pack(0, size, type_, tag, worker, payload, session, target)


def make_ring(capacity, seals=fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL, header=RECORDS):
    """A memory file with an empty ring, whose header has so many bytes."""
    memory = os.memfd_create("ring of a test", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    os.ftruncate(memory, header + capacity)
    os.pwrite(memory, MAGIC + struct.pack("=IIQQ", VERSION, 0, capacity, 0x0123456789abcdef), 0)
    fcntl.fcntl(memory, fcntl.F_ADD_SEALS, seals)
    return memory


class Wake:
    """The pair of sockets by which evapid is woken: passed is the descriptor that evapid gets."""

    def __init__(self):
        self.ours, self.theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.passed = self.theirs.fileno()

    def send(self):
        try:
            self.ours.send(b"\0", socket.MSG_DONTWAIT)
        except BlockingIOError:
            pass  # it has been woken long since

    def close(self):
        self.ours.close()
        self.theirs.close()


class Ring:
    """A ring in a memory file, mapped for reading and writing: by default the one that the process has."""

    def __init__(self, pid, memory=None):
        self.file = open(self._find(pid) if memory is None else memory, "r+b")
        self.map = mmap.mmap(self.file.fileno(), os.fstat(self.file.fileno()).st_size)
        self.words = memoryview(self.map).cast("Q")  # struct would write a word byte by byte, for evapid to see
        assert self.map[:8] == MAGIC, "this is not the ring"
        self.capacity = self.get(16)
        assert len(self.map) == RECORDS + self.capacity, "the layout is another than this file knows"

    @staticmethod
    def _find(pid):
        """A path by which the memory file can be opened: as a descriptor, or as a mapping when that has been closed."""
        for folder in (f"/proc/{pid}/fd", f"/proc/{pid}/map_files"):
            for name in os.listdir(folder):
                try:
                    if "memfd:" in os.readlink(f"{folder}/{name}"):
                        return f"{folder}/{name}"
                except FileNotFoundError:
                    pass
        raise AssertionError(f"process {pid} has no memory file")

    def get(self, at):
        assert at % 8 == 0
        return self.words[at // 8]

    def set(self, at, value):
        assert at % 8 == 0
        self.words[at // 8] = value & (1 << 64) - 1

    def put(self, at, bytes_):
        """Write bytes at a position of the ring, which may wrap."""
        for offset, byte in enumerate(bytes_):
            self.map[RECORDS + (at + offset) % self.capacity] = byte

    def head(self):
        """The end of the last claim."""
        return max(self.get(SLOTS + SLOT * slot + CLAIMED) for slot in range(max(self.get(SLOTS_USED), 1)))

    def claim(self, size, slot=0):
        """Claim so many bytes for the producer with this slot, while no other one claims. Returns their position."""
        at, place = self.head(), SLOTS + SLOT * slot
        self.set(SLOTS_USED, max(self.get(SLOTS_USED), slot + 1))
        self.set(place + NOTED, at + 1)
        self.set(place + END, at + size)
        self.set(place + CLAIMED, at + size)
        return at

    def write(self, at, bytes_):
        """Write a record at a position, but for its stamp."""
        self.put(at + 8, bytes_[8:])

    def publish(self, at):
        self.set(RECORDS + at % self.capacity, at ^ self.get(KEY))

    def push(self, head, tag=b"", payload=b""):
        """Append a record, as its only producer."""
        at = self.claim(struct.unpack_from("=QI", head)[1])
        self.write(at, head + tag + payload)
        self.publish(at)

    def close(self):
        self.words.release()
        self.map.close()
        self.file.close()
