"""What a Python user writes: an annotation from an array, a camera loop, names that load when they are used."""

import subprocess
import sys

import numpy as np
import pytest
import torch

import segic_vos
from segic.backbones.dinov2 import DinoV2, DinoV2Config
from segic.config import InstructionConfig, MatchingConfig, ModelConfig
from segic.decoder import Decoder
from segic.errors import UsageError
from segic.model import SEGIC
from segic_vos import Annotation, VideoSession, annotation


@pytest.mark.parametrize("name", segic_vos.__all__)
def test_every_public_name_is_there(name):
    assert getattr(segic_vos, name) is not None
    assert name in dir(segic_vos)


def test_other_names_are_not():
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = segic_vos.nothing


def test_importing_the_package_costs_nothing():
    code = "import segic_vos, sys; print(sorted({'torch', 'numpy', 'av', 'cv2', 'onnx'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int64])
def test_annotation_of_ids(dtype):
    given = annotation(np.array([[0, 7], [7, 200]], dtype))
    assert isinstance(given, Annotation)
    assert given.labels.dtype == np.int32
    assert (given.ids, given.void, given.palette) == ((7, 200), None, None)


def test_annotation_of_one_object_and_of_void():
    assert annotation(np.array([[False, True]])).ids == (1,)
    with_void = annotation(np.array([[0, 3, 255]], np.uint8), void=255)
    assert (with_void.ids, with_void.void) == ((3,), 255)
    assert with_void.labels.tolist() == [[0, 3, 255]]
    assert annotation(np.zeros((2, 2), np.uint8)).ids == ()


@pytest.mark.parametrize(
    ("labels", "said"),
    [
        (np.zeros((2, 2, 3), np.uint8), r"uint8 of shape \(2, 2, 3\)"),
        (np.zeros((2, 2), np.float32), "float32"),
        (np.array([[-1, 2]]), "-1 to 2"),
        (np.array([[2**40]]), str(2**40)),
    ],
)
def test_annotation_of_other_arrays(labels, said):
    with pytest.raises(UsageError, match=said):
        annotation(labels)


@pytest.fixture
def model():
    config = ModelConfig(
        backbone="tiny",
        size=112,
        canvas="frame",
        matching=MatchingConfig(),
        instructions=InstructionConfig(meta="constant"),
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        backbone = DinoV2(DinoV2Config("tiny", width=32, depth=1, heads=2), ())
        return SEGIC(config, backbone, Decoder(config, 32, 32), name="tiny")


def test_a_camera_loop(model):
    rng = np.random.default_rng(0)
    camera = [rng.integers(0, 256, (45, 80, 3), np.uint8) for _ in range(4)]
    labels = np.zeros((45, 80), np.uint8)
    labels[10:30, 10:40] = 7

    session = VideoSession(model)
    given = annotation(labels)
    seen = []
    for bgr in camera:
        result = session.step(bgr[..., ::-1], given)
        given = None
        seen.append(result)

    assert np.array_equal(seen[0].labels, labels)
    assert [result.given for result in seen] == [True, False, False, False]
    assert all(result.ids == (7,) and result.labels.shape == (45, 80) for result in seen)
    assert all(0 <= result.scores[7] <= 1 for result in seen)
