"""A connection to evapid's control socket, as a program that isn't evapictl has it; and a stage that such tests share."""

import json
import socket

import pytest

from process import DEADLINE_S

ROUTES = """
route[TEST] {
    if ($rm == "INFO") { evapi_multicast("$rb", "blue"); }
    else if ($rU == "many") {
        $var(i) = 0;
        while ($var(i) < 3000) { evapi_relay("$var(i)"); $var(i) = $var(i) + 1; }
    }
    else { evapi_relay("$rb"); }
    sl_send_reply("200", "OK");
}
event_route[evapi:message-received] { if ($(evapi(msg){s.len}) < 20) evapi_set_tag("$evapi(msg)"); }
event_route[evapi:connection-closed] { xlog("L_NOTICE", "closed $evapi(conidx)\\n"); }
"""


class Control:
    """Lines of JSON both ways, with a deadline on everything. receive_buffer: bytes of SO_RCVBUF, to stall early."""

    def __init__(self, path, receive_buffer=None):
        self.socket = socket.socket(socket.AF_UNIX)
        if receive_buffer is not None:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self.socket.settimeout(DEADLINE_S)
        self.socket.connect(str(path))
        self.lines = self.socket.makefile("rb")

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.close()

    def send(self, bytes_):
        self.socket.sendall(bytes_)

    def line(self):
        """The next line; None at the end of the stream."""
        line = self.lines.readline()
        assert not line or line.endswith(b"\n"), f"cut off: {line[:200]!r}"
        return json.loads(line) if line else None

    def ask(self, **request):
        self.send(json.dumps(request).encode() + b"\n")
        return self.line()

    def end(self):
        """Say that nothing more comes."""
        self.socket.shutdown(socket.SHUT_WR)

    def rest(self):
        """All lines until the end."""
        return [json.loads(line) for line in self.lines]

    def close(self):
        self.lines.close()
        self.socket.close()


@pytest.fixture(scope="module")
def stage(shared_stage):
    shared_stage.start_evapid(log={"level": "info"})
    shared_stage.start_kamailio(ROUTES)
    return shared_stage


def tagged(stage, tag, **more):
    """A client that carries the tag."""
    client = stage.connect(**more)
    client.send(tag)
    stage.evapid.until_status(
        lambda s: any(e["index"] == client.index and e["tag"] == tag.decode() and e["in"]["waiting"] == 0
                      for e in s["clients"]), "the tag is set, and the route has ended")
    return client
