"""A debugger (ptrace(2)) that takes a process to one instruction and leaves it stopped there.

The process runs until something is true that it has done by a system call, then goes on one instruction at a time until something
is true of the memory that it shares. So it stops between two instructions of the program under test, which knows nothing of it.

Kamailio's processes are our descendants: where a debugger may trace only those (Yama), we may."""

import ctypes
import errno
import os
import signal

import pytest

from process import until

PTRACE_CONT, PTRACE_SINGLESTEP, PTRACE_ATTACH, PTRACE_DETACH, PTRACE_SYSCALL = 7, 9, 16, 17, 24
STEPS_MAX = 2_000_000

ptrace = ctypes.CDLL(None, use_errno=True).ptrace
ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
ptrace.restype = ctypes.c_long


def trace(request, pid, number=0):
    if ptrace(request, pid, None, number) != 0:
        raise OSError(ctypes.get_errno(), f"ptrace({request}) of {pid}")


class Traced:
    """A process that we trace, from its stop until leave_stopped()."""

    def __init__(self, pid):
        self.pid = pid
        try:
            trace(PTRACE_ATTACH, pid)
        except OSError as error:
            if error.errno in (errno.EPERM, errno.ENOSYS):
                pytest.skip(f"processes may not be traced here: {error}")
            raise
        self._wait(signal.SIGSTOP)

    def _wait(self, expected=signal.SIGTRAP, may_sleep=False):
        """Wait until it stops. Another signal than the expected one is for the process: returns it, else 0."""
        def stopped(flags=os.WNOHANG):
            pid, status = os.waitpid(self.pid, 0x40000000 | flags)  # __WALL
            return pid and [status]
        (status,) = until(stopped, f"process {self.pid} stops in its trace") if may_sleep else stopped(0)
        assert os.WIFSTOPPED(status), f"process {self.pid} has ended in its trace: {status:#x}"
        number = os.WSTOPSIG(status)
        return 0 if number == expected else number

    def _run(self, request, until):
        number = 0
        for _ in range(STEPS_MAX):
            if until():
                return
            trace(request, self.pid, number)
            number = self._wait(may_sleep=request == PTRACE_SYSCALL)
        raise AssertionError(f"process {self.pid} does not get there")

    def by_calls(self, until):
        """From one system call to the next."""
        self._run(PTRACE_SYSCALL, until)

    def by_instructions(self, until):
        self._run(PTRACE_SINGLESTEP, until)

    def leave_stopped(self):
        """It is not traced any more, and stopped as by SIGSTOP."""
        trace(PTRACE_DETACH, self.pid, signal.SIGSTOP)
