"""Events that show whether they are whole, and the books that the status keeps."""

import zlib


def numbered(number, size):
    """An event that shows whether it is whole: its number, filling, and a checksum of both."""
    bytes_ = b"%d:" % number + bytes([number % 251]) * size
    return b"%s:%08x" % (bytes_, zlib.crc32(bytes_))


def number_of(event):
    bytes_, checksum = event.rsplit(b":", 1)
    assert zlib.crc32(bytes_) == int(checksum, 16), event[:80]
    return int(bytes_.split(b":", 1)[0])


def entry_of(stage, client):
    return next(entry for entry in stage.evapid.status()["clients"] if entry["index"] == client.index)


def balanced(status):
    """relayed = delivered + dropped + queued, for each client and for all there ever were; and what clients sent = delivered
    + dropped + waiting. Returns the totals of what is sent to clients."""
    for entry in status["clients"]:
        out = entry["out"]
        assert out["relayed"] == out["delivered"] + sum(entry["dropped"].values()) + out["queued_frames"], entry
    out, queued = status["totals"]["out"], sum(entry["out"]["queued_frames"] for entry in status["clients"])
    queued += status["kept"]["events"]
    assert out["relayed"] == out["delivered"] + sum(out["dropped"].values()) + queued, status["totals"]
    assert out["queued_frames"] == queued
    for in_ in [status["totals"]["in"]] + [entry["in"] for entry in status["clients"]]:
        assert min(in_["delivered"], in_["waiting"], *in_["dropped"].values()) >= 0, in_
        assert in_["frames"] == in_["delivered"] + in_["waiting"] + sum(in_["dropped"].values()), in_
    clients = status["totals"]["clients"]
    assert clients["accepted"] - clients["closed"] == len([e for e in status["clients"] if e["state"] != "gone"])
    return out


def lost_by(client, status):
    """Of the client's status entry: what it was to get and did not, by evapid's own word."""
    entry = next(entry for entry in status["clients"] if entry["index"] == client.index)
    assert entry["out"]["relayed"] == entry["out"]["delivered"] + entry["out"]["queued_frames"] + sum(
        entry["dropped"].values())
    return entry["dropped"]["lost"]
