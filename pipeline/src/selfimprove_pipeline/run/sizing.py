"""The size of a run's first model against what it runs on: decided once, told before it costs.

What a recipe leaves open of how a training is spread is decided here from the model's config
and stands in the run's index, so that later processes take it from there and read no model.
"""

from collections.abc import Mapping
from typing import Any, Final

from selfimprove_pipeline.contract import recipe
from selfimprove_pipeline.contract.errors import InputError
from selfimprove_pipeline.contract.manifests import Index
from selfimprove_pipeline.contract.recipe import Run
from selfimprove_pipeline.memory import advice, gpus
from selfimprove_pipeline.memory.advice import Place
from selfimprove_pipeline.memory.shape import ModelShape, shape_of
from selfimprove_pipeline.run import model_files
from selfimprove_pipeline.run.setting import Setting
from selfimprove_pipeline.train.model.layout import Layout, packable

OPEN: Final[Mapping[str, str]] = {"layout": "layout", "zeroStage": "zero_stage"}
"""The fields of `training` that are decided where the file leaves them open."""


def decisions(setting: Setting, index: Index | None) -> dict[str, int | str]:
    """Return the values for what the recipe leaves open of `training`, by name.

    They are those that the run began with, for as long as its model and what a reference pass
    depends on are the same; else they are decided from the model's config. A model that cannot
    be read is decided carefully and refused later, where it is opened.
    """
    spec = setting.spec
    wanted = [name for name, field in OPEN.items() if getattr(spec.training, field) is None]
    if not wanted:
        return {}
    if index is not None and _began_alike(index, setting):
        found = {name: index.decided[name] for name in wanted if name in index.decided}
        if len(found) == len(wanted):
            return found
    config, found_shape = _model(setting)
    made: dict[str, int | str] = {"layout": spec.training.layout or _layout(config)}
    laid_out = with_decisions(setting.run, {"layout": made["layout"]}).spec
    made["zeroStage"] = advice.zero_stage(found_shape, laid_out)
    return {name: made[name] for name in wanted}


def _model(setting: Setting) -> tuple[Mapping[str, Any], ModelShape | None]:
    """Return M0's config and shape, nothing where it cannot be read, which others tell."""
    try:
        folder = model_files.folder_of(setting)
        return folder.value(model_files.CONFIG), _shape(folder)
    except InputError:
        return {}, None


def _layout(config: Mapping[str, Any]) -> Layout:
    """Return the layout of a model's passes: packed where its attention can be."""
    return "packed" if config and packable(config) else "padded"


def _began_alike(index: Index, setting: Setting) -> bool:
    """Return whether a run began with the model and the passes that the file names now."""
    spec = setting.spec
    began = index.recipe.get("training", {})
    now = spec.training.model_dump(mode="json", by_alias=True)
    names = [name for name in recipe.fields_of(spec.training, "reference") if name not in OPEN]
    return (
        index.recipe["model"]["uri"] == spec.model.uri
        and index.requested_revision == setting.requested_revision
        and all(began.get(name) == now.get(name) for name in names)
    )


def with_decisions(run: Run, decided: Mapping[str, int | str]) -> Run:
    """Return a run with what was decided in place of what its file leaves open."""
    if not decided:
        return run
    update = {OPEN[name]: value for name, value in decided.items()}
    training = run.spec.training.model_copy(update=update)
    return run.model_copy(update={"spec": run.spec.model_copy(update={"training": training})})


def shape(setting: Setting) -> ModelShape | None:
    """Return the shape of M0, None where its config says too little; no weights are read."""
    return _shape(model_files.folder_of(setting))


def _shape(folder: model_files.Folder) -> ModelShape | None:
    config = folder.value(model_files.CONFIG)
    where = f"{folder.uri}{model_files.CONFIG}"
    return shape_of(config, where=where, weights=model_files.weight_bytes(folder))


def place_of(setting: Setting) -> Place:
    """Return where the recipe says that a run computes, else the node that is assumed."""
    return advice.declared(setting.spec) or Place(gpus.NODE * setting.spec.training.nodes)


def lines(setting: Setting, found: ModelShape | None, place: Place) -> tuple[str, ...]:
    """Return what a run of a shape needs, then what does not fit, a line each."""
    if found is None:
        return (f"memory: cannot be told: {setting.spec.model.uri} has a config of no known form",)
    needed = (f"memory: {line}" for line in advice.estimates(found, setting.spec, place))
    misfits = advice.findings(found, setting.spec, place)
    return (*needed, *(f"too large: {one.line}" for one in misfits))


def look(setting: Setting, found: ModelShape | None, place: Place | None) -> tuple[str, ...]:
    """Return what may not fit, a line each; raise InputError where something certainly does not.

    `place` is what is known of where the run computes, None where nothing but the recipe tells.
    """
    here = place or advice.declared(setting.spec)
    if found is None or here is None:
        return ()
    lines = advice.findings(found, setting.spec, here)
    if refused := [one.line for one in lines if one.is_certain]:
        raise InputError("\n".join(refused))
    return tuple(one.line for one in lines)
