"""Checks of the source: all of it is run by the battery, and it is as short as its level promises (law 7)."""

from __future__ import annotations

import ast
import dis
import inspect
import io
import re
import tokenize
import types
from collections.abc import Iterator

from bench.check.subject import Failure, Subject
from bench.fields import FieldError
from bench.method import EpochMethod, LossMethod
from bench.training import Training

#: modules whose classes a method inherits its contract from
_CONTRACT = ("bench.method", "bench.fields", "builtins")
#: lines of code of a method, by level
LIMITS = {"loss": 30, "step": 80, "epoch": 200}
#: what says what a method is, as opposed to what it does
_DESCRIPTION = ("slug", "title", "paper", "code", "version", "level", "networks", "cost", "recipes", "smoke")


def settings(subject: Subject) -> str:
    """What looks like a setting is a field, recipes set fields that exist, and suites can name the slug."""
    cls = subject.cls
    if not re.fullmatch(r"[a-z0-9][a-z0-9+-]*", cls.slug):
        raise Failure(f"the slug {cls.slug!r} is not made of small letters, digits, '-' and '+' alone; choose another")
    known = {*cls.fields(), *dir(EpochMethod), *dir(LossMethod)}
    for owner in cls.__mro__:
        for name, value in vars(owner).items() if owner.__module__ not in _CONTRACT else ():
            said = name in known or name.startswith("_") or name in inspect.get_annotations(owner)
            if isinstance(value, (bool, int, float, str, tuple)) and not said:
                raise Failure(
                    f"{owner.__name__}.{name} = {value!r} has no annotation, so that nobody can set it: write "
                    f"`{name}: {type(value).__name__} = ...`, or begin the name with an underscore"
                )
    for recipe in cls.recipes:
        own = {key.removeprefix("params."): value for key, value in recipe.set.items() if not key.startswith("training.")}
        training = {key.removeprefix("training."): value for key, value in recipe.set.items() if key.startswith("training.")}
        try:
            cls.resolve(own)
            Training.resolve(training)
        except FieldError as error:
            raise Failure(f"recipe {recipe.name!r} ({recipe.source}): {error}") from None
    return f"{len(cls.fields())} fields, {len(cls.recipes)} recipes"


def reach(subject: Subject) -> str:
    """Every function of the method was run by some check, so that the others have tested it. Runs last."""
    runs = [subject.base, *(outcome for _, outcome in subject.variant_runs)]
    if not subject.reach.measured:
        return "not measured: a debugger or coverage tool was tracing"
    silent = _expected_silence(subject)
    never, missed = [], []
    for function in _functions(subject):
        lines = {line for _, line in dis.findlinestarts(function) if line and line != function.co_firstlineno} - silent
        if lines and not lines & subject.reach.lines:
            never.append(f"{function.co_name} (line {function.co_firstlineno})")
        missed += sorted(lines - subject.reach.lines)
    if never:
        raise Failure(
            f"no check has run {', '.join(never)}; shrink the field that keeps it waiting with a class attribute such "
            'as smoke = {"warmup": 1}, so that it begins in the second epoch, or remove it'
        )
    if missed:
        return f"warning: lines that no check has run: {', '.join(map(str, missed))}"
    return f"every line was run, in {len(runs)} full run{'s' if len(runs) > 1 else ''} and more"


def _functions(subject: Subject) -> Iterator[types.CodeType]:
    """Functions of the file's classes and those beside them; what is nested in a function counts with it."""
    module = compile(subject.source.read_bytes(), str(subject.source), "exec", dont_inherit=True)
    waiting = [module]
    while waiting:
        code = waiting.pop()
        for constant in code.co_consts:
            if isinstance(constant, types.CodeType) and not constant.co_name.startswith("__annotate"):
                if constant.co_flags & 0x1:  # CO_OPTIMIZED: a function; a class body is not
                    yield constant
                else:
                    waiting.append(constant)


def _expected_silence(subject: Subject) -> set[int]:
    """Lines that refuse bad input, which a passing battery does not run, and makers of recipes, which run on import."""
    tree = ast.parse(subject.source.read_bytes())
    silent: list[ast.stmt] = [node for node in ast.walk(tree) if isinstance(node, ast.Raise)]
    silent += [node for node in tree.body if isinstance(node, ast.FunctionDef) and _makes_recipes(node)]
    return {line for node in silent for line in _span(node)}


def size(subject: Subject) -> str:
    """The method fits its level: loss 30, step 80, epoch 200 lines; documentation, recipes and blank lines aside."""
    level = subject.cls.level
    count, limit = code_lines(subject.source.read_text()), LIMITS[level]
    if count > limit:
        raise Failure(
            f"{count} lines of code, at the {level} level a method has at most {limit}; move what others could use to "
            "bench.ops, or work at the next level"
        )
    return f"{count} lines of code, of {limit} for the {level} level"


def code_lines(source: str) -> int:
    """Lines of code in classes and functions: no docstrings, comments, descriptions, recipes, imports, constants."""
    tree = ast.parse(source)
    counted: set[int] = set()
    ignored: set[int] = set()
    for top in tree.body:
        if isinstance(top, (ast.ClassDef, ast.FunctionDef)) and not _makes_recipes(top):
            first = min([top.lineno, *(decorator.lineno for decorator in top.decorator_list)])
            counted |= set(range(first, top.lineno)) | _span(top)
    for node in ast.walk(tree):
        if isinstance(node, (ast.ClassDef, ast.FunctionDef)) and ast.get_docstring(node, clean=False) is not None:
            ignored |= _span(node.body[0])
        if isinstance(node, (ast.Assign, ast.AnnAssign)):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            if any(isinstance(target, ast.Name) and target.id in _DESCRIPTION for target in targets):
                ignored |= _span(node)
    return len((counted & _lines_with_code(source)) - ignored)


def _makes_recipes(node: ast.ClassDef | ast.FunctionDef) -> bool:
    """A function that says that it returns a `Recipe`, or a tuple of them."""
    if not isinstance(node, ast.FunctionDef) or node.returns is None:
        return False
    return any(isinstance(part, ast.Name) and part.id == "Recipe" for part in ast.walk(node.returns))


def _span(node: ast.stmt) -> set[int]:
    return set(range(node.lineno, (node.end_lineno or node.lineno) + 1))


def _lines_with_code(source: str) -> set[int]:
    blank = (tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER)
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    return {line for token in tokens if token.type not in blank for line in range(token.start[0], token.end[0] + 1)}
