"""Typed, validated hyper-parameters as plain annotated class attributes.

Methods, noises, data sets, backbones, training settings and the protocol say in one way what can be set about them::

    class GCE(LossMethod):
        q: Annotated[float, Range(gt=0, le=1)] = 0.7

Every value that enters a cell passes through `resolve`, so that a cell holds only known names, right types and legal
ranges. Nothing here needs pydantic: the training core runs on machines that have only torch and numpy.
"""

from __future__ import annotations

import difflib
import functools
import inspect
import types
import typing
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, get_args, get_origin


class FieldError(ValueError):
    """A value that a user gave is not legal. `key` is the dotted place of the value, `hint` says what would be."""

    def __init__(self, key: str, message: str, hint: str = "") -> None:
        self.key, self.message, self.hint = key, message, hint
        super().__init__(f"{key}: {message}" + (f" ({hint})" if hint else ""))


@dataclass(frozen=True)
class Range:
    """Bounds of a number; put it in `Annotated[float, Range(ge=0, le=1)]`."""

    ge: float | None = None
    gt: float | None = None
    le: float | None = None
    lt: float | None = None

    def contains(self, value: float) -> bool:
        return (
            (self.ge is None or value >= self.ge)
            and (self.gt is None or value > self.gt)
            and (self.le is None or value <= self.le)
            and (self.lt is None or value < self.lt)
        )

    def __str__(self) -> str:
        signs = ((self.ge, ">="), (self.gt, ">"), (self.le, "<="), (self.lt, "<"))
        return " and ".join(f"{sign} {bound:g}" for bound, sign in signs if bound is not None)


@dataclass(frozen=True)
class Field:
    """One hyper-parameter: its name, type, default and bounds."""

    name: str
    type: Any
    default: Any
    range: Range | None = None

    @functools.cached_property
    def checked_default(self) -> Any:
        """The default as the field's type; once per field, because plans resolve the same ones again and again."""
        return convert(self, self.default)

    @property
    def type_name(self) -> str:
        name = _type_name(self.type)
        return f"{name}, {self.range}" if self.range else name


def nearest(name: str, choices: Iterable[str], *, show_all: int = 12) -> str:
    """A hint for a misspelt name: the closest choices first, all of them when they are few."""
    choices = sorted(set(choices))
    close = difflib.get_close_matches(str(name), choices, n=3, cutoff=0.5)
    if close:
        return "did you mean " + " or ".join(close) + "?"
    if len(choices) <= show_all:
        return "valid: " + (", ".join(choices) or "none")
    return f"{len(choices)} valid names, for example " + ", ".join(choices[:show_all])


class Configurable:
    """Base of everything that has settable fields. The constructor validates and stores them, nothing else.

    `neutral` lists fields that were added after the first release with the value that leaves results as they were; a
    cell omits such a field at that value, so that its identity does not move when the field is introduced.
    """

    neutral: ClassVar[Mapping[str, Any]] = {}

    def __init__(self, **params: Any) -> None:
        for name, value in self.resolve(params).items():
            setattr(self, name, value)

    @classmethod
    def fields(cls) -> dict[str, Field]:
        """All fields, base classes first. Annotated, public, not `ClassVar`, and with a default."""
        cached = cls.__dict__.get("_fields_cache")
        if cached is not None:
            return cached
        found: dict[str, Field] = {}
        try:
            hints = typing.get_type_hints(cls, include_extras=True)
        except NameError as error:
            message = f"an annotation of {cls.__name__} cannot be evaluated: {error}"
            hint = "import the name at run time; what is not a field has no annotation or begins with an underscore"
            raise FieldError("annotations", message, hint) from None
        for base in reversed(cls.__mro__):
            for name in inspect.get_annotations(base):
                if name.startswith("_") or get_origin(hints[name]) is ClassVar or not hasattr(cls, name):
                    continue
                annotation, bounds = hints[name], None
                if get_origin(annotation) is typing.Annotated:
                    annotation, *extras = get_args(annotation)
                    bounds = next((e for e in extras if isinstance(e, Range)), None)
                if not _supported(annotation):
                    message = f"{cls.__name__}.{name} has the type {_type_name(annotation)}, which a field cannot have"
                    raise FieldError(name, message, "bool, int, float, str, Literal, tuple[X, ...], X | None")
                found[name] = Field(name, annotation, getattr(cls, name), bounds)
        cls._fields_cache = found  # type: ignore[attr-defined]
        return found

    @classmethod
    def resolve(cls, params: Mapping[str, Any]) -> dict[str, Any]:
        """Defaults overridden by `params`, checked and converted. Raises `FieldError` on an unknown or illegal one."""
        fields = cls.fields()
        for name in params:
            if name not in fields:
                what = getattr(cls, "slug", cls.__name__)
                raise FieldError(str(name), f"{what} has no field {name!r}", nearest(str(name), fields))
        return {
            name: convert(field, params[name]) if name in params else field.checked_default for name, field in fields.items()
        }

    @classmethod
    def identity(cls, params: Mapping[str, Any]) -> dict[str, Any]:
        """The resolved fields as they enter a cell: JSON values, neutral ones left out."""
        resolved = cls.resolve(params)
        return {
            name: _plain(value)
            for name, value in resolved.items()
            if name not in cls.neutral or value != cls.neutral[name]
        }


def convert(field: Field, value: Any) -> Any:
    """`value` as the field's type; raises `FieldError` naming the field when it does not fit."""
    try:
        result = _convert(field.type, value)
    except (TypeError, ValueError, OverflowError):
        raise FieldError(field.name, f"{_brief(value)} is not a valid value", f"expected {field.type_name}") from None
    if field.range is not None:
        for number in result if isinstance(result, tuple) else (result,):
            if number is not None and not field.range.contains(number):
                raise FieldError(field.name, f"{_brief(value)} is out of range", f"must be {field.range}")
    return result


def _convert(wanted: Any, value: Any) -> Any:
    origin = get_origin(wanted)
    if origin in (types.UnionType, typing.Union):
        if value is None and type(None) in get_args(wanted):
            return None
        for option in get_args(wanted):
            if option is not type(None):
                try:
                    return _convert(option, value)
                except (TypeError, ValueError):
                    continue
        raise ValueError(value)
    if origin is Literal:
        if any(value == choice and type(value) is type(choice) for choice in get_args(wanted)):
            return value
        raise ValueError(value)
    if origin is tuple:
        if not isinstance(value, (list, tuple)):
            raise TypeError(value)
        return tuple(_convert(get_args(wanted)[0], item) for item in value)
    if wanted is bool:
        if isinstance(value, bool):
            return value
        raise TypeError(value)
    if wanted is int:
        if isinstance(value, bool) or (isinstance(value, float) and not value.is_integer()):
            raise TypeError(value)
        return int(value)
    if wanted is float:
        if isinstance(value, bool):
            raise TypeError(value)
        number = float(value)  # also "1e-4", which YAML 1.1 reads as text
        if number != number or number in (float("inf"), float("-inf")):
            raise ValueError(value)
        return number + 0.0  # -0.0 is 0.0, also in a cell's identity
    if wanted is str:
        if not isinstance(value, str):
            raise TypeError(value)
        return value
    raise TypeError(f"fields of type {wanted!r} are not supported")


def _brief(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:60]}... ({len(text)} characters)"


def _supported(wanted: Any) -> bool:
    origin, inner = get_origin(wanted), get_args(wanted)
    if origin in (types.UnionType, typing.Union):
        return all(option is type(None) or _supported(option) for option in inner)
    return origin is Literal or (origin is tuple and _supported(inner[0])) or wanted in (bool, int, float, str)


def _type_name(wanted: Any) -> str:
    origin = get_origin(wanted)
    if origin is Literal:
        return "one of " + ", ".join(str(choice) for choice in get_args(wanted))
    if origin in (types.UnionType, typing.Union):
        return " or ".join("null" if option is type(None) else _type_name(option) for option in get_args(wanted))
    if origin is tuple:
        return f"a list of {_type_name(get_args(wanted)[0])}"
    names = {bool: "true or false", int: "a whole number", float: "a number", str: "text"}
    return names.get(wanted, str(wanted))


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value
