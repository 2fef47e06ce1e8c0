"""The status page, in a real browser: what it shows, what it survives, and what it does not let happen."""

import json

import pytest

from browser import BROWSER_S, Browser
from process import until
from scrape import Answer, ask, exchange

ROUTES = """
route[TEST] {
    evapi_relay("$rb");
    sl_send_reply("200", "OK");
}
event_route[evapi:connection-new] { evapi_set_tag("blue"); }
event_route[evapi:message-received] { evapi_set_tag("$evapi(msg)"); }
"""

pytestmark = pytest.mark.once


@pytest.fixture
def house(stage):
    stage.http = stage.new_address()
    stage.start_evapid(http={"address": stage.http, "tail": True})
    stage.start_kamailio(ROUTES)
    return stage


def look(stage, **size):
    browser = Browser(stage.folder, **size)
    stage.processes.append(browser)
    browser.open(f"http://{stage.http}/")
    until(lambda: browser.evaluate("!document.getElementById('passing').hidden"), "the page has asked for all that it shows", BROWSER_S)
    return browser


def until_shown(browser, selector, *texts):
    def seen():
        shown = browser.shown(selector)
        assert all(text in shown for text in texts), shown
        return True
    until(seen, f"{selector} shows {texts}", BROWSER_S)


def test_the_page_shows_what_is_so(house):
    client = house.connect()
    until(lambda: house.evapid.status()["clients"][0]["tag"] == "blue", "the client has its tag")
    browser = look(house)
    until_shown(browser, "#ready", "ready")
    until_shown(browser, "#kamailio", "attached", str(house.evapid.status()["kamailio"]["pid"]))
    until_shown(browser, "#clients", "blue", "open")
    until_shown(browser, "#tags", "blue")
    until_shown(browser, "#listeners", "listening", "netstring")
    assert house.phone().ask("MESSAGE", "all", body=b"hello page").code == 200
    assert client.receive() == b"hello page"
    until_shown(browser, "#events", "relay", "1 receiver:", "hello page")
    assert house.evapid.ask(command="send", client=client.index, event="hello client")["published"]["received"] == 1
    assert client.receive() == b"hello client"
    until_shown(browser, "#events", f"send to client {client.index}, 1 receiver:", "hello client")
    until_shown(browser, "#books", "1 relay, 0 multicast, 0 unicast, 1 send", "2 = 2 delivered")
    assert "kept" not in browser.shown("#books")
    house.evapid.reload(limits={"keep_absent_ms": 3600 * 1000})
    client.close()
    house.evapid.until_status(lambda s: s["kept"]["tags"] == 1, "its tag is kept")
    assert house.phone().ask("MESSAGE", "all", body=b"for later").code == 200
    until_shown(browser, "#tags", "blue", "UTC", "1 (12 B)")
    until_shown(browser, "#books", "1: 1 events (12 B) wait for their next clients")
    assert browser.complaints == []


def test_the_page_says_who_is_gone_and_goes_on_when_they_are_back(house):
    browser = look(house)
    house.kamailio.terminate()
    until_shown(browser, "#alert", "No Kamailio is attached")
    until_shown(browser, "#kamailio", "NOT attached")
    house.evapid.terminate()
    until_shown(browser, "#alert", "does not answer")
    house.start_evapid(**house.evapid.settings)
    until_shown(browser, "#alert", "No Kamailio is attached")
    house.start_kamailio(ROUTES)
    until(lambda: browser.shown("#alert") == "", "the page has nothing to complain of", BROWSER_S)
    until_shown(browser, "#ready", "ready")


def test_a_tag_is_text_in_the_page(house):
    tag = "<img src=x onerror=document.title=1><script>top.x=1</script>"
    client = house.connect()
    browser = look(house)
    client.send(tag.encode())
    until_shown(browser, "#clients", tag)
    until_shown(browser, "#tags", tag)
    until_shown(browser, "#events", tag)
    assert browser.evaluate("document.title") == "evapid"
    assert browser.evaluate("document.querySelectorAll('img, script').length") == 1


def test_clients_are_filtered_and_sorted(house):
    one = house.connect()
    two = house.connect()
    one.send(b"red")
    until(lambda: {client["tag"] for client in house.evapid.status()["clients"]} == {"red", "blue"}, "one is red")
    browser = look(house)
    until_shown(browser, "#clients", "red", "blue")
    browser.press("/")
    assert browser.evaluate("document.activeElement.id") == "tag"
    for key in "red":
        browser.press(key)
    until(lambda: "blue" not in browser.shown("#clients") and "red" in browser.shown("#clients"), "only red is shown", BROWSER_S)
    assert browser.shown("#matching") == "1 of 2"
    browser.evaluate("document.getElementById('address').value = 'nowhere'; askClients()")
    until_shown(browser, "#clients-error", "address: not an")
    browser.evaluate("document.getElementById('filter').reset(); askClients()")
    until_shown(browser, "#clients", "red", "blue")
    browser.evaluate("[...document.querySelectorAll('#columns button')].find(b => b.textContent === 'tag').click()")
    until(lambda: browser.evaluate("[...document.querySelectorAll('#clients tr')].map(r => r.cells[2].textContent)") ==
          ["blue", "red"], "they are sorted by tag", BROWSER_S)


def test_the_page_fits_a_small_screen(house):
    house.connect()
    browser = look(house, width=360, height=740)
    until_shown(browser, "#clients", "open")
    assert browser.evaluate("document.documentElement.scrollWidth") <= 360


# ---- without a browser


def test_what_is_not_configured_is_not_there(stage):
    http, stage.http = stage.new_address(), stage.new_address()
    stage.start_evapid(metrics={"address": http})
    for path in ("/", "/status.json", "/clients.json", "/tags.json", "/tail.json"):
        assert ask(http, path).status == 404, path
    assert b"http.page" in ask(http, "/").body
    assert ask(http).status == 200
    stage.evapid.settings["http"] = {"address": http}
    del stage.evapid.settings["metrics"]
    stage.evapid.reload()
    assert ask(http, "/", more="").status == 421  # a loopback address, and the Host is a name
    assert local(http, "/").status == 200
    assert local(http, "/tail.json").status == 404
    stage.evapid.settings["http"] = {"address": http, "page": False, "tail": True}
    stage.evapid.reload()
    assert local(http, "/").status == 404
    assert local(http, "/tail.json").status == 404


def local(address, path):
    """Ask as a browser does that was given the address itself."""
    return Answer(exchange(address, f"GET {path} HTTP/1.1\r\nHost: {address}\r\n\r\n".encode()))


def test_another_site_can_not_have_a_browser_read_the_page(stage):
    http = stage.new_address()
    stage.start_evapid(http={"address": http})
    for path in ("/", "/status.json", "/clients.json", "/tags.json"):
        assert ask(http, path).status == 421, path
        assert local(http, path).status == 200, path
    policy = local(http, "/").headers["content-security-policy"]
    assert "default-src 'none'" in policy and "frame-ancestors 'none'" in policy and "unsafe" not in policy
    assert ask(http).status == ask(http, "/healthz").status == 200  # Prometheus asks by any name


@pytest.mark.parametrize("path, why", [
    ("/clients.json?limit=501", "limit must be"), ("/clients.json?limit=-1", "limit must be"), ("/clients.json?limit=", "limit must be"),
    ("/clients.json?sort=size", "sort must be one of"), ("/clients.json?state=up", "state must be one of"),
    ("/clients.json?address=nowhere", "address: not an"),
    ("/clients.json?idle=-1", "idle must be"), ("/tags.json?limit=x", "limit must be"), ("/tail.json?from=1x", "from must be")])
def test_a_wrong_parameter_gets_the_reason(house, path, why):
    answer = local(house.http, path)
    assert answer.status == 400 and answer.text().startswith(why)


def test_the_json_is_that_of_the_status(house):
    house.connect()
    until(lambda: house.evapid.status()["clients"][0]["tag"] == "blue", "the client has its tag")
    status, shown = house.evapid.status(), json.loads(local(house.http, "/status.json").body)
    assert {key: shown[key] for key in ("pid", "session", "kamailio", "listeners", "totals")} == \
        {key: status[key] for key in ("pid", "session", "kamailio", "listeners", "totals")}
    assert shown["ready"] and shown["not_ready"] is None and "clients" not in shown
    assert json.loads(local(house.http, "/clients.json").body) == {"clients": status["clients"], "matching": 1, "total": 1}
    assert json.loads(local(house.http, "/tags.json").body) == {
        "tags": [{"tag": "blue", "clients": 1, "receivers": 1, "kept": None}], "total": 1}
