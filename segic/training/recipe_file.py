"""Reading recipes: named ones and files, with values overridden, and errors that say which key is meant."""

import difflib
import sys
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel, ValidationError

from segic.errors import UsageError
from segic.nested import flatten
from segic.training.recipe import STORED, Recipe

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


def recipe_names() -> list[str]:
    """The named recipes."""
    return sorted(p.name.removesuffix(".toml") for p in _folder().iterdir() if p.name.endswith(".toml"))


def recipe_text(name: str) -> str:
    """The TOML of a named recipe or of a file, to copy and edit. UsageError for neither."""
    if name in recipe_names():
        return (_folder() / f"{name}.toml").read_text(encoding="utf-8")
    path = Path(name)
    if not path.is_file():
        near = difflib.get_close_matches(name, recipe_names(), n=1)
        hint = f"did you mean {near[0]}? " if near else ""
        raise UsageError(f"{name} is neither a recipe nor a file; {hint}recipes are {', '.join(recipe_names())}")
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"the recipe {path} cannot be read: {error}") from error


def load_recipe(name: str, overrides: Sequence[str] = ()) -> Recipe:
    """A named recipe, or one from a file, with "key.sub=value" overrides; values are TOML, bare words are strings.

    Raises UsageError that names the key and the nearest one that exists.
    """
    try:
        values = tomllib.loads(recipe_text(name))
    except tomllib.TOMLDecodeError as error:
        raise UsageError(f"the recipe {name} is not TOML: {error}") from error
    for text in overrides:
        _override(values, text)
    return parse_recipe(values, name)


def parse_recipe(values: Mapping[str, Any], source: str, *, stored: bool = False) -> Recipe:
    """A recipe from plain values. source: for messages. stored: a run's own, which may be an earlier version's."""
    try:
        return Recipe.model_validate(values, context=STORED if stored else None)
    except ValidationError as error:
        raise UsageError("\n".join(f"recipe {source}: {_explain(e)}" for e in error.errors())) from error


def difference(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    """What two recipes' values differ in: "key: old -> new", a line each."""
    old, new = flatten(before), flatten(after)
    return [
        f"{key}: {old.get(key, '(not set)')!r} -> {new.get(key, '(not set)')!r}"
        for key in sorted(old | new)
        if old.get(key) != new.get(key) or (key in old) != (key in new)
    ]


def _folder() -> Any:
    return resources.files("segic.training") / "recipes"


def _override(values: dict[str, Any], text: str) -> None:
    key, sign, value = text.partition("=")
    names = [part.strip() for part in key.split(".")]
    if not sign or not all(names):
        raise UsageError(f"--set {text!r}: expected key=value or table.key=value")
    table = values
    for name in names[:-1]:
        table = table.setdefault(name, {})
        if not isinstance(table, dict):
            raise UsageError(f"--set {text!r}: {name} is a value, not a table")
    try:
        table[names[-1]] = tomllib.loads(f"v = {value}")["v"]
    except tomllib.TOMLDecodeError:
        table[names[-1]] = value.strip()


def _explain(error: Any) -> str:
    """One of pydantic's errors in words."""
    loc = [str(part) for part in error["loc"]]
    key = ".".join(loc)
    if error["type"] == "extra_forbidden":
        known = _fields_at(loc[:-1])
        near = difflib.get_close_matches(loc[-1], known, n=1, cutoff=0.5)
        hint = f"did you mean {near[0]}?" if near else f"known are {', '.join(known)}"
        return f"unknown key {key}; {hint}"
    if error["type"] == "missing":
        return f"{key} is missing"
    if error["type"] == "value_error":
        return str(error["ctx"]["error"])
    message = error["msg"][0].lower() + error["msg"][1:]
    kind = {dict: "a table", list: "a list", str: "a string", bool: "a truth value"}.get(
        type(error["input"]), "a number"
    )
    return f"{key} is {error['input']!r} ({kind}): {message}"


def _fields_at(loc: Sequence[str]) -> list[str]:
    """The keys that the table at `loc` may have."""
    model: Any = Recipe
    for part in loc:
        if isinstance(model, type) and issubclass(model, BaseModel) and part in model.model_fields:
            model = _table_type(model.model_fields[part].annotation)
        # else: a key of a dict of tables, whose type `_table_type` gave already
    if isinstance(model, type) and issubclass(model, BaseModel):
        return list(model.model_fields)
    return []


def _table_type(annotation: Any) -> Any:
    """The model class inside `X`, `X | None` or `dict[str, X]`."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    found = (_table_type(inner) for inner in get_args(annotation))
    return next((one for one in found if one is not None), None)
