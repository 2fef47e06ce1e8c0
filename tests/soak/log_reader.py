"""The reader of evapid's log, as a process of its own that can be stopped.

    python3 log_reader.py PROGRAM ARGUMENT...

becomes the program, whose standard error is a pipe then. The reader copies what comes by it to where standard error went
before, and ends with the last writer."""

import fcntl
import os
import sys

PIPE_BYTES = 4096  # a reader that stops is soon felt


def read(pipe, log):
    os.dup2(pipe, 0)
    os.dup2(log, 1)
    os.closerange(2, os.sysconf("SC_OPEN_MAX"))  # clients' connections, which the service manager hands on, are not its own
    while bytes_ := os.read(0, 65536):
        os.write(1, bytes_)


def main():
    out, into = os.pipe()
    fcntl.fcntl(into, fcntl.F_SETPIPE_SZ, PIPE_BYTES)
    if os.fork() == 0:
        if os.fork() == 0:
            read(out, 2)
        os._exit(0)
    os.wait()  # the reader is no child of the program, which waits for none
    os.dup2(into, 2)
    os.close(out)
    os.close(into)
    os.execv(sys.argv[1], sys.argv[1:])


def readers(members):
    """Those of these processes that read a log."""
    found = []
    for pid in members:
        try:
            with open(f"/proc/{pid}/cmdline", "rb") as command:
                words = command.read().split(b"\0")
        except OSError:
            continue
        if __file__.encode() in words:
            found.append(pid)
    return found


if __name__ == "__main__":
    main()
