"""How a result names the model that made it."""

from typing import TYPE_CHECKING, Any

from segic_vos.summary import describe_model

if TYPE_CHECKING:
    from segic.model import SEGIC


def model_settings(model: "SEGIC") -> dict[str, Any]:
    """What decides a model's figures: name, configuration, number type, the hashes of its weight files.

    The device is not among it: parts of one run may be done on several.
    """
    described = describe_model(model.name, model.config, model.device, model.precision, model.files)
    return {"model": {key: value for key, value in described.items() if key != "device"}}
