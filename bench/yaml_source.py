"""YAML files that remember where every value stands, so that an error can name file, line and key.

Safe loader only. A file is refused when it is too large, when a key is repeated, when aliases blow it up, or when
includes form a cycle.
"""

from __future__ import annotations

import difflib
import hashlib
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

MAX_BYTES = 1_000_000
MAX_NODES = 200_000
_MERGED_KEYS = ("training", "protocol", "resources", "table", "model")

Path_ = tuple[Any, ...]


@dataclass(frozen=True)
class Problem:
    """One fault of a suite: where it stands, what is wrong, what would be valid."""

    file: str
    line: int | None
    key: str
    message: str
    hint: str = ""

    def __str__(self) -> str:
        place = self.file + (f":{self.line}" if self.line else "")
        key = f" {self.key}:" if self.key else ""
        return f"{place}:{key} {self.message}" + (f" ({self.hint})" if self.hint else "")


class SuiteError(Exception):
    """A suite that cannot be used (exit code 2); `problems` lists every fault that was found."""

    def __init__(self, problems: list[Problem]) -> None:
        self.problems = problems
        super().__init__("\n".join(str(problem) for problem in problems))


@dataclass
class Source:
    """The merged content of a suite file and its includes."""

    path: Path
    data: dict[str, Any] = field(default_factory=dict)
    lines: dict[Path_, tuple[str, int]] = field(default_factory=dict)
    #: every file that took part, with the SHA-256 of its bytes
    files: dict[str, str] = field(default_factory=dict)

    def relative_files(self) -> dict[str, str]:
        """`files` as seen from the suite: what depends on them must not depend on where the checkout lies."""
        return {os.path.relpath(name, self.path.parent): digest for name, digest in self.files.items()}

    def where(self, path: Path_) -> tuple[str, int | None]:
        """File and line of the value at `path`, or of the nearest value around it."""
        while path and path not in self.lines:
            path = path[:-1]
        return self.lines.get(path, (str(self.path), None))

    def problem(self, path: Path_, message: str, hint: str = "") -> Problem:
        file, line = self.where(path)
        return Problem(file, line, dotted(path), message, hint)


def dotted(path: Path_) -> str:
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else str(part)
    return text


def read(path: Path) -> Source:
    """The suite at `path` with its includes merged below it. Raises `SuiteError`."""
    return _read(Path(path), (), {})


def _read(path: Path, stack: tuple[Path, ...], known: dict[Path, Source]) -> Source:
    """`stack` are the files that include this one, `known` those already read."""
    shown = str(path)
    raw = _read_bytes(path)
    own = Source(path, files={shown: hashlib.sha256(raw).hexdigest()})
    node = _compose(raw, shown)
    if not isinstance(node, yaml.MappingNode):
        raise SuiteError([Problem(shown, 1, "", "a suite is a mapping of keys to values", "see suites/README.md")])
    own.data = _construct(node, (), own, yaml.SafeLoader(""))
    includes = own.data.pop("include", [])
    if isinstance(includes, str):
        includes = [includes]
    if not isinstance(includes, list) or not all(isinstance(item, str) for item in includes):
        raise SuiteError([own.problem(("include",), "must be a file name or a list of file names")])
    merged = Source(path)
    stack = (*stack, path.resolve())
    for number, name in enumerate(includes):
        base, place = path.parent / name, ("include", number)
        if base.resolve() in stack:
            chain = " -> ".join(p.name for p in (*stack, base.resolve()))
            raise SuiteError([own.problem(place, f"includes form a cycle: {chain}", "remove one of them")])
        if not base.exists():
            raise SuiteError([own.problem(place, f"no such file: {base}", "included files stand relative to this one")])
        if base.resolve() not in known:
            known[base.resolve()] = _read(base, stack, known)
        _merge(merged, known[base.resolve()])
    merged.data.pop("name", None)  # the name of a suite is its folder of results: never inherited
    _merge(merged, own)
    return merged


def _read_bytes(path: Path) -> bytes:
    shown = str(path)
    try:
        if path.is_dir():
            raise SuiteError([Problem(shown, None, "", "is a folder, not a suite file")])
        with path.open("rb") as file:
            raw = file.read(MAX_BYTES + 1)
        if len(raw) > MAX_BYTES:
            message = f"the file has more than {MAX_BYTES:,} bytes, the most that a suite may have"
            raise SuiteError([Problem(shown, None, "", message, "is this really a suite? split it with `include`")])
        return raw
    except FileNotFoundError:
        here = sorted(path.parent.glob("*.yaml"))
        known = {file.stem: str(file) for file in [*sorted(Path("suites").rglob("*.yaml")), *here]}  # a bare name means those too
        near = difflib.get_close_matches(path.stem, known, cutoff=0.7)
        hint = ("in that folder: " + ", ".join(map(str, here[:8]))) if here else "`bench ls suites` lists the suites it knows"
        hint = "did you mean " + " or ".join(known[stem] for stem in near) + "?" if near else hint
        raise SuiteError([Problem(shown, None, "", "no such file", hint)]) from None
    except OSError as error:
        raise SuiteError([Problem(shown, None, "", f"cannot be read: {error.strerror}")]) from None


def _compose(raw: bytes, shown: str) -> yaml.Node:
    try:
        text = raw.decode("utf-8")
        loader = yaml.SafeLoader(text)
        try:
            node = loader.get_single_node()
        finally:
            loader.dispose()
    except UnicodeDecodeError as error:
        raise SuiteError([Problem(shown, None, "", f"is not UTF-8 text: {error.reason}")]) from None
    except yaml.reader.ReaderError as error:
        message = f"is not YAML: the character U+{error.character:04X} is not allowed"
        number = text.count("\n", 0, error.position) + 1
        raise SuiteError([Problem(shown, number, "", message, "is this really a text file?")]) from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = mark.line + 1 if mark else None
        fault = getattr(error, "problem", None) or str(error)
        lines = text.splitlines()
        tab = line is not None and line <= len(lines) and "\t" in lines[line - 1]
        hint = "YAML forbids tabs for indentation; use spaces" if tab else "check indentation and colons around it"
        raise SuiteError([Problem(shown, line, "", f"is not YAML: {fault}", hint)]) from None
    except RecursionError:
        raise SuiteError([Problem(shown, None, "", "is nested too deeply")]) from None
    if node is None:
        raise SuiteError([Problem(shown, None, "", "the file is empty", "a suite needs datasets, noises and methods")])
    return node


def _construct(node: yaml.Node, path: Path_, source: Source, loader: yaml.SafeLoader) -> Any:
    """Plain Python values of a node tree, noting the line of each. Recursive aliases and repeated keys are errors."""
    shown, line = str(source.path), node.start_mark.line + 1
    if len(source.lines) > MAX_NODES or len(path) > 40:
        message = "too many or too deeply nested values"
        raise SuiteError([Problem(shown, line, dotted(path[:4]), message, "check the aliases")])
    source.lines.setdefault(path, (shown, line))
    if isinstance(node, yaml.MappingNode):
        result: dict[Any, Any] = {}
        for key_node, value_node in node.value:
            line = key_node.start_mark.line + 1
            if key_node.tag == "tag:yaml.org,2002:merge":
                message = "merge keys (<<) are not supported"
                raise SuiteError([Problem(shown, line, dotted(path), message, "use `include`")])
            key = _scalar(key_node, shown, loader) if isinstance(key_node, yaml.ScalarNode) else None
            if not isinstance(key, str):
                raise SuiteError([Problem(shown, line, dotted(path), "keys must be text", f"write '{key}' in quotes")])
            if key in result:
                raise SuiteError([Problem(shown, line, dotted((*path, key)), "this key stands here twice", "keep one")])
            source.lines[(*path, key)] = (shown, line)
            result[key] = _construct(value_node, (*path, key), source, loader)
        return result
    if isinstance(node, yaml.SequenceNode):
        return [_construct(item, (*path, i), source, loader) for i, item in enumerate(node.value)]
    return _scalar(node, shown, loader)


def _scalar(node: yaml.Node, shown: str, loader: yaml.SafeLoader) -> Any:
    try:
        return loader.construct_object(node)
    except (yaml.YAMLError, ValueError) as error:
        line = node.start_mark.line + 1
        message = f"value not understood: {getattr(error, 'problem', error)}"
        raise SuiteError([Problem(shown, line, "", message)]) from None


def _merge(below: Source, above: Source) -> None:
    """Lay `above` over `below`: mappings of settings are merged key by key, everything else is replaced."""
    for key, value in above.data.items():
        old = below.data.get(key)
        if key in _MERGED_KEYS and isinstance(old, dict) and isinstance(value, dict):
            below.data[key] = {**old, **value}
        else:
            below.lines = {path: place for path, place in below.lines.items() if not path or path[0] != key}
            below.data[key] = value
    below.lines.update(above.lines)
    below.files.update(above.files)
