"""What tests ask of a script, and what it has logged. A request for sip:WORD@ runs what the script has for that word; it finds
arguments in headers X-…, and says in X-Rc what evapi's function has returned. Event routes log NEW, GOT and CLOSED."""

import re

# Each request's body is an event for all.
RELAY = """
route[TEST] {
    evapi_relay("$rb");
    sl_send_reply("200", "OK");
}
"""


def ask(phone, user, body=b"", **headers):
    return int(phone.ask("MESSAGE", user, headers={f"X-{name.title()}": value for name, value in headers.items()},
                         body=body)["X-Rc"])


def relay(phone, body):
    return ask(phone, "relay", body)


def gate(phone, value):
    """Routes wait at the gate of that number, until another one is set."""
    assert phone.ask("MESSAGE", "gate", {"X-Gate": str(value)}).code == 200


def events_of(kamailio, index):
    """What the routes of this Kamailio were run for, for one client, in order."""
    return re.findall(rf"(NEW|GOT|CLOSED) {index}\b ?([^;\n]*);", kamailio.text())
