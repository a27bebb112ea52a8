"""YAML into frozen dataclasses: unknown keys refused, types checked, every complaint located."""

from __future__ import annotations

import difflib
import re
import types
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, asdict, fields, is_dataclass
from pathlib import Path
from typing import Any, Literal, NoReturn, TypeVar, Union, get_args, get_origin, get_type_hints

import yaml

T = TypeVar("T")

_FLOAT = re.compile(r"^[-+]?(\d[\d_]*(\.\d*)?|\.\d+)([eE][-+]?\d+)?$|^[-+]?\.(inf|Inf|INF)$|^\.(nan|NaN|NAN)$")
_BOOL = re.compile(r"^(true|True|TRUE|false|False|FALSE)$")


class BadConfig(ValueError):
    """A configuration that cannot be used, said so that a person can mend it.

    Attributes:
        reason: what was found and what was expected, with the dotted key.
        where: "file:line", or the override as it was written.
        mend: what the user can do.
    """

    def __init__(self, reason: str, *, where: str, mend: str) -> None:
        self.reason, self.where, self.mend = reason, where, mend
        super().__init__(f"{where}: {reason}. Mend: {mend}")

    def __reduce__(self) -> tuple:
        return (_rebuild, (self.reason, self.where, self.mend))


def _rebuild(reason: str, where: str, mend: str) -> BadConfig:
    return BadConfig(reason, where=where, mend=mend)


class _Loader(yaml.SafeLoader):
    """YAML 1.2 scalars: ``1e-4`` is a number and ``no`` is a word, as people expect."""


class _Dumper(yaml.SafeDumper):
    """Quotes exactly what ``_Loader`` would not read back as the same text."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


for _class in (_Loader, _Dumper):
    _class.yaml_implicit_resolvers = {
        first: [(tag, pattern) for tag, pattern in resolvers if tag.rsplit(":", 1)[1] not in ("bool", "float")]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }
    _class.add_implicit_resolver("tag:yaml.org,2002:bool", _BOOL, list("tTfF"))
    _class.add_implicit_resolver("tag:yaml.org,2002:float", _FLOAT, list("-+.0123456789"))


class Document:
    """Plain data read from a YAML file and overrides, with the place where each dotted key was written."""

    def __init__(self, path: str | Path) -> None:
        """Read ``path``.

        Raises:
            BadConfig: no such file, broken YAML, a key written twice, or a file that is not a mapping.
        """
        self.path = str(path)
        self.places: dict[str, str] = {}
        if not Path(path).is_file():
            raise BadConfig("no such file", where=self.path, mend="check the path of the configuration")
        loader = _Loader(Path(path).read_text(encoding="utf-8"))
        try:
            node = loader.get_single_node()
            self.data = self._plain(loader, node, "", node) if node is not None else None
        except yaml.MarkedYAMLError as error:
            line = error.problem_mark.line + 1 if error.problem_mark else 0
            raise BadConfig(
                f"broken YAML: {error.problem}", where=f"{self.path}:{line}", mend="correct this line"
            ) from error
        finally:
            loader.dispose()
        if not isinstance(self.data, dict):
            raise BadConfig("the file must hold a mapping of keys", where=self.path, mend="write `key: value` lines")

    def where(self, key: str) -> str:
        """Where dotted ``key``, or the nearest key around it, was written."""
        while key:
            if key in self.places:
                return self.places[key]
            key = key.rpartition(".")[0]
        return self.path

    def _plain(self, loader: _Loader, node: yaml.Node, path: str, place: yaml.Node) -> Any:
        """The value of ``node``; ``place`` is where a reader looks for it: its key, or the item of a list."""
        if path:
            self.places[path] = f"{self.path}:{place.start_mark.line + 1}"
        if isinstance(node, yaml.SequenceNode):
            items = []
            for number, item in enumerate(node.value):
                named = {k.value: v.value for k, v in item.value} if isinstance(item, yaml.MappingNode) else None
                items.append(self._plain(loader, item, _join(path, _item_key(named, number)), item))
            return items
        if not isinstance(node, yaml.MappingNode):
            return loader.construct_object(node)
        result: dict[str, Any] = {}
        for key_node, value_node in node.value:
            key = str(key_node.value)
            if key in result:
                raise BadConfig(
                    f"key {_join(path, key)!r} is written twice",
                    where=f"{self.path}:{key_node.start_mark.line + 1}",
                    mend="keep one of the two",
                )
            result[key] = self._plain(loader, value_node, _join(path, key), key_node)
        return result

    def override(self, text: str) -> None:
        """Apply ``key.key=value``; list items are addressed by their ``name`` or by number; value is YAML.

        Raises:
            BadConfig: no ``=``, broken value, a list item that does not exist, or a path through a plain
                value.
        """
        where = f"override {text!r}"
        path, equals, raw = text.partition("=")
        keys = path.strip().split(".")
        if not equals or not all(keys):
            raise BadConfig("an override must be key.key=value", where=where, mend="write e.g. stages.align.steps=10")
        try:
            value = yaml.load(raw, Loader=_Loader) if raw.strip() else None
        except yaml.YAMLError as error:
            raise BadConfig(f"{raw!r} is not YAML", where=where, mend="quote the value") from error
        here: Any = self.data
        done = ""
        for number, key in enumerate(keys):
            last = number == len(keys) - 1
            slot: Any = key
            if isinstance(here, list):
                slot = _index(here, key, done, where)
                key = _item_key(here[slot], slot)
            elif not isinstance(here, dict):
                raise BadConfig(f"{done!r} holds {here!r}, no keys", where=where, mend=f"override {done!r} itself")
            done = _join(done, key)
            if last:
                here[slot] = value
                for place in [p for p in self.places if p == done or p.startswith(done + ".")]:
                    del self.places[place]
                self.places[done] = where
            else:
                if isinstance(here, dict) and here.get(slot) is None:
                    here[slot] = {}
                    self.places[done] = where
                here = here[slot]


def _join(path: str, key: str) -> str:
    return f"{path}.{key}" if path else key


def _item_key(item: Any, number: int) -> str:
    """How dotted keys address an item of a list: by its ``name`` where it has one, else by its number."""
    name = item.get("name") if isinstance(item, Mapping) else None
    return name if isinstance(name, str) and name else str(number)


def _index(items: list, key: str, path: str, where: str) -> int:
    """Position of the item of a list that ``key`` means: its ``name``, or its number."""
    names = [str(item["name"]) for item in items if isinstance(item, dict) and "name" in item]
    if key in names:
        return next(n for n, item in enumerate(items) if isinstance(item, dict) and str(item.get("name")) == key)
    if key.isdigit() and int(key) < len(items):
        return int(key)
    known = names or [str(n) for n in range(len(items))]
    raise BadConfig(f"{path!r} has no item {key!r}{nearest(key, known)}", where=where, mend=f"use {_list(known)}")


def nearest(word: str, known: Sequence[str]) -> str:
    """ ", did you mean 'x'?" or nothing."""
    found = difflib.get_close_matches(word, known, n=1, cutoff=0.5)
    return f" (did you mean {found[0]!r}?)" if found else ""


def _list(words: Sequence[str]) -> str:
    return "one of " + ", ".join(words) if words else "nothing: it is empty"


def parse(kind: type[T], document: Document) -> T:
    """Make a ``kind`` (a dataclass of plain types, Literal, tuple, dict, Optional and dataclasses) of a
    document.

    Raises:
        BadConfig: a key that is unknown or missing, or a value of another type; names the dotted key and the
            place.
    """
    return _Parser(document).value(kind, document.data, "")


class _Parser:
    def __init__(self, document: Document) -> None:
        self.document = document

    def fail(self, path: str, reason: str, mend: str) -> NoReturn:
        raise BadConfig(reason, where=self.document.where(path), mend=mend)

    def value(self, kind: Any, raw: Any, path: str) -> Any:
        origin, arguments = get_origin(kind), get_args(kind)
        if kind is Any:
            return raw
        if origin in (Union, types.UnionType):
            if raw is None and type(None) in arguments:
                return None
            kinds = [a for a in arguments if a is not type(None)]
            if len(kinds) > 1:  # a mapping, a list, or something else
                shape = dict if isinstance(raw, Mapping) else tuple if isinstance(raw, list) else None
                fits = [a for a in kinds if (get_origin(a) if get_origin(a) in (dict, tuple) else None) is shape]
                kinds = fits or kinds[:1]
            (inner,) = kinds
            return self.value(inner, raw, path)
        if origin is Literal:
            if not any(raw == a and isinstance(raw, bool) == isinstance(a, bool) for a in arguments):
                words = [str(a) for a in arguments]
                self.fail(path, f"{path!r} is {raw!r}{nearest(str(raw), words)}", f"use {_list(words)}")
            return raw
        if origin is tuple:
            return self.items(arguments, raw, path)
        if origin is dict:
            if not isinstance(raw, Mapping):
                self.wrong(path, raw, "a mapping of keys")
            return {str(k): self.value(arguments[1], v, _join(path, str(k))) for k, v in raw.items()}
        if is_dataclass(kind):
            return self.dataclass(kind, raw, path)
        return self.scalar(kind, raw, path)

    def items(self, arguments: tuple, raw: Any, path: str) -> tuple:
        if not isinstance(raw, list):
            self.wrong(path, raw, "a list")
        kinds = [arguments[0]] * len(raw) if len(arguments) == 2 and arguments[1] is Ellipsis else list(arguments)
        if len(kinds) != len(raw):
            self.wrong(path, raw, f"a list of {len(kinds)} values")
        return tuple(
            self.value(kind, item, _join(path, _item_key(item, n)))
            for n, (kind, item) in enumerate(zip(kinds, raw, strict=True))
        )

    def dataclass(self, kind: Any, raw: Any, path: str) -> Any:
        if not isinstance(raw, Mapping):
            self.wrong(path, raw, "a mapping of keys")
        hints = get_type_hints(kind)
        known = {field.name: field for field in fields(kind)}
        for key in raw:
            if key not in known:
                self.fail(
                    _join(path, key),
                    f"unknown key {_join(path, key)!r}{nearest(key, list(known))}",
                    f"remove it or use {_list(sorted(known))}",
                )
        values = {}
        for name, field in known.items():
            if name in raw:
                values[name] = self.value(hints[name], raw[name], _join(path, name))
            elif field.default is MISSING and field.default_factory is MISSING:
                self.fail(path, f"key {_join(path, name)!r} is missing", f"add {name!r}")
        try:
            return kind(**values)
        except BadConfig as bad:
            # A dataclass checks its own fields without knowing where it stands: say where.
            prefix = f"{path!r}: " if path else ""
            raise BadConfig(prefix + bad.reason, where=self.document.where(path), mend=bad.mend) from None

    def scalar(self, kind: Any, raw: Any, path: str) -> Any:
        if kind is bool and isinstance(raw, bool):
            return raw
        if kind is int and isinstance(raw, int) and not isinstance(raw, bool):
            return raw
        if kind is float and isinstance(raw, int | float) and not isinstance(raw, bool):
            return float(raw)
        if kind is str and isinstance(raw, str):
            return raw
        words = {bool: "true or false", int: "a whole number", float: "a number", str: "text (quote it)"}
        self.wrong(path, raw, words[kind])

    def wrong(self, path: str, raw: Any, expected: str) -> NoReturn:
        self.fail(path, f"{path!r} must be {expected}, got {raw!r}", f"write {expected} at {path!r}")


def to_yaml(value: Any) -> str:
    """A dataclass as YAML text that ``parse`` reads back as an equal value."""
    return yaml.dump(_lists(asdict(value)), Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=100)


def _lists(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _lists(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_lists(item) for item in value]
    return value
