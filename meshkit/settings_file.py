"""One settings file as it was read: its keys, and where each of them stands."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import yaml
from pydantic import BaseModel, ValidationError

from meshkit.known_keys import known_keys, meant
from meshkit.settings_faults import Fault, refused
from meshkit.variables import ExpandedValues
from meshkit.yaml_places import Place, PlacedLoader, Places, Step, place_at, place_of

_NAME_OF_A_KEY = "[key]"
"""What pydantic puts behind a key that is itself at fault."""


class SettingsFile:
    """A YAML mapping of known keys, its variables replaced. Reading never raises: see `faults`.

    Args:
        text: the file's.
        environment: where variables are looked up.
        known: the keys that it may have at its top.
    """

    def __init__(self, text: str, environment: Mapping[str, str], known: Collection[str]) -> None:
        self.document: dict[str, Any] = {}
        """The keys; empty where the file is no mapping at all."""
        self.faults: list[Fault] = []
        """What is wrong with it before any model has looked at it."""
        self.readable = False
        """Whether it is a mapping, so that models can look for further faults."""
        self._places = Places(None)
        try:
            self._read(text, environment)
        except yaml.MarkedYAMLError as error:
            self._refuse(place_of(error.problem_mark or error.context_mark), str(error.problem))
        except yaml.reader.ReaderError as error:
            self._refuse(place_at(text, error.position), f"the character {error.character!r} is not allowed")
        except yaml.YAMLError as error:
            self._refuse(Place(1, 1), str(error).splitlines()[0])
        except RecursionError:
            self._refuse(Place(1, 1), "nested too deeply")
        self.faults += [self._unknown(key, known, ()) for key in self.document if key not in known]

    @classmethod
    def made_of(cls, document: Mapping[str, Any]) -> Self:
        """For keys that stand in no file: faults are found as ever, and have no place."""
        file = cls("", {}, ())
        file.document, file.readable = dict(document), True
        return file

    def fault(self, path: Sequence[Step], text: str) -> Fault:
        """A fault of the value at `path`."""
        return Fault(*self._places.of(path), _dotted(path), text)

    def refused_by(self, model: type[BaseModel], error: ValidationError) -> list[Fault]:
        """The faults that a model found in the document."""
        return [
            fault
            for one in error.errors(include_input=False, include_url=False, include_context=False)
            for fault in self._faults(model, one["type"], one["loc"], one["msg"])
        ]

    def _read(self, text: str, environment: Mapping[str, str]) -> None:
        loader = PlacedLoader(text)
        values = ExpandedValues(loader, environment)
        root = loader.get_single_node()
        values.visit(root)
        self.faults += values.faults
        document = {} if root is None else loader.construct_document(root)
        if root is not None and not isinstance(document, dict | None):
            place = place_of(root.start_mark)
            self.faults.append(Fault(*place, "", "the top of the file must be a mapping of keys"))
            return
        self.document, self.readable = document or {}, True
        self._places = Places(root)

    def _refuse(self, place: Place, problem: str) -> None:
        self.faults.append(Fault(*place, "", f"not YAML: {problem}"))

    def _faults(self, model: type[BaseModel], kind: str, loc: Sequence[Step], message: str) -> list[Fault]:
        path = self._path(loc, missing=kind == "missing")
        if kind == "extra_forbidden":
            return [self._unknown(loc[-1], known_keys(model, loc[:-1]), path[:-1])]
        if loc and loc[-1] == _NAME_OF_A_KEY:
            return [Fault(*self._places.of_key(path), _dotted(path), f"not a good name: {message}")]
        if kind != "value_error":
            return [self.fault(path, message)]
        # A validator's own words: one line a fault, which may begin with the key that it means.
        named = [
            self._places.named(path, line) for line in message.removeprefix("Value error, ").splitlines()
        ]
        return [self.fault(full, text) for full, text in named]

    def _unknown(self, key: Step, known: Collection[str], around: Sequence[Step]) -> Fault:
        path = (*around, key)
        near = meant(key, known)
        hint = f"did you mean {near!r}?" if near else f"known: {', '.join(sorted(known))}"
        return Fault(*self._places.of_key(path), _dotted(path), f"unknown key ({hint})")

    def _path(self, loc: Sequence[Step], *, missing: bool) -> list[Step]:
        """Pydantic's path without what is no key of the file, such as the tags of unions; a missing key stays."""
        value: Any = self.document
        path: list[Step] = []
        for at, step in enumerate(loc):
            if _has(value, step):
                value = value[step]
            elif not (missing and at == len(loc) - 1):
                continue
            path.append(step)
        return path


def _has(value: Any, step: Step) -> bool:
    if isinstance(value, list):
        return isinstance(step, int) and step < len(value)
    return isinstance(value, dict) and step in value


def read_file(path: Path, environment: Mapping[str, str], known: Collection[str]) -> SettingsFile:
    """Reads a file. Raises SettingsError where it cannot be read as text."""
    try:
        return SettingsFile(path.read_text(encoding="utf-8"), environment, known)
    except OSError as error:
        raise refused(path, [Fault(0, 0, "", str(error.strerror))]) from error
    except UnicodeDecodeError as error:
        raise refused(path, [Fault(0, 0, "", "not UTF-8")]) from error


def _dotted(path: Sequence[Step]) -> str:
    return ".".join(map(str, path))
