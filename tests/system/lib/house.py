"""The sources of evapid as a graph: which file includes which, which calls which, and who writes a struct's fields.

Pure reading of C that is formatted by .clang-format: a function begins in the first column, and so does its brace.
"""
import re
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[3]

NAME = r"[A-Za-z_]\w*"

# From the lowest floor up. A wing uses its own files and those of lower floors, never one beside it.
FLOORS = [["base"], ["events", "net"], ["client"], ["bus", "config"], ["kamailio"], ["views"], ["control", "web"], ["lifecycle"], ["main"]]
FLOOR = {wing: number for number, wings in enumerate(FLOORS, 1) for wing in wings}
# evapictl, a program of its own, has only the configuration's reader of evapid, to check a file as evapid does.
OF_THE_TOOL = {"evapictl", "config", "base"}


class Arrow(NamedTuple):
    """One file uses another, which it includes or in which a function lies that it names."""
    user: str
    used: str

    def __str__(self):
        return f"{self.user} -> {self.used}"


def path_of(file):
    return file.relative_to(ROOT).as_posix()


def sources(*folders):
    return sorted(file for folder in folders for file in (ROOT / folder).rglob("*.[ch]"))


def wing_of(name):
    """Of daemon/client/pace.c: client. Of daemon/main.c: main."""
    return Path(name).parts[1].removesuffix(".c")


def noun_of(name):
    """A file and its header are one noun."""
    return re.sub(r"\.[ch]$", "", name)


def code_of(file):
    """Its text without comments and literals; a line stays a line."""
    def blank(match):
        return re.sub(r"[^\n]", " ", match.group()) if match.group()[0] == "/" else '""'
    text = re.sub(r'/\*.*?\*/|//[^\n]*|"(?:[^"\\\n]|\\.)*"|\'(?:[^\'\\\n]|\\.)*\'', blank, file.read_text(), flags=re.S)
    return re.sub(r"__attribute__\(\((?:[^()]|\([^()]*\))*\)\) ?", "", text)


# ---- includes

def includes(folder, root="daemon"):
    """The arrows of what its files include by a quoted name."""
    for file in sources(folder):
        for name in re.findall(r'^#include "([^"]+)"', file.read_text(), re.M):
            used = next((at.resolve() for place in (root, "include") if (at := ROOT / place / name).exists()), None)
            yield Arrow(path_of(file), path_of(used) if used else name)


# ---- calls

def functions(code):
    """The functions that a file defines: name, parameters, body, and whether nobody else sees it."""
    for match in re.finditer(r"^(?!typedef\b)((?:[\w*]+[ \n]+\**)*?)\**(\w+)\(([^{};]*)\)\n\{\n(.*?)^\}", code, re.M | re.S):
        yield match[2], match[3], match[4], "static" in match[1].split()


def declares(folder):
    """For each file, all names in the headers that it includes, directly or through others. It can call nothing else."""
    arrows = {}
    for arrow in includes(folder):
        arrows.setdefault(arrow.user, set()).add(arrow.used)
    own = {path_of(file): set(re.findall(rf"(?<![.>\w])({NAME})\b", code_of(file))) for file in sources(folder) if file.suffix == ".h"}

    def seen(name, done):
        done.add(name)
        for used in arrows.get(name, set()) - done:
            seen(used, done)
        return done
    return {path_of(file): set().union(*(own.get(name, set()) for name in seen(path_of(file), set()))) for file in sources(folder)}


def calls(folder):
    """The arrows of the functions that its files name, by a call or as somebody's callback."""
    codes = {path_of(file): code_of(file) for file in sources(folder)}
    lies_in = {name: file for file, code in codes.items() for name, _, _, hidden in functions(code) if not hidden or file.endswith(".h")}
    declared_for = declares(folder)
    for file, code in codes.items():
        named = set(re.findall(rf"(?<![.>\w])({NAME})\b", code)) & lies_in.keys() & declared_for[file]
        for used in sorted({lies_in[name] for name in named} - {file}):
            if file.endswith(".c"):
                yield Arrow(file, used)


# ---- circles

def circles(arrows):
    """Nouns that can be reached from each other, in sets (Tarjan's strongly connected components, of more than one)."""
    graph = {}
    for arrow in arrows:
        graph.setdefault(noun_of(arrow.user), set()).add(noun_of(arrow.used))
    number, low, stack, found = {}, {}, [], []

    def visit(noun):
        number[noun] = low[noun] = len(number)
        stack.append(noun)
        for other in sorted(graph.get(noun, ())):
            if other not in number:
                visit(other)
            if other in stack:
                low[noun] = min(low[noun], low[other])
        if low[noun] == number[noun]:
            at = stack.index(noun)
            if len(stack) - at > 1:
                found.append(sorted(stack[at:]))
            del stack[at:]

    for noun in sorted(graph):
        if noun not in number:
            visit(noun)
    return found


def reached(noun, arrows):
    """The nouns that a noun uses, directly or through others."""
    graph, found, ahead = {}, set(), [noun]
    for arrow in arrows:
        graph.setdefault(noun_of(arrow.user), set()).add(noun_of(arrow.used))
    while ahead:
        new = graph.get(ahead.pop(), set()) - found
        found |= new
        ahead += new
    return found


# ---- who writes a struct's fields

INDEX = r"(?:\[[^\[\]]*(?:\[[^\[\]]*\])?[^\[\]]*\])*"
PATH = rf"(?<![\w.>\])])({NAME})((?:{INDEX}(?:->|\.){NAME})+){INDEX}"
WRITES = [re.compile(pattern) for pattern in (
    rf"{PATH}\s*(?:=(?!=)|[-+*/|&^]=|<<=|>>=|\+\+|--)",
    rf"(?:\+\+|--){PATH}",
    rf"\b(?:memset|memcpy|memmove|v?snprintf|atomic_(?:store|fetch|exchange)\w*)\(&?{PATH}",
    rf"\b(?:DL|LL|HASH)_(?!FOREACH|SEARCH|FIND|COUNT|ITER|CNT)\w+\((?:hh, )?{PATH}")]
WHOLE = re.compile(rf"(?:^|[;{{}}]|\belse\b|\))\s*\*({NAME})() = |\bmem(?:set|cpy|move)\(({NAME}), ")


def declared(text):
    """The variables or fields of a struct's type that a text declares: name to struct, pointer or not."""
    for match in re.finditer(rf"\bstruct ({NAME}) (?:const )?(\**)({NAME})", text):
        yield match[3], (match[1], bool(match[2]))
        at = match.end()
        while more := re.compile(rf"(?:\[[^\]]*\])*(?: = [^,;(){{}}]*(?:\([^()]*\)[^,;(){{}}]*)*)?, (\**)({NAME})(?! ?\**{NAME})").match(text, at):
            yield more[2], (match[1], bool(more[1]))
            at = more.end()


def structs(folder):
    """Of each struct, its fields that are of a struct's type."""
    found = {}
    for file in sources(folder):
        for name, body in re.findall(r"^struct (\w+) \{\n(.*?)^\}", code_of(file), re.M | re.S):
            found[name] = dict(declared(re.sub(r"\([^()]*\)", "", body)))
    return found


def written(variables, fields, root, path):
    """The structs of which a field is written by that path from a variable, with the field's name."""
    kind, pointed = variables.get(root, (None, False))
    nest = []
    for arrow, field in re.findall(rf"(->|\.)({NAME})", path):
        if arrow == "->" or pointed:
            nest = []
        if kind is None:
            return []
        nest.append((kind, field))
        kind, pointed = fields.get(kind, {}).get(field, (None, False))
    return nest


def writes(folder, kinds):
    """Each file's writes to fields of those structs, as (file, struct, field)."""
    fields = structs(folder)
    for file in sources(folder):
        code = code_of(file)
        shared = dict(declared("\n".join(re.findall(r"^(?:static |extern )?struct \w+ [^()]*?;", code, re.M))))
        for _, parameters, body, _ in functions(code):
            variables = shared | dict(declared(parameters)) | dict(declared(body))
            for pattern in WRITES:
                for root, path in pattern.findall(body):
                    for kind, field in written(variables, fields, root, path):
                        if kind in kinds:
                            yield path_of(file), kind, field
            for names in WHOLE.findall(body):
                kind, pointed = variables.get("".join(names), (None, False))
                if kind in kinds and pointed:
                    yield path_of(file), kind, "*"


def floors():
    """The house as lines, the roof first."""
    for number, wings in reversed(list(enumerate(FLOORS, 1))):
        nouns = {wing: sorted({noun_of(path_of(file)).split("/")[-1] for file in sources(f"daemon/{wing}")}) for wing in wings}
        yield f"{number:3}  " + "; ".join(f"{wing}/ {' '.join(names)}" if names else f"{wing}.c" for wing, names in nouns.items())


if __name__ == "__main__":
    print(*floors(), sep="\n")
