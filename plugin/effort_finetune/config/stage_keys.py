"""A stage of a run: the keys that differ in it, under the names they have at the top level."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, SerializerFunctionWrapHandler, model_serializer

from effort_finetune.config.data_keys import AugmentationKeys
from effort_finetune.config.kinds import Says, Text
from effort_finetune.config.model_keys import TrainedKeys
from effort_finetune.config.recipe_keys import RecipeKeys
from effort_finetune.config.section import Section, setting


class Stage(AugmentationKeys, RecipeKeys, TrainedKeys):
    """What one stage changes; a key that it does not give has the value of the whole run."""

    name: Text | None = setting(None, "what the log calls the stage")

    def over(self, whole: Section) -> dict[str, Any]:
        """Returns the values that the stage gives, groups completed by those of the whole run."""
        given = self.model_fields_set - {"name"}
        return {name: _completed(getattr(self, name), getattr(whole, name)) for name in sorted(given)}

    @model_serializer(mode="wrap")
    def _only_given(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        tree: dict[str, Any] = _given(self, handler(self))
        return tree


def _completed(value: Any, whole: Any) -> Any:
    if not isinstance(value, Section):
        return value
    merged = {
        name: getattr(value if name in value.model_fields_set else whole, name)
        for name in type(value).model_fields
    }
    return type(value)(**merged)


def _given(model: BaseModel, tree: dict[str, Any]) -> dict[str, Any]:
    """Leaves out of a dump what nobody gave: read again, it would count as given."""
    kept = {}
    for name in tree.keys() & model.model_fields_set:
        value = getattr(model, name)
        kept[name] = _given(value, tree[name]) if isinstance(value, BaseModel) else tree[name]
    return kept


def _listed(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else (value,) if isinstance(value, dict) else value


Stages = Annotated[
    tuple[Stage, ...], BeforeValidator(_listed), Says("list of stages, each with the keys that differ in it")
]
