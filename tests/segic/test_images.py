"""Segmenting images by examples: what is accepted, what is refused, and what comes back."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import segic
from segic.errors import UsageError
from segic.images import Example, Prompt, Segmentation, to_batch

SIZE = (48, 80)


def picture(seed=0, size=SIZE):
    return np.random.default_rng(seed).integers(0, 256, (*size, 3), np.uint8)


def labels(*ids, size=SIZE):
    """(H, W) int: one upright stripe an id."""
    out = np.zeros(size, np.int32)
    for i, key in enumerate(ids):
        out[4:-4, i * size[1] // len(ids) : i * size[1] // len(ids) + 8] = key
    return out


def words(prompts):
    """A language model: every text has a feature of its own."""
    rows = [torch.randn(768, generator=torch.Generator().manual_seed(len(prompt))) for prompt in prompts]
    words.seen = list(prompts)
    return torch.stack(rows)


@pytest.fixture(autouse=True)
def no_language_model(monkeypatch):
    monkeypatch.setattr("segic.text.default_text", lambda *_args, **_options: words)


def test_one_entity_from_a_boolean_mask(dense_model):
    found = dense_model.segment(picture(1, (60, 107)), [Example(picture(), labels(1) > 0)])
    assert isinstance(found, Segmentation)
    assert found.ids == (1,)
    assert found.masks.shape == found.logits.shape == (1, 60, 107)
    assert found.masks.dtype == np.bool_
    assert found.logits.dtype == np.float32
    assert found.scores.shape == (1,)
    assert found.propagated.shape == (1, 8, 14)
    np.testing.assert_array_equal(found.masks[0], found.logits[0] > 0)


def test_several_entities_do_not_overlap(dense_model):
    found = dense_model.segment(picture(1), [Example(picture(), labels(300, 7, 9))])
    assert found.ids == (7, 9, 300)
    assert found.masks.sum(0).max() <= 1
    assert ((found.scores >= 0) & (found.scores <= 1)).all()
    best = found.logits.argmax(0)
    expected = np.where(found.logits.max(0) > 0, np.array(found.ids)[best], 0)
    np.testing.assert_array_equal(found.labels, expected)
    assert found.labels.dtype == np.int32


def test_several_examples(dense_model):
    """An id in several examples is one entity; each adds to what is known of it."""
    first, second = Example(picture(0), labels(1)), Example(picture(5, (30, 90)), labels(1, 2, size=(30, 90)))
    prompt = dense_model.prepare([first, second])
    assert prompt.ids == (1, 2)
    assert [context.entities for context in prompt.contexts] == [(1,), (1, 2)]
    found = dense_model.segment(picture(1), prompt)
    assert found.ids == (1, 2)
    alone = dense_model.segment(picture(1), [second])
    assert not np.array_equal(found.logits, alone.logits)


def test_prompt_serves_many_targets(dense_model):
    examples = [Example(picture(), labels(1, 2))]
    prompt = dense_model.prepare(examples)
    assert isinstance(prompt, Prompt)
    for seed in (1, 2):
        once = dense_model.segment(picture(seed), prompt)
        np.testing.assert_array_equal(once.logits, dense_model.segment(picture(seed), examples).logits)


def test_finds_the_example_itself(dense_model):
    """On its own image the propagated mask is larger inside the example's mask than outside."""
    mask = labels(1) > 0
    found = dense_model.segment(picture(), [Example(picture(), mask)])
    large = np.kron(found.propagated[0], np.ones((6, 6)))[: SIZE[0], : SIZE[1]]
    assert large[mask].mean() > large[~mask].mean() + 0.01


def test_empty_masks_are_passed_over(dense_model):
    empty = Example(picture(3), np.zeros(SIZE, bool))
    prompt = dense_model.prepare([empty, Example(picture(), labels(2)), empty])
    assert prompt.ids == (2,)
    assert len(prompt.contexts) == 1


def test_propagated_mask_is_of_the_picture_without_padding(released_model):
    found = released_model.segment(picture(1, (56, 112)), [Example(picture(), labels(1))])
    assert found.propagated.shape == (1, 56, 112)
    assert found.masks.shape == (1, 56, 112)


def test_no_example(dense_model):
    with pytest.raises(UsageError, match="no example was given; at least one image with a mask is needed"):
        dense_model.prepare([])


def test_only_empty_masks(dense_model):
    with pytest.raises(UsageError, match="all 2 example masks are empty"):
        dense_model.prepare([Example(picture(), np.zeros(SIZE, bool))] * 2)


def test_mask_of_another_size(dense_model):
    with pytest.raises(UsageError, match="example 2: the mask is 90x30 pixels, its image is 80x48"):
        dense_model.prepare([Example(picture(), labels(1)), Example(picture(), labels(1, size=(30, 90)))])


def test_mask_with_channels(dense_model):
    mask = np.repeat(labels(1)[..., None], 3, axis=2)
    with pytest.raises(UsageError, match=r"example 1: the mask has the shape \(48, 80, 3\); expected \(H, W\)"):
        dense_model.prepare([Example(picture(), mask)])


def test_soft_masks_are_refused(dense_model):
    with pytest.raises(UsageError, match="example 1: the mask is float64; expected integer ids, or a boolean mask"):
        dense_model.prepare([Example(picture(), labels(1) * 0.9)])


@pytest.mark.parametrize("image", [picture()[..., 0], picture() / 255, np.zeros((4, 4, 4), np.uint8)])
def test_images_of_another_kind(dense_model, image):
    with pytest.raises(UsageError, match=r"expected uint8 of shape \(H, W, 3\), RGB"):
        dense_model.segment(image, [Example(picture(), labels(1))])
    with pytest.raises(UsageError, match=r"expected uint8 of shape \(H, W, 3\), RGB"):
        dense_model.prepare([Example(image, labels(1))])


def test_images_without_a_pixel(dense_model):
    with pytest.raises(UsageError, match=r"the image has no pixel: its shape is \(0, \d+, 3\)"):
        dense_model.segment(picture()[:0], [Example(picture(), labels(1))])


@pytest.mark.parametrize(
    ("value", "dtype"), [(2**32 + 5, np.int64), (2**32 - 1, np.uint32), (2**31, np.uint64), (-1, np.int8)]
)
def test_ids_that_would_become_others_are_refused(dense_model, value, dtype):
    mask = labels(1).astype(dtype)
    mask[0, 0] = value
    with pytest.raises(UsageError, match=rf"example 2: the mask holds the values .*{value}.* to 2147483647: number"):
        dense_model.prepare([Example(picture(), labels(1)), Example(picture(), mask)])


def test_the_largest_id(dense_model):
    prompt = dense_model.prepare([Example(picture(), labels(2**31 - 1).astype(np.uint64))])
    assert prompt.ids == (2**31 - 1,)


def test_images_that_are_not_contiguous():
    image = picture()[:, ::-1]
    np.testing.assert_array_equal(to_batch(image)[0].permute(1, 2, 0).numpy(), image)


@pytest.mark.filterwarnings("error")
def test_arrays_that_are_read_only(dense_model):
    image, mask = picture(), labels(1)
    image.flags.writeable = mask.flags.writeable = False
    assert dense_model.segment(image, [Example(image, mask)]).ids == (1,)
    assert not image.flags.writeable
    assert to_batch(image.view(np.memmap)).shape == (1, 3, *SIZE)


def test_arrays_that_need_no_copy():
    image = picture()
    assert np.shares_memory(to_batch(image).numpy(), image)


def test_text_on_a_model_without(dense_model):
    with pytest.raises(UsageError, match=r"the model tiny takes no class text.*segic\[hf\]"):
        dense_model.prepare([Example(picture(), labels(1), text="dog")])


def test_class_text(released_model):
    examples = [Example(picture(), labels(4), text="dog"), Example(picture(1), labels(2))]
    prompt = released_model.prepare(examples)
    assert prompt.ids == (2, 4)
    assert words.seen == ["", "a photo of a dog"]
    assert prompt.meta.shape == (2, 768)


def test_text_reaches_the_result(released_model):
    one, two = (
        released_model.segment(picture(1), [Example(picture(), labels(1), text=text)]) for text in ("dog", "aircraft")
    )
    assert not np.array_equal(one.logits, two.logits)


def test_text_given_once_is_kept(released_model):
    """A later example of the same entity without text does not take it away, a later text does replace it."""
    named = Example(picture(), labels(1), text="dog")
    released_model.prepare([named, Example(picture(1), labels(1, 2))])
    assert words.seen == ["a photo of a dog", ""]
    released_model.prepare([named, Example(picture(1), labels(1), text="wolf")])
    assert words.seen == ["a photo of a wolf"]


def test_names_of_the_package():
    assert segic.Example is Example
    assert segic.Segmentation is Segmentation
    assert set(segic.__all__) <= set(dir(segic))
    for name in segic.__all__:
        assert getattr(segic, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'Sam'"):
        segic.Sam  # noqa: B018


@pytest.mark.parametrize(
    ("examples", "message"),
    [
        ([(picture(), labels(1))], "example 1 is a tuple; expected a segic.Example"),
        ([Example(None, labels(1))], "the image is a NoneType; expected an array"),
        ([Example(picture(), torch.from_numpy(labels(1)))], "example 1: the mask is a Tensor; expected an array"),
    ],
)
def test_what_is_no_example_is_named(dense_model, examples, message):
    with pytest.raises(UsageError, match=message):
        dense_model.prepare(examples)


def test_one_example_needs_no_list(dense_model):
    example = Example(picture(), labels(3))
    assert dense_model.prepare(example).ids == dense_model.prepare([example]).ids == (3,)


def test_examples_are_told_apart_by_who_they_are():
    example, other = (Example(picture(), labels(3)) for _ in range(2))
    assert [example, other].index(other) == 1
    assert len({example, other}) == 2
