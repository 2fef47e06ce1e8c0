"""A network namespace: evapid may listen there at addresses that the machine has for others, and nobody can reach it."""

import ctypes
import fcntl
import os
import socket
import struct
import threading

# In a network namespace of its own: nobody can reach it, whatever it listens at.
ALONE = ["unshare", "--net"] if os.geteuid() == 0 else ["unshare", "--map-root-user", "--net"]
libc = ctypes.CDLL(None, use_errno=True)
CLONE_NEWNET, SIOCSIFFLAGS, IFF_UP = 0x40000000, 0x8914, 1


def within(pid, act):
    """Do that in the network namespace of the process, whose loopback is up then; returns what act does. A socket that is
    made there stays there."""
    done = []

    def enter():
        with open(f"/proc/{pid}/ns/net") as namespace:
            assert libc.setns(namespace.fileno(), CLONE_NEWNET) == 0, os.strerror(ctypes.get_errno())
        with socket.socket() as any_:
            fcntl.ioctl(any_, SIOCSIFFLAGS, struct.pack("16sH14x", b"lo", IFF_UP))
        done.append(act())
    thread = threading.Thread(target=enter)
    thread.start()
    thread.join()
    assert done, "it failed: see the trace above"
    return done[0]
