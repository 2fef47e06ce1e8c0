"""The way of working that EVAPI's published tutorial describes. The script makes the transaction, sends its numbers in an async
event and exits, without a look at what the call returned. An application that connects, and connects again whenever it is
disconnected, answers with those numbers and what shall be done; the script resumes the call by them. Everybody restarts."""

import threading
import time

import pytest

from client import Client
from exchange import Exchange
from process import until

ROUTES = """
route[TEST] {
    if (is_method("CANCEL")) {
        if (t_check_trans()) t_relay();
        exit;
    }
    if ($hdr(X-Fr) != $null) t_set_fr(0, $(hdr(X-Fr){s.int}));
    if ($hdr(X-Route) != $null) t_on_failure("UNANSWERED");
    t_newtran();
    evapi_async_relay("{ \\"event\\": \\"call\\", \\"caller\\": \\"$fU\\", \\"callee\\": \\"$rU\\", \\"id\\": \\"$T(id_index):$T(id_label)\\" }");
    exit;
}
failure_route[UNANSWERED] { t_reply("480", "Nobody knows"); }
event_route[evapi:connection-new] {
    if ($evapi(srcaddr) != "127.0.0.1") {
        evapi_close();
        exit;
    }
    xlog("L_NOTICE", "new connection from $evapi(srcaddr):$evapi(srcport)\\n");
}
event_route[evapi:connection-closed] { xlog("L_NOTICE", "connection closed by $evapi(srcaddr):$evapi(srcport)\\n"); }
event_route[evapi:message-received] {
    $var(index) = $(evapi(msg){s.select,0,:}{s.int});
    $var(label) = $(evapi(msg){s.select,1,:}{s.int});
    $var(to) = $(evapi(msg){s.select,2,:});
    t_continue("$var(index)", "$var(label)", "RESUMED");
}
route[RESUMED] {
    if ($var(to) == "nowhere") {
        t_reply("404", "The application says so");
        exit;
    }
    $du = "sip:127.0.0.1:" + $var(to);
    t_relay();
    exit;
}
"""


class Application(threading.Thread):
    """Answers each call with the port of a callee. What disconnects it makes it connect anew, until close()."""

    def __init__(self, address, answers=True):
        super().__init__(daemon=True)
        self.address, self.answers = address, answers
        self.client, self.over, self.asked, self.callee = None, False, [], b"nowhere"
        self.start()

    def run(self):
        while not self.over:
            try:
                self.client = Client(self.address)
                self.serve(self.client)
            except OSError:
                time.sleep(0.05)

    def serve(self, client):
        client.socket.settimeout(0.05)
        while not self.over and not client.eof:
            try:
                event = client.receive()
            except AssertionError:
                continue  # nothing yet, or the end
            self.asked.append(event)
            if self.answers:
                client.send(event.split(b'"id": "')[1].split(b'"')[0] + b":" + self.callee)
        client.close()

    def connected(self, stage):
        """Wait until the application is let in."""
        until(lambda: self.client is not None and not self.client.eof and stage.evapid.client(self.client),
              "the application is connected")

    def close(self):
        self.over = True
        self.join()


class Tutorial(Exchange):
    application = None

    def open(self):
        super().open(routes=ROUTES, children=4)
        return self.application_comes()

    def application_comes(self, **how):
        self.application = self._keep(Application(self.address, **how))
        self.application.connected(self)
        return self

    def application_goes(self):
        self.connections.remove(self.application)
        self.application.close()
        self.evapid.clients(0)

    def calls_work(self):
        """One that the application refuses, and one that it has relayed to somebody who is busy."""
        self.application.connected(self)
        self.application.callee = b"nowhere"
        assert self.phone().ask("INVITE", "bob", caller="alice").reason == "The application says so"
        self.application.callee = b"%d" % self.callee(486, "I am busy").port
        assert self.phone().ask("INVITE", "bob", caller="alice").reason == "I am busy"
        self.no_transaction_is_left()

    def calls_end_by_the_timer(self):
        assert self.phone().ask("INVITE", "bob", {"X-Fr": 300}).code == 408
        assert self.phone().ask("INVITE", "bob", {"X-Fr": 300, "X-Route": "armed"}).reason == "Nobody knows"
        phone = self.phone()
        call = phone.start("INVITE", "bob")
        until(lambda: phone.turn() or call.answers, "the caller hears that the call is worked on")
        phone.cancel(call)
        assert phone.finish(call).code == 487
        self.no_transaction_is_left()


@pytest.fixture
def tutorial():
    with Tutorial() as own:
        own.open().calls_work()
        yield own
        own.calls_work()


def test_the_application_is_down_and_comes_again(tutorial):
    tutorial.application_goes()
    tutorial.calls_end_by_the_timer()
    tutorial.application_comes()


def test_the_application_goes_before_it_has_answered(tutorial):
    tutorial.application_goes()
    tutorial.application_comes(answers=False)
    phone = tutorial.phone()
    call = phone.start("INVITE", "bob", {"X-Fr": 3000, "X-Route": "armed"})
    until(lambda: phone.turn(0.01) or tutorial.application.asked, "the application is asked")
    tutorial.application_goes()
    assert phone.finish(call).reason == "Nobody knows"
    tutorial.application_comes()


def test_the_application_restarts_and_answers_what_it_was_asked_before(tutorial):
    """It has written down the numbers; the call waits for them."""
    tutorial.application_goes()
    tutorial.application_comes(answers=False)
    phone = tutorial.phone()
    call = phone.start("INVITE", "bob")
    event = until(lambda: phone.turn(0.01) or tutorial.application.asked, "the application is asked")[0]
    tutorial.application_goes()
    tutorial.application_comes()
    tutorial.application.client.send(event.split(b'"id": "')[1].split(b'"')[0] + b":nowhere")
    assert phone.finish(call).reason == "The application says so"


@pytest.mark.parametrize("how", ["terminate", "kill"])
def test_kamailio_restarts(tutorial, how):
    client = tutorial.application.client
    getattr(tutorial.kamailio, how)()
    tutorial.evapid.detached()
    tutorial.restart_kamailio()
    tutorial.kamailio.logged(f"new connection from 127.0.0.1:{client.port}")
    assert tutorial.application.client is client, "its connection has stayed"


@pytest.mark.parametrize("how", ["terminate", "kill"])
def test_evapid_restarts(tutorial, how):
    getattr(tutorial.evapid, how)()
    tutorial.kamailio.logged("lost evapid")
    tutorial.calls_end_by_the_timer()
    tutorial.restart_evapid().attached(tutorial.kamailio.pid)


def test_everything_restarts(tutorial):
    tutorial.application_goes()
    tutorial.kamailio.terminate()
    tutorial.evapid.terminate()
    tutorial.restart_evapid()
    tutorial.restart_kamailio()
    tutorial.calls_end_by_the_timer()
    tutorial.application_comes()
