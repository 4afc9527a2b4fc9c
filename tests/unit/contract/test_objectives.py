"""The table of objectives agrees with what computes them and with the recipe."""

from typing import get_args

import pytest

from selfimprove_pipeline.contract import objectives
from selfimprove_pipeline.contract.objectives import ObjectiveName
from selfimprove_pipeline.contract.recipe.training import Training
from selfimprove_pipeline.train.loop import objective

FIELDS = {field.alias or name for name, field in Training.model_fields.items()}


def test_every_objective_has_a_row_and_a_class() -> None:
    """One that is missing anywhere is named."""
    names = set(get_args(ObjectiveName))

    assert {info.name for info in objectives.TABLE} == names
    assert set(objective.BY_NAME) == names


@pytest.mark.parametrize("info", objectives.TABLE, ids=lambda info: info.name)
def test_a_row_names_fields_of_the_recipe_and_its_measures_once(
    info: objectives.ObjectiveInfo,
) -> None:
    """The class gives its measures in the order of the row."""
    names = [measure.name for measure in info.measures]

    assert set(info.fields) <= FIELDS
    assert len(set(names)) == len(names)
    assert objective.BY_NAME[info.name].measures == tuple(names)


def test_an_objective_reads_no_field_of_another() -> None:
    """The baseline's key stays when beta changes."""
    assert objectives.unread("sft") == {"beta", "nllWeight"}
    assert objectives.unread("dpo") == frozenset()
