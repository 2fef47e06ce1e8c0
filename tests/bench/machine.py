"""What the figures were measured on, for a reader who wants to know how far they apply."""

import os
import re
import subprocess
from pathlib import Path

PACKAGES = ["kamailio", "redis-server", "nats-server", "sip-tester", "gcc"]


def said(*command):
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return ""


def field(path, pattern):
    found = re.search(pattern, Path(path).read_text(), re.MULTILINE)
    return found[1] if found else "unknown"


def machine(evapid):
    """Names and values, in the order in which they are to be shown. evapid: the program."""
    system = os.uname()
    model = field("/proc/cpuinfo", r"^model name\s*:\s*(.*)")
    release = re.match(r"[0-9.]+", system.release)[0]
    virtual = " (virtual)" if re.search(r"^flags\s*:.*\bhypervisor\b", Path("/proc/cpuinfo").read_text(), re.M) else ""
    kib = int(field("/proc/meminfo", r"^MemTotal:\s+(\d+)"))
    found = {
        "processor": f"{model}, {os.cpu_count()} cores{virtual}",
        "memory": f"{kib / (1 << 20):.0f} GiB",
        "kernel": f"{system.sysname} {release} {system.machine}",
        "distribution": field("/etc/os-release", r'^PRETTY_NAME="?([^"\n]*)'),
        "evapid": said(str(evapid), "--version").split("\n")[0],
    }
    for package in PACKAGES:
        found[package] = said("dpkg-query", "-W", "-f", "${Version}", package) or "not installed"
    return found
