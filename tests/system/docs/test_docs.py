"""The documents say what is so: their outputs, tables, names and programs against the real thing."""

import fcntl
import functools
import itertools
import json
import re
import subprocess
import sys

import pytest

import commands
import kamailio
from evapid import BUILD, EVAPICTL, EVAPID, ROOT, run_evapid
from process import until

pytestmark = pytest.mark.once

DOCS = [ROOT / "README.md", ROOT / "CHANGELOG.md", ROOT / "SECURITY.md", *sorted((ROOT / "docs").rglob("*.md"))]


def text_of(path):
    return (ROOT / path).read_text()


def block(path, mark):
    """The fenced block behind a comment <!-- test: MARK -->."""
    return re.search(rf"<!-- test: {mark} -->\n```\w*\n(.*?)```\n", text_of(path), re.S).group(1)


def rows(text):
    """The cells of each line of the tables in text."""
    return [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines() if line.startswith("|")]


# ---- README.md


VARYING = [  # of one run and another
    (r"(?m)^( *\d+ +\d+ +\d+) +\d+ +\d+$", r"\1 N N"),  # a worker: it may not have said yet that its route has ended
    (r"queue +\w+ of", "queue N of"),  # and what it says may wait there;
    (r"( open +\d+ s +\d+ s +\d+ +\d+ +)[01] ", r"\1N "),  # so long the message waits: a client's,
    (r"(in +messages .*waiting )[01],", r"\1N,"),  # and in all
    (r"\S*evapid-quickstart-\w+", "FOLDER"),
    (r"\d{4}-\d\d-\d\dT[\d:.]+Z", "TIME"),
    (r"\b\d+ s\b", "N s"),
    (r"(index\W+|resume |suspended as )\d+", r"\1N"),
    (r"(?<!SIP/2\.0 )\b\d\d+\b", "N"),  # ports, pids, bytes; small counts stay
    (r" +", " "),
]


def without_what_varies(output):
    """Its lines; those about the application's end come just before the logs are shown, or just too late. Two processes of
    Kamailio write what the script says: nothing orders their lines."""
    for pattern, shown in VARYING:
        output = re.sub(pattern, shown, output)
    lines = [line.strip() for line in output.strip().splitlines() if not line.endswith((" has gone", " closed"))]
    said = iter(sorted(line for line in lines if line.startswith("NOTICE: <script>")))
    return [next(said) if line.startswith("NOTICE: <script>") else line for line in lines]


def test_quickstart_prints_what_the_readme_shows():
    with open(ROOT / "quickstart") as one_at_a_time:  # it builds in the tree, where other tests may run beside these
        fcntl.flock(one_at_a_time, fcntl.LOCK_EX)
        ran = subprocess.run([ROOT / "quickstart"], capture_output=True, text=True, timeout=600)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    shown = block("README.md", "quickstart").removeprefix("$ ./quickstart\n")
    written_with = re.search(r" Kamailio (\d+\.\d+\.\d+),", shown).group(1)
    shown = shown.replace(written_with, ".".join(map(str, kamailio.version())))  # the installed one's
    assert without_what_varies(ran.stdout) == without_what_varies(shown)


def test_the_readme_names_all_that_the_module_has():
    source = text_of("shim/evapi_mod.c") + text_of("shim/parameters.c")
    names = re.findall(r'^ +\{ "(\w+)"', source, re.M) + [name + "(" for name in re.findall(r'KEMI_EVAPI\("(\w+)"\)', source)]
    listed = re.search(r"variable_names\[VARIABLES\] = \{(.*?)\}", text_of("shim/events.c")).group(1)
    names += [f"$evapi({name})" for name in re.findall(r"\w+", listed)]
    assert len(names) > 30
    assert [name for name in names if f"`{name}" not in text_of("README.md")] == []


# ---- names


def name_of(path):
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("path", DOCS, ids=name_of)
def test_every_file_link_and_test_that_a_document_names_is_there(path):
    text = path.read_text()
    for name in re.findall(r"`((?:daemon|shim|include|conf|cmake|tests|docs)/[\w./-]*)`", text):
        assert (ROOT / name).exists(), name
    for target, anchor in re.findall(r"\]\(([\w./-]*)(#[\w-]+)?\)", text):
        linked = path.parent / target if target else path
        assert linked.exists(), target
        titles = re.findall(r"^#+ (.*)", linked.read_text(), re.M)
        slugs = ["#" + re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles]
        assert not anchor or anchor in slugs, target + anchor
    tests = [*(ROOT / "tests").rglob("test_*.py"), *(ROOT / "tests/unit").rglob("test_*.c")]
    known = {file.stem for file in tests} | {
        name for file in tests for name in re.findall(r"\b(?:def|void) (test_\w+)\(", file.read_text())}
    assert set(re.findall(r"\btest_\w+", text)) - known == set()


@pytest.mark.parametrize("path", [path for path in DOCS if commands.blocks(path)], ids=name_of)
def test_every_block_that_a_document_shows_is_used_by_a_test_or_says_why_not(path):
    found = commands.blocks(path)
    assert len(found) == len(re.findall(r"^ *```", path.read_text(), re.M)) / 2
    tests = "".join(file.read_text() for folder in ("system", "package", "fresh")
                    for file in (ROOT / "tests" / folder).rglob("*.py"))
    for block in found:
        assert block.language, f"{block.where} does not say what it is in"
        assert block.name or block.excuse or block.language in commands.TO_LOOK_AT, f"{block.where} is not run"
        assert not block.name or f'"{block.name}"' in tests, f"{block.where}: no test runs {block.name}"


def test_the_index_names_every_document():
    text = text_of("docs/index.md")
    names = [path.name for path in (ROOT / "docs").glob("*.md") if path.name != "index.md"] + ["examples/README.md"]
    assert [name for name in names if f"]({name}" not in text] == []
    examples = text_of("docs/examples/README.md")
    assert [path.name for path in (ROOT / "docs/examples").glob("*/README.md") if f"]({path.parent.name}/README.md)" not in examples] == []


def test_every_source_file_is_named_in_the_architecture():
    text = text_of("docs/architecture.md")
    files = [file.relative_to(ROOT).as_posix() for folder, ending in (("daemon", "c"), ("shim", "c"), ("include/evapid", "h"))
             for file in (ROOT / folder).rglob("*." + ending)]
    assert [name for name in files if f"`{name}`" not in text] == []


@pytest.mark.parametrize("program, manual", [(EVAPID, "docs/evapid.8"), (EVAPICTL, "docs/evapictl.1")],
                         ids=["evapid", "evapictl"])
def test_the_manual_page_has_the_options_that_the_program_has(program, manual):
    usage = subprocess.run([program, "-h"], capture_output=True, text=True, check=True).stdout
    options = re.findall(r"^  (-\w), -(-\w+)", usage, re.M)
    page = re.findall(r"^\.It Fl (\w).*, Fl (-\w+)", text_of(manual), re.M)
    assert sorted(("-" + short, long) for short, long in page) == sorted(options)
    long_only = re.findall(r"^      -(-\w+)", usage, re.M)
    assert sorted(re.findall(r"^\.It Fl (-\w+)", text_of(manual), re.M)) == sorted(long_only)


def test_the_manual_page_and_the_summary_have_every_command_of_evapictl():
    commands = re.findall(r'^    \{ "(\w+)", \w+, \d', text_of("daemon/evapictl/commands.c"), re.M)
    assert len(commands) > 15
    usage = subprocess.run([EVAPICTL, "-h"], capture_output=True, text=True, check=True).stdout
    page = text_of("docs/evapictl.1")
    assert [name for name in commands if not re.search(rf"^  {name}\b", usage, re.M)] == []
    assert [name for name in commands if not re.search(rf"^\.It Cm {name}\b", page, re.M)] == []
    for completion in ("evapictl.bash", "_evapictl"):
        text = text_of(f"conf/completion/{completion}")
        long = re.findall(r"(?:^      -|, -)(-\w+)", usage, re.M)
        assert [option for option in long if f"-{option}" not in text] == []


def test_the_protocol_has_every_request_and_every_error():
    text, source = text_of("docs/protocol.md"), text_of("daemon/control/requests.c") + text_of("daemon/control/control.c")
    listed = {row[0].strip("`") for row in rows(text.split("<!-- test: the requests -->\n", 1)[1].split("\n\n", 1)[0])[2:]}
    assert listed == set(re.findall(r'\{ "(\w+)", answer_\w+ \}', source))
    errors = {row[0].strip("`") for row in rows(text.split("<!-- test: the errors -->\n", 1)[1].split("\n\n", 1)[0])[2:]}
    assert errors == set(re.findall(r'(?:refuse\((?:call->)?reply, |inquiry_(?:reject|end_publication)\(inquiry, |"error", )"([\w ]+)"', source))


# ---- docs/configuration.md


DOCUMENTED = [row for row in rows(text_of("docs/configuration.md")) if re.match(r"`[a-z_.[\]]+`$", row[0])]
KEYS = {row[0].strip("`"): row[1:] for row in DOCUMENTED}


@functools.cache
def table():
    """The rows of evapid's own table of keys (daemon/config/keys.c), which its unit test prints."""
    return json.loads(subprocess.run([BUILD / "tests/test_keys", "--json"], capture_output=True, text=True, check=True).stdout)


RANGES = {"number": "{least} to {most}", "networks": "{from_} to {most} networks", "users": "up to {most} names or numbers of users",
          "path": "path of {least} to {most} bytes", "mode": 'octal, `"{least:04o}"` to `"{most:04o}"`',
          "group": "name or number of a group", "address": "`IPv4:port` or `[IPv6]:port`",
          "socket": "`IPv4:port`, `[IPv6]:port` or `unix:path`"}
BESIDES = {"control_socket": ", another one"}  # of the range


def range_of(row):
    if words := [f'`"{word}"`' for word in row["words"]]:
        return ", ".join(words[:-1]) + " or " + words[-1]
    return RANGES.get(row["kind"], "").format(from_=row["least"] or "up", **row) + BESIDES.get(row["name"], "")


def type_of(row):
    return row["type"] + (f", {row['unit']}" if row["unit"] else "")


def default_of(row):
    if row["overrides"]:
        return f"that of `{row['overrides'].split('.')[0]}`"
    return f"`{row['default']}`" if row["default"] else ""


def file_with(key, value):
    """A configuration that has this key, and what must be there with it."""
    for part in reversed(key.split(".")):
        address = "unix:/tmp/x" if set(value if part.endswith("[]") else ()) & {"mode", "group", "users"} else "127.0.0.1:1"
        value = {part.removesuffix("[]"): [{"address": address, **value}] if part.endswith("[]") else value}
    return json.dumps(value)


@pytest.mark.parametrize("key", KEYS)
def test_evapid_takes_a_key_as_the_document_has_it(key, tmp_path):
    kind, range_, default, _ = KEYS[key]
    path = tmp_path / "evapid.json"

    def taken(value):
        path.write_text(file_with(key, value))
        return run_evapid("-t", "-c", path).returncode == 0
    good, bad = [], [None, -1]
    if default.startswith("`"):
        good.append(json.loads(default.strip("`")))
    if limits := re.fullmatch(r"(\d+) to (\d+)", range_):
        least, most = map(int, limits.groups())
        good, bad = good + [least, most], bad + [least - 1, most + 1, "1"]
    elif limits := re.match(r"path of (\d+) to (\d+) bytes", range_):
        good, bad = good + ["/" * int(limits[1]), "/" * int(limits[2])], bad + ["", "/" * (int(limits[2]) + 1)]
    elif "`\"" in range_:
        good, bad = good + re.findall(r'"([\w-]+)"', range_), bad + ["another"]
    elif "networks" in range_:
        good, bad = good + [["127.0.0.1"], ["10.0.0.0/8", "2001:db8::/32"]], bad + ["10.0.0.0/8", ["10.0.0.1/8"], [10]]
        networks = [f"10.{number // 256}.{number % 256}.0/24" for number in range(int(re.search(r"(\d+) networks", range_)[1]) + 1)]
        good, bad = good + [networks[1:]], bad + [networks] + ([[]] if range_.startswith("1 to ") else [])
    elif "octal" in range_:
        good, bad = good + re.findall(r'"(\d+)"', range_), bad + ["1777", "0888", "rw", 660]
    elif "of users" in range_:
        good, bad = good + [[], ["root", 12345]], bad + ["root", ["there is none"], [0] * (int(re.search(r"\d+", range_)[0]) + 1)]
    elif "of a group" in range_:
        good, bad = good + ["root", 12345], bad + ["there is none", ["root"]]
    elif key.endswith(".address"):
        good, bad = good + ["127.0.0.1:2", "[::1]:2"], bad + ["127.0.0.1"]
    elif kind == "object":
        good.append({})
    assert good and [value for value in good if not taken(value)] == []
    assert [value for value in bad if taken(value)] == []


def test_the_document_has_each_row_of_evapid_s_table_of_keys():
    """In the same order, with type, range, default, and what a reload does."""
    expected = [[f"`{row['name']}`", type_of(row), range_of(row), default_of(row), row["reload"]] for row in table()]
    assert len(expected) > 50 and DOCUMENTED == expected


HOLDS = {"new clients": "for clients that connect after the reload", "all clients": "also for connected clients",
         "new connections": "for connections made after the reload", "immediately": "immediately", "opened or closed": "", "moves": ""}


def test_the_document_says_of_each_key_from_when_on_it_holds_after_a_reload():
    said = [(set(re.findall(r"`([\w.[\]]+)`", changed)), holds)
            for changed, holds in rows(text_of("docs/configuration.md").split("## Reload", 1)[1].split("\n## ")[0])[2:]]
    for row in filter(lambda row: row["reload"], table()):
        # The key as it is, by its own name, or by that of an object in which it lies.
        parts = [row["name"], *reversed(re.findall(r"\w+", row["name"]))]
        found = next(filter(None, ([holds for names, holds in said if part in names] for part in parts)), None)
        assert found, row["name"]
        assert [holds for holds in found if not holds.startswith(HOLDS[row["reload"]])] == [], row["name"]


def manual_line(row):
    """What the manual page says first of a key: "Integer: 0 to 1000; default 5."."""
    range_ = re.sub(r'[`"]', "", range_of(row))
    return type_of(row).capitalize() + (f": {range_}" if range_ else "") + (f"; default {row['default']}" if row["default"] else "") + "."


def test_the_manual_page_has_each_row_of_evapid_s_table_of_keys():
    """A listener's keys that override others of the file stand together."""
    entries = re.findall(r"^\.It Ic (.*)\n(.*)", text_of("docs/evapid.json.5"), re.M)
    assert [key for names, _ in entries for key in names.split(" , ")] == [row["name"] for row in table()]
    assert [(name, line) for name, line in entries if " , " not in name] == [
        (row["name"], manual_line(row)) for row in table() if not row["overrides"]]


def leaves(value, path=""):
    """The values in an object by their paths: a.b, and a[].b in a list of objects."""
    if isinstance(value, dict):
        return [leaf for key, inner in value.items() for leaf in leaves(inner, f"{path}.{key}")]
    if isinstance(value, list) and value and isinstance(value[0], dict):
        return [leaf for inner in value for leaf in leaves(inner, path + "[]")]
    return [(path.removeprefix("."), value)]


def test_the_example_shows_the_default_of_each_row_of_evapid_s_table_of_keys():
    """Also in the keys that are commented out. A key without a default may have any value there."""
    text = re.sub(r'(?m)^ +// (?="\w+":|    |[\]}])', "", text_of("conf/evapid.json"))
    shown = leaves(json.loads(re.sub(r"(?m)(?:^|\s)(?://|#).*", "", text)))
    by_name = {row["name"]: row for row in table()}
    defaults = {name: by_name.get(row["overrides"], row)["default"] for name, row in by_name.items()}
    assert [name for name, _ in shown if name not in by_name] == []
    assert [(name, value) for name, value in shown if defaults[name] and value != json.loads(defaults[name])] == []
    own = {name for name, row in by_name.items() if row["default"] and row["kind"] not in ("object", "objects")}
    assert own - {name for name, _ in shown} == {"metrics.address"}  # another name of http.address


def test_the_example_names_all_words_that_a_key_may_have():
    """Beside the key, or in the comments before it."""
    text = text_of("conf/evapid.json")
    for row in (row for row in table() if row["words"] and not row["overrides"]):
        line = re.search(rf'"{row["name"].split(".")[-1]}": .*', text)
        paragraph = text[:line.end()].rsplit("\n\n", 1)[-1]
        assert [word for word in row["words"] if not re.search(rf"(?<!-)\b{word}\b", paragraph)] == [], row["name"]


def test_errors_of_the_configuration_look_as_the_document_shows(tmp_path):
    wrong = ['{\n    // the only one\n    "listeners": [\n        { "address": "127.0.0.1:8449", "max_clients": 0 }\n    ]\n}',
             '{ "listners": [] }', '{ "log": { "level": "loud" } }', '{ "limits": { "max_message_bytes": 1.5 } }',
             '{ "listeners": [ { "address": "localhost:80" } ] }',
             '{ "listeners": [ { "address": "127.0.0.1:8448" },\n                 { "address": "127.0.0.1:8448" } ] }',
             '{ "log": { "level": "info" }, }']
    printed = ""
    for text in wrong:
        (tmp_path / "evapid.json").write_text(text)
        printed += run_evapid("-t", "-c", tmp_path / "evapid.json").stderr.replace(f"{tmp_path}/", "")
    assert printed == block("docs/configuration.md", "the errors")


# ---- docs/protocol.md


def test_offsets_and_numbers_are_those_of_the_headers(tmp_path):
    text = text_of("docs/protocol.md")
    asserts = []
    for name, table in re.findall(r"^`struct (\w+)`.*?\n\n(.*?)\n\n", text, re.M | re.S):
        for offset, size, field, *_ in rows(table)[2:]:
            member = f"((struct {name} *)0)->" + field.strip("`")
            asserts += [f"offsetof(struct {name}, {field.strip('`')}) == {offset}", f"sizeof({member}) == {size}"]
    for number, name in re.findall(r"^\| (\d) \| ([A-Z]+) \|", text, re.M):
        asserts.append(f"{'RING' if re.search(rf'RING_{name}[ ,]', text_of('include/evapid/ring.h')) else 'WIRE'}_{name} == {number}")
    asserts += [f"RING_DATA_OFFSET == {re.search('Records begin at offset ([0-9]+)', text)[1]}",
                f"offsetof(struct ring_header, presence) == {re.search('struct presence`, at offset ([0-9]+)', text)[1]}"]
    assert len(asserts) > 60
    source = tmp_path / "asserts.c"
    source.write_text('#include "evapid/ring.h"\n#include "evapid/wire.h"\n' +
                      "".join(f'_Static_assert({each}, "");\n' for each in asserts))
    ran = subprocess.run(["cc", "-std=c11", "-D_GNU_SOURCE", "-fsyntax-only", f"-I{ROOT}/include", source],
                         capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr


# The routes of conf/kamailio-evapi.cfg: its request_route is what the harness calls route[TEST].
ROUTES = "request_route {" + text_of("conf/kamailio-evapi.cfg").split("request_route {", 1)[1]


@pytest.fixture
def demo(stage):
    stage.start_evapid()
    stage.start_kamailio(ROUTES.replace("request_route {", "route[TEST] {", 1))
    return stage


def test_the_client_in_the_protocol_works(demo):
    program, output = demo.folder / "client.py", demo.folder / "client.out"
    program.write_text(block("docs/protocol.md", "the client"))
    host, port = demo.address.rsplit(":", 1)
    demo.evapid.listening(demo.address)
    with open(output, "wb") as file:
        client = subprocess.Popen([sys.executable, program, host, port], stdout=file, stderr=file)
    try:
        until(lambda: '"welcome"' in output.read_text(), "the client prints the welcome")
        assert demo.phone().ask("OPTIONS", "bob", caller="o'brien").code == 200
        answer = demo.phone().ask("INVITE", "o'brien")
        assert (answer.code, answer.reason) == (486, "Busy"), output.read_text()
        assert demo.evapid.terminate() == 0
        assert client.wait(30) == 0
        events = [json.loads(line)["event"] for line in output.read_text().splitlines()]
        assert events == ["welcome", "options", "invite"]
    finally:
        client.kill()
        client.wait()


def keys_of(value, path=""):
    """The paths of all that is in value: a.b, and a[].b for what is in the objects of a list."""
    if isinstance(value, dict):
        return set(itertools.chain.from_iterable(keys_of(inner, f"{path}.{key}") for key, inner in value.items()))
    if isinstance(value, list):
        return set(itertools.chain.from_iterable(keys_of(inner, path + "[]") for inner in value))
    return {path.removeprefix(".")}


def test_the_document_has_every_key_of_the_status(demo):
    demo.connect()
    table = text_of("docs/protocol.md").split("<!-- test: the status -->\n", 1)[1].split("\n\n", 1)[0]
    assert {row[0].strip("`") for row in rows(table)[2:]} == keys_of(demo.evapid.status())


# ---- docs/module.md


def marked_rows(path, mark):
    """The rows of the table behind a comment <!-- test: MARK -->."""
    return rows(text_of(path).split(f"<!-- test: {mark} -->\n", 1)[1].split("\n\n", 1)[0])[2:]


def test_the_document_has_every_rpc_command_and_statistic():
    commands = re.findall(r'^ +\{ "(evapi\.\w+)", \w+, \w+, 0 \},', text_of("shim/rpc.c"), re.M)
    assert len(commands) == 8 and [row[0].strip("`") for row in marked_rows("docs/module.md", "the commands")] == commands
    source = text_of("shim/statistics.c")
    own = re.findall(r'\[OWN_\w+\] = \{ "(\w+)", OWN_\w+, "(.*?)" \}', source)
    figures = re.findall(r'FIGURE\((\w+), "(.*?)"\)', source)
    shown = [(row[0].strip("`"), row[1]) for row in marked_rows("docs/module.md", "the statistics")]
    assert len(own) == 8 and len(figures) == 25 and shown == own + figures


def test_the_figures_are_totals_that_the_status_has():
    table = text_of("docs/protocol.md").split("`struct figures`", 1)[1].split("\n\n", 2)[1]
    status = text_of("docs/protocol.md").split("<!-- test: the status -->\n", 1)[1]
    fields = [row[2].strip("`") for row in rows(table)[2:]]
    assert fields == re.findall(r'FIGURE\((\w+), "', text_of("shim/statistics.c"))
    assert [row[3] for row in rows(table)[2:] if f"| `totals.{row[3].strip('`')}` |" not in status] == []
