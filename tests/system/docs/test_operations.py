"""docs/operations.md explains every line of the log, with its level, and none that is not written."""

import re

import pytest

from evapid import ROOT

pytestmark = pytest.mark.once

DAEMON_CALL = re.compile(r"\blog_(?:line|limited|missing)\(")
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
                yield file, match.group(), arguments


SUBJECTS = {"listener->subject": "listener <address>", "facts->subject": "listener <address>",
            "http->subject": "http <address>", "door->path": "<path>", "address->sun_path": "<path>",
            "what": "<name>", "name": "<name>", "limit->kind": "<kind>"}


def subject_of(file, expression):
    """As the tables have it."""
    if expression == "SUBJECT":
        expression = re.search(r"#define SUBJECT (.*)", file.read_text()).group(1)
    if expression.startswith('"'):
        return expression[1:-1]
    return SUBJECTS.get(expression, "<what>" if file.name == "main.c" else "client <n>")


def daemon_lines():
    """Each line's file, subject and pattern, and the levels that it can have."""
    for file, _, arguments in calls("daemon", DAEMON_CALL):
        subject, text = re.match(rf"[^\"]*?(?:LEVEL_\w+|level\]?),\s*({LITERAL}|[\w>-]+),(.*)", arguments, re.S).groups()
        levels = {level.lower() for level in re.findall(r"LEVEL_(\w+)", arguments)}
        patterns = [pattern_of(text)]
        if patterns == ["*"]:  # what it says is among the literals behind, if any
            patterns = [CONVERSION.sub("*", literal[1:-1]) for literal in re.findall(LITERAL, text)[1:]] or patterns
        for pattern in patterns:
            yield file.name, subject_of(file, subject), pattern, levels


def documented(module):
    """Lines of the tables of the module, or of evapid, with their levels."""
    text = (ROOT / "docs/operations.md").read_text()
    log, _, of_module = text[text.index("## The log"):].partition("### Lines of the module")
    for line, level in re.findall(r"^\| `([^`]+)` \| ([^|]+) \|", of_module if module else log, re.M):
        yield line, {word.strip() for word in level.split(",")}


def pattern_of_line(line):
    return re.sub(r"<[^>]+>", "*", line)


@pytest.mark.parametrize("name, subject, pattern, levels", list(daemon_lines()))
def test_each_line_of_evapid_s_log_is_explained(name, subject, pattern, levels):
    """What differs from one line to the next stands in angle brackets in the tables."""
    found = [shown for line, shown in documented(module=False)
             if line.startswith(subject + ": ") and pattern_of_line(line.removeprefix(subject + ": ")) == pattern]
    assert found, f"{name}: nothing explains {subject}: {pattern}"
    if levels:
        assert any(levels <= shown for shown in found), f"{pattern} has the levels {levels}, not {found}"


def test_each_line_that_is_explained_is_one_of_evapid_s_log():
    patterns = {pattern for _, _, pattern, _ in daemon_lines()}
    source = "".join(file.read_text() for file in (ROOT / "daemon").rglob("*.c"))
    texts = {line: pattern_of_line(line.split(": ", 1)[1]) for line, _ in documented(module=False)}
    assert [line for line, text in texts.items() if text not in patterns and f'"{text}"' not in source] == []


def test_the_lines_of_the_module_are_as_it_writes_them():
    lines = {(pattern_of(arguments), MODULE_LEVELS[call[3:-1]]) for _, call, arguments in calls("shim", MODULE_CALL)}
    listed = list(documented(module=True))
    assert len(listed) > 5
    for line, levels in listed:
        text = pattern_of_line(line)
        assert text in {pattern for pattern, _ in lines}, line
        assert levels == {"as evapid says"} or all((text, level) in lines for level in levels), line
