"""conf/evapid.service without systemd: what it says about system calls, and a way to run a program under just that.

    python3 sandbox.py RULES PROGRAM ARGUMENT...

loads the rules, a file that write_rules() has made, and becomes the program. A system call that the unit would answer with an
error kills the program here, so that no test can miss it; but for those that are tried only to learn whether they are there
(TRIED). Rights have been given up before: setpriv(1) does that."""

import ctypes
import errno
import json
import os
import re
import subprocess
import sys

# seccomp.h and prctl.h
ALLOW, KILL_PROCESS, ERRNO = 0x7fff0000, 0x80000000, 0x00050000
EQ, MASKED_EQ = 4, 7
PR_SET_NO_NEW_PRIVS = 38
PROT_WRITE, PROT_EXEC = 2, 4
FAMILIES = {"AF_UNIX": 1, "AF_INET": 2, "AF_INET6": 10}
SUID_SGID = 0o6000
# libuv 1.45 and newer try to make an io_uring, to hand over several changes of epoll in one call; nothing turns that off. Where
# they must not, they make each change by a call of its own.
TRIED = ["io_uring_setup"]


class Comparison(ctypes.Structure):
    _fields_ = [("argument", ctypes.c_uint), ("how", ctypes.c_int), ("a", ctypes.c_uint64), ("b", ctypes.c_uint64)]


# ---- the unit


def directives(unit, name):
    """The values that the unit gives a directive, in order."""
    return re.findall(rf"^{name}=(.*)$", unit.read_text(), re.M)


def groups():
    """systemd's groups of system calls, with groups in groups resolved."""
    shown = subprocess.run(["systemd-analyze", "syscall-filter", "--no-pager"], capture_output=True, text=True, check=True)
    found, name = {}, None
    for line in shown.stdout.splitlines():
        if re.fullmatch(r"@[\w-]+", line):
            name = line
            found[name] = []
        elif name and re.fullmatch(r"    @?[\w-]+", line):
            found[name].append(line.strip())

    def members(of):
        return {each for entry in found[of] for each in (members(entry) if entry in found else [entry])}
    return {each: members(each) for each in found}


def allowed_calls(unit):
    """The names of the system calls that the unit allows: SystemCallFilter= of systemd.exec(5), an allow-list first."""
    known = groups()
    allowed = set(known["@default"])
    for line in directives(unit, "SystemCallFilter"):
        names = {each for word in line.lstrip("~").split() for each in known.get(word, {word})}
        allowed = allowed - names if line.startswith("~") else allowed | names
    return allowed


def write_rules(unit, path, more=()):
    """What the unit says, for this program's command line. more: further groups and calls to allow."""
    for name in ("MemoryDenyWriteExecute", "RestrictSUIDSGID", "NoNewPrivileges"):
        assert directives(unit, name) == ["yes"], name
    known = groups()
    allowed = allowed_calls(unit).union(*(known.get(word, {word}) for word in more))
    families = [FAMILIES[name] for name in directives(unit, "RestrictAddressFamilies")[0].split()]
    assert directives(unit, "SystemCallErrorNumber") == ["EPERM"]
    path.write_text(json.dumps({"calls": sorted(allowed), "tried": [call for call in TRIED if call not in allowed],
                                "families": families}))


# ---- the filter


def conditions(call, families):
    """When a call is allowed that is looked at more closely: one of these must hold. None: always."""
    if call in ("socket", "socketpair"):
        return [Comparison(0, EQ, family, 0) for family in families]
    if call == "mmap":  # writable or executable, not both
        return [Comparison(2, MASKED_EQ, PROT_WRITE | PROT_EXEC, prot) for prot in (0, PROT_WRITE, PROT_EXEC)]
    if call in ("mprotect", "pkey_mprotect"):
        return [Comparison(2, MASKED_EQ, PROT_EXEC, 0)]
    if call in ("chmod", "fchmod"):
        return [Comparison(1, MASKED_EQ, SUID_SGID, 0)]
    if call == "fchmodat":
        return [Comparison(2, MASKED_EQ, SUID_SGID, 0)]
    return None


def load(rules):
    library = ctypes.CDLL("libseccomp.so.2", use_errno=True)
    library.seccomp_init.restype = ctypes.c_void_p
    library.seccomp_init.argtypes = [ctypes.c_uint32]
    library.seccomp_load.argtypes = [ctypes.c_void_p]
    library.seccomp_rule_add_array.argtypes = [ctypes.c_void_p, ctypes.c_uint32, ctypes.c_int, ctypes.c_uint,
                                               ctypes.POINTER(Comparison)]
    context = library.seccomp_init(KILL_PROCESS)
    assert context, "libseccomp has no memory"
    for call in rules["calls"]:
        number = library.seccomp_syscall_resolve_name(call.encode())
        if number < 0:
            continue  # of another architecture
        held = conditions(call, rules["families"])
        for comparison in [None] if held is None else held:
            added = library.seccomp_rule_add_array(context, ALLOW, number, comparison is not None, comparison)
            assert added == 0, f"{call}: {os.strerror(-added)}"
    for call in rules["tried"]:
        number = library.seccomp_syscall_resolve_name(call.encode())
        added = library.seccomp_rule_add_array(context, ERRNO | errno.EPERM, number, 0, None)
        assert added == 0, f"{call}: {os.strerror(-added)}"
    assert ctypes.CDLL(None).prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0
    loaded = library.seccomp_load(context)
    assert loaded == 0, os.strerror(-loaded)


if __name__ == "__main__":
    with open(sys.argv[1]) as file:
        load(json.load(file))
    os.execv(sys.argv[2], sys.argv[2:])
