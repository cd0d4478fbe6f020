"""The axes of a cell as a suite writes them, resolved to what enters its identity."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.fields import FieldError
from bench.suite import MethodEntry

if TYPE_CHECKING:
    from bench.noise import PlannedNoise


def resolve_dataset(wanted: dict[str, Any], root: Path) -> dict[str, Any]:
    """The data set axis; `root` is the data folder, which some data sets have to look into to know what they are."""
    from bench.data import dataset_class

    if "name" not in wanted:
        raise FieldError("dataset", "a data set needs a name")
    cls = dataset_class(wanted["name"])
    if cls.evaluation_only:
        raise FieldError("dataset", f"{cls.slug} is a test set, nothing can be trained on it")
    resolved = cls.resolve({key: value for key, value in wanted.items() if key != "name"})
    return {"name": cls.slug, "revision": cls.revision, **cls.identity(cls.planned(resolved, root))}


def resolve_noise(wanted: str | dict[str, Any], folders: Sequence[Path]) -> PlannedNoise:
    """`folders`: where the relative paths of label files begin."""
    from bench.noise import plan_noise

    if isinstance(wanted, dict) and "version" in wanted:
        raise FieldError("version", "the version of a noise is the code's, it cannot be chosen", "remove it")
    return plan_noise(wanted, folders)


def resolve_model(wanted: dict[str, Any]) -> dict[str, Any]:
    from bench.models import model_class

    if "name" not in wanted:
        raise FieldError("model", "a model needs a name")
    cls = model_class(wanted["name"])
    return {"name": cls.slug, **cls.identity({key: value for key, value in wanted.items() if key != "name"})}


def resolve_needs(cls: Any, params: dict[str, Any]) -> tuple[str, ...]:
    from bench.method import NEEDS

    needs = cls(**params).needs
    if isinstance(needs, str) or not set(needs) <= set(NEEDS):
        raise FieldError("needs", f"{cls.slug} declares needs = {needs!r}", "a set of names among " + ", ".join(NEEDS))
    return tuple(sorted(needs))


def differences(values: Mapping[str, Any], defaults: Mapping[str, Any], skip: Sequence[str] = ()) -> str:
    changed = [f"{key}={value}" for key, value in values.items() if key not in skip and value != defaults.get(key)]
    return f" ({', '.join(changed)})" if changed else ""


def auto_label(slug: str, entry: MethodEntry) -> str:
    parts = [f"{key}={value}" for key, value in {**entry.params, **entry.training}.items()]
    parts += [entry.recipe] if entry.recipe else []
    return slug + (f" ({', '.join(parts)})" if parts else "")


def row_title(cls: Any, entry: MethodEntry) -> str:
    return (cls.title or cls.slug) + auto_label("", entry)
