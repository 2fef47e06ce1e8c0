"""docs/migration.md: a kamailio.cfg written for EVAPI runs with the EVAPI that Kamailio's package has, then with evapid,
then with EVAPI again, by the document's own commands; and what its clients and SIP see is the same."""

import re
import subprocess

import pytest

import commands
from client import Client
from evapid import MODULE
from kamailio import version
from process import until

DOCUMENT = "docs/migration.md"

# The manual's own examples, and what it takes to run them.
KAMAILIO = """#!KAMAILIO
debug=2
log_stderror=yes
children=2
listen=udp:127.0.0.1:PORT
disable_tcp=yes
auto_aliases=no

loadmodule "tm.so"
loadmodule "tmx.so"
loadmodule "sl.so"
loadmodule "pv.so"
loadmodule "xlog.so"
loadmodule "textops.so"
loadmodule "evapi.so"

modparam("evapi", "workers", 1)
modparam("evapi", "bind_addr", "127.0.0.1:8448")
modparam("evapi", "netstring_format", 1)
modparam("evapi", "max_clients", 4)

request_route {
    if (is_method("ACK")) exit;
    switch ($rU) {
        case "relay":
            evapi_relay("{ \\"event\\": \\"test\\",\\n \\"data\\": { \\"fU\\": \\"$fU\\" }\\n}");
            break;
        case "multicast":
            evapi_multicast("{ \\"event\\": \\"test\\",\\n \\"data\\": { \\"fU\\": \\"$fU\\" }\\n}", "tagx");
            break;
        case "unicast":
            $var(tag) = "tagx";
            evapi_unicast("{ \\"event\\": \\"test\\",\\n \\"data\\": { \\"fU\\": \\"$fU\\" }\\n}", "$var(tag)");
            break;
        case "async-relay":
            evapi_async_relay("{ \\"event\\": \\"suspend\\",\\n \\"data\\":"
                " { \\"index\\": \\"$T(id_index)\\", \\"label\\": \\"$T(id_label)\\" }\\n}");
            exit;
        case "async-multicast":
            evapi_async_multicast("{ \\"event\\": \\"suspend\\",\\n \\"data\\":"
                " { \\"index\\": \\"$T(id_index)\\", \\"label\\": \\"$T(id_label)\\" }\\n}", "tagx");
            exit;
        case "async-unicast":
            evapi_async_unicast("{ \\"event\\": \\"suspend\\",\\n \\"data\\":"
                " { \\"index\\": \\"$T(id_index)\\", \\"label\\": \\"$T(id_label)\\" }\\n}", "tagx");
            exit;
    }
    sl_send_reply("200", "OK");
}

route[RESUMED] {
    t_reply("486", "$var(reason)");
}

event_route[evapi:connection-new] {
    if ($evapi(srcaddr) != "127.0.0.1") {
        evapi_close();
        exit;
    }
    evapi_set_tag("local");
    xlog("L_NOTICE", "NEW $evapi(srcaddr):$evapi(srcport) as $evapi(conidx);\\n");
}

event_route[evapi:connection-closed] {
    xlog("L_NOTICE", "CLOSED $evapi(srcaddr):$evapi(srcport);\\n");
}

event_route[evapi:message-received] {
    $var(order) = $(evapi(msg){s.select,0,:});
    switch ($var(order)) {
        case "tag":
            evapi_set_tag("$(evapi(msg){s.select,1,:})");
            break;
        case "close":
            evapi_close();
            break;
        case "resume":
            $var(index) = $(evapi(msg){s.select,1,:}{s.int});
            $var(label) = $(evapi(msg){s.select,2,:}{s.int});
            $var(reason) = $(evapi(msg){s.select,3,:});
            t_continue("$var(index)", "$var(label)", "RESUMED");
            break;
        default:
            evapi_relay("got [$evapi(msg)] from $evapi(srcaddr):$evapi(srcport)");
    }
}
"""


class File:
    """A kamailio.cfg that is there already; for Kamailio, what a Config is."""

    evapi = {}

    def __init__(self, path):
        self.path = path

    def write(self, folder, name, port):
        return self.path


@pytest.fixture
def moving(stage):
    """A Kamailio with EVAPI that somebody wants to move."""
    stage.path = stage.folder / "kamailio.cfg"
    text = KAMAILIO.replace("PORT", str(stage.sip_port)).replace("127.0.0.1:8448", stage.address)
    stage.path.write_text(text)
    return stage


def run(stage, name):
    """A block of the document, about this Kamailio."""
    return commands.run(stage, DOCUMENT, name, more=[("/etc/kamailio/kamailio.cfg", stage.path)])


def connected(stage):
    """A client whose connection-new route has run, whoever listens."""
    client = None

    def there():
        nonlocal client
        try:
            client = Client(stage.address)
        except ConnectionRefusedError:
            return False
        return True
    until(there, "somebody listens")
    stage.connections.append(client)
    line = stage.kamailio.logged(f"NEW 127.0.0.1:{client.port} as")[0]
    client.index = int(re.search(r"as (\d+);", line)[1])
    return client


def story(stage):
    """All that two clients and a phone see: of relay, tags, messages, async calls and close. Besides, how often
    connection-closed ran for the client that the script has closed, and whether the next client got an index anew."""
    first, second, phone, seen = connected(stage), connected(stage), stage.phone(), []

    def see(what, *clients):
        events = [client.receive() for client in clients]
        seen.append((what, [re.sub(rb"(?<=127.0.0.1:)\d+$", b"PORT", event) for event in events]))
    first.send(b"a message")
    see("a message", first, second)
    assert phone.ask("MESSAGE", "relay", caller="alice").code == 200
    see("relay", first, second)
    first.send(b"tag:tagx")
    second.send(b"a message")
    see("the tag is set", first, second)
    for user in ("multicast", "unicast"):
        assert phone.ask("MESSAGE", user, caller="alice").code == 200
        see(user, first)
    for user, clients in (("async-relay", (first, second)), ("async-multicast", (first,)), ("async-unicast", (first,))):
        call = phone.start("INVITE", user)
        events = [client.receive() for client in clients]
        assert len(set(events)) == 1
        index, label = (events[0].split(b'"%s": "' % name)[1].split(b'"')[0] for name in (b"index", b"label"))
        first.send(b"resume:%s:%s:Later" % (index, label))
        answer = phone.finish(call)
        seen.append((user, events[0].replace(b'"%s"' % index, b"I").replace(b'"%s"' % label, b"L"), answer.code, answer.reason))
    first.send(b"close")
    seen.append(("closed", first.receive_rest()))
    second.close()
    stage.kamailio.logged(f"CLOSED 127.0.0.1:{second.port};")
    closed = len(stage.kamailio.lines(f"CLOSED 127.0.0.1:{first.port};"))
    third = connected(stage)
    third.close()
    stage.kamailio.logged(f"CLOSED 127.0.0.1:{third.port};")
    return seen, closed, third.index in (first.index, second.index)


def test_a_kamailio_moves_to_evapid_and_back_by_the_document_s_commands(moving):
    original = moving.path.read_text()
    # Without workers: those of EVAPI 6.0 run the route of a message where its connection isn't, and close nothing of it.
    for_evapi = original.replace('"workers", 1', '"workers", 0')
    moving.path.write_text(for_evapi)
    moving.run_kamailio(File(moving.path), attach=False)
    seen, closed, same_index = story(moving)
    moving.path.write_text(original)
    assert closed == 0, "EVAPI does not run connection-closed for those that the script closes"
    assert same_index, "EVAPI uses indexes again"
    run(moving, "switch")
    assert moving.path.read_text() != original
    run(moving, "check")
    assert moving.kamailio.terminate() == 0
    moving.start_evapid()
    moving.run_kamailio(File(moving.path))
    assert "attached" in run(moving, "look").stdout
    assert story(moving) == (seen, 1, False)
    run(moving, "go back")
    assert moving.path.read_text() == original
    assert moving.kamailio.terminate() == 0
    assert moving.evapid.terminate() == 0
    moving.path.write_text(for_evapi)
    moving.run_kamailio(File(moving.path), attach=False)
    assert story(moving) == (seen, 0, True)


# How published configurations load the module.
WAYS = ['loadmodule "evapi.so"', 'loadmodule "evapi"', '  loadmodule "evapi.so"', '\tloadmodule\t"evapi.so"', "loadmodule 'evapi.so'",
        'loadmodule "evapi.so" # events', 'loadmodule "evapi.so";', 'loadmodule"evapi.so"', 'loadmodule "FOLDER/evapi.so"']


@pytest.mark.parametrize("way", WAYS)
def test_the_switch_finds_the_module_however_it_is_loaded(moving, way):
    """What is commented out stays, and each of several lines is changed."""
    folder = subprocess.run(["dpkg-query", "-L", "kamailio-extra-modules"], capture_output=True, text=True, check=True).stdout
    folder = next(line for line in folder.splitlines() if line.endswith("/evapi.so")).rsplit("/", 1)[0]
    text = moving.path.read_text()
    lines = f'#{way}\n// {way}\n{way}\n#!ifdef OTHER\n{way}\n#!endif\n'.replace("FOLDER", folder)
    moving.path.write_text(text.replace('loadmodule "evapi.so"\n', lines))
    run(moving, "check")
    shown = run(moving, "switch").stdout
    changed = moving.path.read_text()
    assert changed.count(f'loadmodule "{MODULE}"') == shown.count(str(MODULE)) == 2
    assert changed.count(f'modparam("evapi", "socket", "{moving.folder}/kamailio.sock")') == 2
    assert [line for line in changed.splitlines() if line.startswith(("#l", "# ", "#\t", "//"))] == [
        line for line in lines.splitlines() if line.startswith(("#l", "# ", "#\t", "//"))]
    run(moving, "check")
    run(moving, "go back")
    assert moving.path.read_text().count(str(MODULE)) == 0


def test_the_switch_says_that_it_has_found_nothing(moving):
    text = moving.path.read_text().replace('loadmodule "evapi.so"', 'include_file "other.cfg"')
    moving.path.write_text(text)
    with pytest.raises(AssertionError, match="does not load evapi. Look in the files that it includes"):
        run(moving, "switch")
    assert moving.path.read_text() == text


def test_a_call_that_nobody_can_answer_is_refused_at_once_where_evapi_suspends_it(moving):
    """With EVAPI it ends by a timer of tm, here after a moment; with evapid the timer is longer than the test waits."""
    text = moving.path.read_text()
    script = text[:text.index("request_route {")] + """
        modparam("tm", "fr_timer", TIMER)
        request_route {
            if (is_method("OPTIONS")) { sl_send_reply("200", "Ready"); exit; }
            if (is_method("ACK")) exit;
            if (evapi_async_relay("event")) exit;
            t_reply("480", "Nobody Answers");
        }
        """
    moving.path.write_text(script.replace("TIMER", "500"))
    moving.run_kamailio(File(moving.path), attach=False)
    assert moving.phone().ask("INVITE").code == 408
    assert moving.kamailio.terminate() == 0
    moving.path.write_text(script.replace("TIMER", "120000"))
    run(moving, "switch")
    moving.start_evapid()
    moving.run_kamailio(File(moving.path))
    assert moving.phone().ask("INVITE").reason == "Nobody Answers"


def test_four_workers_run_routes_in_four_processes_where_evapi_has_one_for_all(moving):
    """Whatever `workers` says there, each route sees what the one before it has done. EVAPI of Kamailio 6 has workers for messages,
    any of which takes the next one."""
    text = moving.path.read_text().replace('"workers", 1', '"workers", 4')
    moving.path.write_text(text.replace("default:", 'default: xlog("L_NOTICE", "RAN in $pp;\\n");'))

    def processes():
        for client in [connected(moving) for _ in range(4)]:
            client.send(b"word")
        return len(set(re.findall(r"RAN in (\d+);", "\n".join(moving.kamailio.logged("RAN in", 4)))))
    moving.run_kamailio(File(moving.path), attach=False)
    assert processes() in ({1} if version() < (6,) else {1, 2, 3, 4})
    assert moving.kamailio.terminate() == 0
    run(moving, "switch")
    moving.start_evapid()
    moving.run_kamailio(File(moving.path), attach=False)
    moving.evapid.attached(moving.kamailio.pid, 4)
    assert processes() == 4
