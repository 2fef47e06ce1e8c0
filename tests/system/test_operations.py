"""docs/operations.md explains every line of the log, with its level, and none that is not written."""

import re

import pytest

from evapid import ROOT

DAEMON_CALL = re.compile(r"\blog_(?:line|limited)\(")
MODULE_CALL = re.compile(r"\bLM_(?:CRIT|ERR|WARN|NOTICE|INFO)\(")
CONVERSION = re.compile(r"%[-0-9.*]*(?:ll|l|z)?[a-z]")
MODULE_LEVELS = {"CRIT": "CRITICAL", "ERR": "ERROR", "WARN": "WARNING", "NOTICE": "NOTICE", "INFO": "INFO"}
LITERAL = r'"(?:[^"\\]|\\.)*"'


def call_at(text, start):
    """The text of a call's arguments, which begin at start."""
    depth = 1
    for match in re.compile(rf"{LITERAL}|[()]").finditer(text, start):
        depth += {"(": 1, ")": -1}.get(match.group(), 0)
        if depth == 0:
            return text[start:match.start()]
    raise AssertionError(f"a call without end: {text[start:start + 80]}")


def pattern_of(arguments):
    """The first literal among them, with what is joined to it; conversions become an asterisk."""
    joined = re.search(rf"{LITERAL}(?:\s+[A-Z_]+\s+{LITERAL}|\s+{LITERAL})*", arguments).group()
    words = re.findall(rf"{LITERAL}|[A-Z_]+(?=\s+\")", joined)
    text = "".join(word[1:-1] if word[0] == '"' else "*" for word in words)
    return CONVERSION.sub("*", text.removesuffix("\\n").replace('\\"', '"'))


def calls(folder, call):
    for file in sorted((ROOT / folder).rglob("*.c")):
        text = file.read_text()
        for match in call.finditer(text):
            arguments = call_at(text, match.end())
            if re.search(LITERAL, arguments):
                yield file.name, match.group(), arguments


def daemon_lines():
    """Each line's pattern and the levels that it can have."""
    for name, _, arguments in calls("daemon", DAEMON_CALL):
        # The subject is a literal now and then: what follows it is the text.
        text = re.sub(rf"^(.*?LEVEL_\w+,\s*){LITERAL},", r"\1", arguments, flags=re.S)
        yield name, pattern_of(text), {level.lower() for level in re.findall(r"LEVEL_(\w+)", arguments)}


def documented(module):
    """Lines of the tables of the module, or of evapid, with their levels."""
    text = (ROOT / "docs/operations.md").read_text()
    log, _, of_module = text[text.index("## The log"):].partition("### Lines of the module")
    for line, level in re.findall(r"^\| `([^`]+)` \| ([^|]+) \|", of_module if module else log, re.M):
        yield line, {word.strip() for word in level.split(",")}


def text_of(line, module=False):
    """Without its subject, what varies as an asterisk."""
    return re.sub(r"<[^>]+>", "*", line if module else line.split(": ", 1)[1])


@pytest.mark.parametrize("name, pattern, levels", list(daemon_lines()))
def test_each_line_of_evapid_s_log_is_explained(name, pattern, levels):
    found = [shown for line, shown in documented(module=False) if text_of(line) == pattern]
    assert found, f"{name}: nothing explains {pattern!r}"
    if levels:
        assert any(levels <= shown for shown in found), f"{pattern!r} has the levels {levels}, not {found}"


def test_each_line_that_is_explained_is_one_of_evapid_s_log():
    patterns = {pattern for _, pattern, _ in daemon_lines()}
    source = "".join(file.read_text() for file in (ROOT / "daemon").rglob("*.c"))
    unknown = [line for line, _ in documented(module=False)
               if text_of(line) not in patterns and f'"{text_of(line)}"' not in source]
    assert unknown == []


def test_the_lines_of_the_module_are_as_it_writes_them():
    lines = {(pattern_of(arguments), MODULE_LEVELS[call[3:-1]]) for _, call, arguments in calls("shim", MODULE_CALL)}
    listed = list(documented(module=True))
    assert len(listed) > 5
    for line, levels in listed:
        text = text_of(line, module=True)
        assert text in {pattern for pattern, _ in lines}, line
        assert levels == {"as evapid says"} or all((text, level) in lines for level in levels), line
