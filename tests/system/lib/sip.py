"""SIP over UDP, as much as it takes to ask Kamailio something and to answer it (RFC 3261).

A Phone sends requests and gathers their answers: it retransmits as timers A and E say, and acknowledges the final answer
to an INVITE. A Callee answers every request with one code."""

import itertools
import re
import select
import socket
import threading
import time
import uuid

from process import DEADLINE_S

# RFC 3261, 17.1.1.1, has 0.5 s for the first retransmission, which doubles up to T2. The loopback loses next to nothing,
# and on a busy machine a retransmission would make a stateless script raise its event twice.
T1_S = 10.0
T2_S = 10.0
BRANCH = re.compile(rb"branch=([^;,\s]+)")


class Answer:
    """A SIP message, taken apart. Headers have lower-case names and their first value."""

    def __init__(self, bytes_):
        head, _, self.body = bytes_.partition(b"\r\n\r\n")
        first, *lines = head.decode(errors="surrogateescape").split("\r\n")
        self.first = first
        words = first.split(" ", 2)
        self.code = int(words[1]) if words[0].startswith("SIP/") else 0
        self.reason = words[2] if len(words) > 2 else ""
        self.all = [tuple(line.split(":", 1)) for line in lines if ":" in line]
        self.headers = {}
        for name, value in self.all:
            self.headers.setdefault(name.strip().lower(), value.strip())

    def __getitem__(self, name):
        assert name.lower() in self.headers, f"no {name} in the answer {self.first}: {self.headers}"
        return self.headers[name.lower()]

    def __repr__(self):
        return f"<{self.first}>"


def new_branch(via):
    return re.sub(r"branch=[^;,\s]+", "branch=z9hG4bK" + uuid.uuid4().hex, via)


def route_set(answer):
    """The Route headers of a dialog, as who called has them (RFC 3261, 12.1.2)."""
    recorded = [value.strip() for name, value in answer.all if name.strip().lower() == "record-route"]
    return [f"Route: {value}" for value in reversed(recorded)]


class Transaction:
    """One request and what came back. answers holds provisional ones too; cancelled, the answers to its CANCEL."""

    def __init__(self, method, branch, call_id, bytes_, headers):
        self.method, self.branch, self.call_id, self.bytes, self.headers = method, branch, call_id, bytes_, headers
        self.answers, self.cancelled = [], []
        self.pause_s = T1_S
        self.next_s = time.monotonic() + T1_S

    @property
    def finals(self):
        return [answer for answer in self.answers if answer.code >= 200]

    @property
    def final(self):
        return next(iter(self.finals), None)

    def rests(self):
        """Is there nothing to send again? An INVITE rests as soon as anything was answered."""
        return self.final is not None or (self.method == "INVITE" and bool(self.answers))


class Phone:
    """A user agent client for one Kamailio, without registration."""

    def __init__(self, port, host="127.0.0.1"):
        self.target = (host, port)
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
        self.socket.bind((host, 0))
        self.socket.setblocking(False)
        self.here = "%s:%d" % self.socket.getsockname()
        self.transactions = {}
        self.numbers = itertools.count(1)

    def start(self, method, user="test", headers=None, body=b"", call_id=None, caller="test"):
        """Send a request and return its transaction, without waiting."""
        branch = "z9hG4bK" + uuid.uuid4().hex
        call_id = call_id or uuid.uuid4().hex
        head = [f"{method} sip:{user}@{self.target[0]}:{self.target[1]} SIP/2.0",
                f"Via: SIP/2.0/UDP {self.here};rport;branch={branch}",
                f"From: <sip:{caller}@{self.here}>;tag={uuid.uuid4().hex[:8]}",
                f"To: <sip:{user}@{self.target[0]}>", f"Call-ID: {call_id}", f"CSeq: {next(self.numbers)} {method}",
                f"Contact: <sip:{self.here}>", "Max-Forwards: 70"]
        head += [f"{name}: {value}" for name, value in (headers or {}).items()]
        if body:
            head.append("Content-Type: text/plain")
        head.append(f"Content-Length: {len(body)}")
        bytes_ = "\r\n".join(head).encode(errors="surrogateescape") + b"\r\n\r\n" + body
        transaction = Transaction(method, branch.encode(), call_id, bytes_, head)
        self.transactions[transaction.branch] = transaction
        self.send(transaction)
        return transaction

    def send(self, transaction):
        try:
            self.socket.sendto(transaction.bytes, self.target)
        except (BlockingIOError, ConnectionRefusedError):
            pass  # as lost as a datagram can be: it is sent again

    def finish(self, transaction):
        """Wait for the final answer."""
        return self.finish_all([transaction])[0]

    def finish_all(self, transactions):
        """Wait until each has its final answer; return those."""
        end = time.monotonic() + DEADLINE_S
        while any(transaction.final is None for transaction in transactions):
            open_ = [transaction for transaction in transactions if transaction.final is None]
            assert time.monotonic() < end, f"{len(open_)} of {len(transactions)} not answered: {open_[0].headers[0]}"
            self.turn()
        return [transaction.final for transaction in transactions]

    def turn(self, wait_s=0.05):
        """Take in what has come, and send again what is due."""
        if select.select([self.socket], [], [], wait_s)[0]:
            self.read()
        now = time.monotonic()
        for transaction in self.transactions.values():
            if not transaction.rests() and transaction.next_s <= now:
                transaction.pause_s = min(2 * transaction.pause_s, T2_S)
                transaction.next_s = now + transaction.pause_s
                self.send(transaction)

    def read(self):
        while True:
            try:
                bytes_ = self.socket.recv(65536)
            except BlockingIOError:
                return
            except ConnectionRefusedError:
                continue
            branch = BRANCH.search(bytes_)
            transaction = self.transactions.get(branch.group(1)) if branch else None
            if transaction is None:
                continue
            answer = Answer(bytes_)
            if not answer["CSeq"].endswith(transaction.method):
                transaction.cancelled.append(answer)
                continue
            transaction.answers.append(answer)
            if transaction.method == "INVITE" and answer.code >= 200:
                self.acknowledge(transaction, answer)

    def acknowledge(self, transaction, answer):
        """RFC 3261, 17.1.1.3: ACK of a final answer; that of a 2xx is a request of its own, on a new branch."""
        request = Answer(transaction.bytes)
        via, routes = request["Via"], []
        if answer.code < 300:
            via, routes = new_branch(via), route_set(answer)
        target = request.first.split(" ")[1]
        lines = [f"ACK {target} SIP/2.0", f"Via: {via}", f"From: {request['From']}", f"To: {answer['To']}",
                 f"Call-ID: {request['Call-ID']}", f"CSeq: {request['CSeq'].split()[0]} ACK", "Max-Forwards: 70", *routes,
                 "Content-Length: 0"]
        self.socket.sendto("\r\n".join(lines).encode(errors="surrogateescape") + b"\r\n\r\n", self.target)

    def cancel(self, call):
        """CANCEL of an INVITE that has been answered provisionally (RFC 3261, 9.1); its answer is not waited for."""
        request = Answer(call.bytes)
        lines = [request.first.replace("INVITE", "CANCEL", 1), f"Via: {request['Via']}", f"From: {request['From']}",
                 f"To: {request['To']}", f"Call-ID: {request['Call-ID']}", f"CSeq: {request['CSeq'].split()[0]} CANCEL",
                 "Max-Forwards: 70", "Content-Length: 0"]
        self.socket.sendto("\r\n".join(lines).encode(errors="surrogateescape") + b"\r\n\r\n", self.target)

    def hang_up(self, call):
        """BYE in the dialog of an INVITE that was answered with 2xx (RFC 3261, 12.2.1.1); returns its final answer."""
        request, answer = Answer(call.bytes), call.final
        target = answer["Contact"].strip("<>")
        via = new_branch(request["Via"])
        lines = [f"BYE {target} SIP/2.0", f"Via: {via}", f"From: {request['From']}", f"To: {answer['To']}",
                 f"Call-ID: {request['Call-ID']}", f"CSeq: {next(self.numbers)} BYE", "Max-Forwards: 70",
                 *route_set(answer), "Content-Length: 0"]
        bye = Transaction("BYE", BRANCH.search(via.encode()).group(1), call.call_id,
                          "\r\n".join(lines).encode(errors="surrogateescape") + b"\r\n\r\n", lines)
        self.transactions[bye.branch] = bye
        self.send(bye)
        return self.finish(bye)

    def ask(self, method, user="test", headers=None, body=b"", **more):
        """Send a request and return its final answer."""
        return self.finish(self.start(method, user, headers, body, **more))

    def close(self):
        self.socket.close()


class Callee:
    """A user agent server in a thread: answers every request but ACK with one code, and a BYE with 200."""

    def __init__(self, code, reason):
        self.status = f"{code} {reason}"
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.bind(("127.0.0.1", 0))
        self.port = self.socket.getsockname()[1]
        self.requests = []
        self.thread = threading.Thread(target=self._serve, daemon=True)
        self.thread.start()

    def _serve(self):
        seen = set()  # what comes again was sent again
        while True:
            bytes_, caller = self.socket.recvfrom(65536)
            if not bytes_:
                return
            request = Answer(bytes_)
            if (request.first, request["Via"]) not in seen:
                seen.add((request.first, request["Via"]))
                self.requests.append(request.first)
            if request.first.startswith("ACK "):
                continue
            lines = ["SIP/2.0 200 OK" if request.first.startswith("BYE ") else f"SIP/2.0 {self.status}"]
            for name, value in request.all:
                if name.strip().lower() in ("via", "from", "call-id", "cseq", "record-route"):
                    lines.append(f"{name}:{value}")
                elif name.strip().lower() == "to":
                    lines.append(f"{name}:{value};tag=callee")
            lines.append(f"Contact: <sip:127.0.0.1:{self.port}>")
            answer = "\r\n".join(lines) + "\r\nContent-Length: 0\r\n\r\n"
            self.socket.sendto(answer.encode(errors="surrogateescape"), caller)

    def close(self):
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as waker:
            waker.sendto(b"", ("127.0.0.1", self.port))
        self.thread.join(DEADLINE_S)
        self.socket.close()
