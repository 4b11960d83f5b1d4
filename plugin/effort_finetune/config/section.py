"""What the groups of settings are made of: a frozen model without unknown keys, and its fields."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic.config import JsonDict
from pydantic.fields import FieldInfo

from effort_finetune.config.invalid import as_user_error

if TYPE_CHECKING:
    from pydantic._internal._model_construction import ModelMetaclass
else:
    ModelMetaclass = type(BaseModel)

T = TypeVar("T")


#: The commands that read a key: only those list it in their --help.
TRAIN: tuple[str, ...] = ("finetune",)
SCORE: tuple[str, ...] = ("finetune", "evaluate")
DATA: tuple[str, ...] = ("finetune", "evaluate", "check-data")


class _InOurWords(ModelMetaclass):
    """Lets a section that is made by hand fail as settings from files do, with every error at once."""

    def __call__(cls: type[T], **values: Any) -> T:
        try:
            return super().__call__(**values)  # type: ignore[misc]
        except ValidationError as error:
            raise as_user_error(error, places(cls), values) from None  # type: ignore[arg-type]


class Section(BaseModel, metaclass=_InOurWords):
    """A group of settings that cannot hold a value outside its kinds, nor change.

    Raises:
        UserError: If a key is unknown or a value does not fit; all of them at once.
    """

    READ_BY: ClassVar[tuple[str, ...]] = TRAIN

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


def setting(default: Any, help: str, *, path: bool = False, read_by: tuple[str, ...] | None = None) -> Any:
    """Declares one key.

    Args:
        default: Its value where no source gives one.
        help: What it is, in one line, for ``--help``, docs/settings.md and the JSON Schema.
        path: It names a file or folder: relative to the file that states it, and no part of what
            makes two runs equal.
        read_by: The commands that read it; ``None``: those of its section's ``READ_BY``.
    """
    extra: JsonDict = {}
    if path:
        extra["path"] = True
    if read_by is not None:
        extra["read_by"] = list(read_by)
    if isinstance(default, (dict, Section)):
        return Field(default_factory=lambda: default, description=help, json_schema_extra=extra)
    return Field(default=default, description=help, json_schema_extra=extra)


def leaves(section: type[Section], prefix: str = "") -> Iterator[tuple[str, FieldInfo]]:
    """Yields every key below a section, dotted, in the order in which they are declared."""
    for name, field in section.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, Section):
            yield from leaves(field.annotation, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", field


def places(section: type[Section], prefix: str = "") -> dict[str, FieldInfo]:
    """Returns every place that may hold a value: :func:`leaves`, and ``stages.*.nEpochs`` within lists."""
    found: dict[str, FieldInfo] = {}
    for key, field in leaves(section, prefix):
        found[key] = field
        item = next(iter(get_args(field.annotation)), None)
        if isinstance(item, type) and issubclass(item, Section):
            found |= places(item, f"{key}.*.")
    return found


def notes(field: FieldInfo) -> dict[str, Any]:
    """Returns what :func:`setting` noted beside a field's kind and meaning."""
    return dict(field.json_schema_extra) if isinstance(field.json_schema_extra, dict) else {}


def readers(section: type[Section]) -> Iterator[tuple[str, ...]]:
    """Yields the commands that read each key, in the order of :func:`leaves`."""
    for name, field in section.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, Section):
            yield from readers(field.annotation)
        else:
            stated = notes(field).get("read_by")
            yield tuple(stated) if stated else _declared_in(section, name).READ_BY


def _declared_in(section: type[Section], name: str) -> type[Section]:
    return next(one for one in section.__mro__ if name in inspect.get_annotations(one))
