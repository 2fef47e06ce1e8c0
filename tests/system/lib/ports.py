"""Ports of the loopback that nobody else gets while a test uses them.

Each port is held by a socket that is bound to it and takes nothing: with SO_REUSEADDR the program under test may bind it
too, while the kernel gives it to no one who asks for any free port, in whichever test run. So parallel runs don't meet."""

import socket


class Ports:
    def __init__(self):
        self.holders = []

    def tcp(self, host="127.0.0.1"):
        """A TCP port. A connection to it is refused until somebody listens there."""
        holder = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM)
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        holder.bind((host, 0))
        self.holders.append(holder)
        return holder.getsockname()[1]

    def udp(self, host="127.0.0.1"):
        """A UDP port. The holder is connected to a port that never sends, so that no datagram comes to it."""
        holder = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        holder.bind((host, 0))
        holder.connect((host, 9))
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.holders.append(holder)
        return holder.getsockname()[1]

    def close(self):
        for holder in self.holders:
            holder.close()
        self.holders.clear()
