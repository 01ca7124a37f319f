"""The one configuration: what a run does, from TOML and `key=value` words, checked all at once before anything heavy starts.

A value that nobody set is None until the run computes it from the model and the data; `render` then writes every value with
the reason for it, so that a run's own `recipe.toml` is complete.

    sections    every setting: type, default, documentation
    reading     files and words → a recipe, and a recipe → a file
    toml        values with the line where each stands
"""

from luthier.recipe.reading import RENAMED, differences, get, keys, load, read_value, recorded, render, replace, schema
from luthier.recipe.sections import (
    METHODS,
    OBJECTIVES,
    OPTIMIZERS,
    SCHEDULES,
    SCRATCH,
    Chat,
    Data,
    Endpoint,
    Evaluate,
    Pretrain,
    PretrainRecipe,
    Recipe,
    Section,
    Train,
)

__all__ = [
    "METHODS",
    "OBJECTIVES",
    "OPTIMIZERS",
    "RENAMED",
    "SCHEDULES",
    "SCRATCH",
    "Chat",
    "Data",
    "Endpoint",
    "Evaluate",
    "Pretrain",
    "PretrainRecipe",
    "Recipe",
    "Section",
    "Train",
    "differences",
    "get",
    "keys",
    "load",
    "read_value",
    "recorded",
    "render",
    "replace",
    "schema",
]
