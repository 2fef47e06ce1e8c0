"""The state and the ledger that one evapid leaves to the next: read, changed and written again. docs/handover.md has the formats.

A state is a list of fields, each a list of a name and a value: an int, bytes, or a list of fields. Fixtures are JSON, in which
bytes are text."""

import base64
import json
import os
import struct
import zlib

from evapid import ROOT

FIXTURES = ROOT / "tests/system/handover/fixtures"
STATE, LEDGER = b"evapidst", b"evapidl2"
FILE = struct.Struct("=8sIIIIIIIIQ")  # struct layout_file
FIELD = struct.Struct("=48sHHII")  # struct layout_field
HEADER_PART, SLOT_PART = 0, 1
RECORD, BYTES = 0, 9


# ---- the state


class State:
    def __init__(self, version, reader, fields):
        self.version, self.reader, self.fields = version, reader, fields

    @classmethod
    def parse(cls, bytes_):
        magic, version, reader = struct.unpack_from("<8sII", bytes_)
        assert magic == STATE
        fields, end = cls._fields(bytes_, 16)
        assert end == len(bytes_)
        return cls(version, reader, fields)

    @classmethod
    def _fields(cls, bytes_, at):
        found = []
        while bytes_[at]:
            name, at = bytes_[at + 1:at + 1 + bytes_[at]].decode(), at + 1 + bytes_[at]
            kind, at = bytes_[at], at + 1
            if kind == RECORD:
                value, at = cls._fields(bytes_, at)
            else:
                length, at = (int.from_bytes(bytes_[at:at + 8], "little"), at + 8) if kind == BYTES else (kind, at)
                value, at = bytes_[at:at + length], at + length
                value = value if kind == BYTES else int.from_bytes(value, "little")
            found.append([name, value])
        return found, at + 1

    def build(self):
        return struct.pack("<8sII", STATE, self.version, self.reader) + self._build(self.fields)

    @classmethod
    def _build(cls, fields):
        out = b""
        for name, value in fields:
            head = bytes([len(name)]) + name.encode()
            if isinstance(value, list):
                out += head + bytes([RECORD]) + cls._build(value)
            elif isinstance(value, bytes):
                out += head + bytes([BYTES]) + struct.pack("<Q", len(value)) + value
            else:
                size = max(1, (value.bit_length() + 7) // 8)
                out += head + bytes([size]) + value.to_bytes(size, "little")
        return out + b"\0"

    def find(self, *path):
        """The fields of the record at that path; of several of a name it is the first."""
        fields = self.fields
        for name in path:
            fields = next(value for field, value in fields if field == name)
        return fields

    def set(self, path, value):
        *path, name = path
        for field in self.find(*path):
            if field[0] == name:
                field[1] = value

    def shapes(self):
        """What fields there are: "clients.client.index number", each once."""
        found = set()

        def walk(fields, path):
            for name, value in fields:
                kind = "record" if isinstance(value, list) else "bytes" if isinstance(value, bytes) else "number"
                if (path, name) not in CHUNKS or kind == "record":
                    found.add(f"{path}{name} {kind}")
                if kind == "record":
                    walk(value, f"{path}{name}.")
        walk(self.fields, "")
        return found

    def store(self):
        return json.dumps({"version": self.version, "reader": self.reader, "fields": packed(self.fields)}, indent=1)

    @classmethod
    def load(cls, text):
        stored = json.loads(text)
        return cls(stored["version"], stored["reader"], unpacked(stored["fields"]))


# Fields that are a record where the chunk comes first, and a number after that.
CHUNKS = {("bus.netstring.", "chunk"), ("bus.raw.", "chunk"), ("clients.client.output.piece.", "chunk")}


def packed(value):
    if isinstance(value, bytes):
        return {"zlib": base64.b64encode(zlib.compress(value, 9)).decode()} if len(value) > 40 else {"text": value.decode("latin-1")}
    return [[name, packed(inner)] for name, inner in value] if isinstance(value, list) else value


def unpacked(value):
    if isinstance(value, dict):
        return value["text"].encode("latin-1") if "text" in value else zlib.decompress(base64.b64decode(value["zlib"]))
    return [[name, unpacked(inner)] for name, inner in value] if isinstance(value, list) else value


# ---- the ledger


class Ledger:
    """A ledger's file, of which it knows what the file says of itself."""

    def __init__(self, bytes_):
        self.bytes = bytearray(bytes_)
        (magic, self.version, self.reader, self.header_bytes, self.fields_at, count, size, self.slot_bytes, self.segment_slots,
         self.segment_bytes) = FILE.unpack_from(self.bytes)
        assert magic == LEDGER and size == FIELD.size
        self.fields = [list(FIELD.unpack_from(self.bytes, self.fields_at + i * size)) for i in range(count)]
        for field in self.fields:
            field[0] = field[0].rstrip(b"\0").decode()

    def say(self, version, reader):
        struct.pack_into("=II", self.bytes, 8, version, reader)

    def rename(self, part, name, other):
        at = next(i for i, field in enumerate(self.fields) if (field[0], field[1]) == (name, part))
        self.fields[at][0] = other
        struct.pack_into("=48s", self.bytes, self.fields_at + at * FIELD.size, other.encode())

    def slot_at(self, number, name):
        """Where that field of a slot of the first segment lies."""
        offset = next(field for field in self.fields if (field[0], field[1]) == (name, SLOT_PART))[3]
        return self.header_bytes + number * self.slot_bytes + offset

    def slot(self, number, name):
        size = next(field for field in self.fields if (field[0], field[1]) == (name, SLOT_PART))[4]
        at = self.slot_at(number, name)
        return int.from_bytes(self.bytes[at:at + size], "little")

    def layout(self):
        """All that makes a ledger one that is gone on with in its place."""
        return [self.header_bytes, self.slot_bytes, self.segment_slots, self.segment_bytes, self.fields]

    def store(self):
        return json.dumps({"fields": [" ".join(map(str, field)) for field in self.fields], "file": packed(bytes(self.bytes))}, indent=1)

    @classmethod
    def load(cls, text):
        return cls(unpacked(json.loads(text)["file"]))


def memory_of(bytes_, name="from a test"):
    """A memory file of that content."""
    memory = os.memfd_create(name, os.MFD_CLOEXEC)
    os.ftruncate(memory, len(bytes_))
    os.pwrite(memory, bytes_, 0)
    return memory


def bytes_of(memory):
    return os.pread(memory, os.fstat(memory).st_size, 0)
