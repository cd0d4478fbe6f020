"""Dropping a file in is registration (law 8): classes are found by looking through the files of a folder."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from types import ModuleType
from typing import Any

from bench.fields import FieldError, nearest


def classes_in(module: ModuleType, base: type) -> dict[str, Any]:
    """Subclasses of `base` that this module itself defines and that carry a slug of their own."""
    found = {}
    for value in vars(module).values():
        if inspect.isclass(value) and issubclass(value, base) and value.__module__ == module.__name__:
            slug = value.__dict__.get("slug")
            if slug:
                found[slug] = value
    return found


def discover(package_name: str, base: type) -> dict[str, Any]:
    """Classes by slug from every file of a package whose name does not begin with an underscore, sorted by slug."""
    package = importlib.import_module(package_name)
    found: dict[str, Any] = {}
    for info in pkgutil.iter_modules(package.__path__):
        if info.name.startswith("_") or info.ispkg:
            continue
        module = importlib.import_module(f"{package_name}.{info.name}")
        for slug, cls in classes_in(module, base).items():
            if slug in found:
                raise RuntimeError(f"two classes claim the slug {slug!r}: {found[slug]} and {cls}")
            found[slug] = cls
    return dict(sorted(found.items()))


def lookup(found: dict[str, Any], name: str, what: str) -> Any:
    """The class of that slug, or a `FieldError` with the nearest valid names."""
    if not isinstance(name, str) or name not in found:
        raise FieldError(what, f"unknown {what} {name!r}", nearest(str(name), found))
    return found[name]
