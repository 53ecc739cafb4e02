"""Which clips make up which step."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import pytest
import torch

from evacap_cli.errors import EvacapError
from evacap_cli.features import FeatureSettings
from evacap_cli.tasks.batches import Augmentation, Batch, FeatureBatches
from evacap_cli.tasks.training.loading import Plan, Portion, load_batches

from .colours import Colours, settings


def test_an_epoch_has_every_clip_once_except_an_incomplete_batch() -> None:
    plan = Plan(43, settings(batch_size=8, epochs=3))
    assert (plan.per_epoch, plan.steps) == (5, 15)
    seen: dict[int, list[int]] = {}
    for epoch, rows in plan.portions(0):
        seen.setdefault(epoch, []).extend(rows)
    assert list(seen) == [0, 1, 2]
    assert all(len(rows) == len(set(rows)) == 40 for rows in seen.values())
    assert seen[0] != seen[1]
    assert set(itertools.chain(*seen.values())) == set(range(43))


@pytest.mark.parametrize(("world", "accumulate"), [(2, 1), (1, 4), (2, 2), (4, 2)])
def test_ranks_share_the_clips_of_a_step(world: int, accumulate: int) -> None:
    whole = [set(rows) for _, rows in Plan(43, settings()).portions(0)]
    plan = Plan(43, settings(accumulate=accumulate), world)
    by_rank = [list(plan.portions(rank)) for rank in range(world)]
    for step, clips in enumerate(whole):
        rows = [
            r
            for portions in by_rank
            for _, p in portions[step * accumulate : (step + 1) * accumulate]
            for r in p
        ]
        assert len(rows) == len(clips)
        assert set(rows) == clips


def test_a_resumed_epoch_has_the_same_order() -> None:
    plan = Plan(43, settings(accumulate=2))
    assert list(plan.portions(0, first=7)) == list(plan.portions(0))[14:]


def test_fewer_clips_than_a_batch_make_a_smaller_one() -> None:
    plan = Plan(5, settings(batch_size=8, accumulate=2))
    assert (plan.batch, plan.per_epoch) == (4, 1)


@pytest.mark.parametrize(
    ("clips", "world", "overrides", "message"),
    [
        (0, 1, {}, "no training clips"),
        (3, 4, {}, "too few"),
        (40, 2, {"batch_size": 7}, "shared evenly by 2 processes"),
    ],
)
def test_uneven_batches_are_refused(clips: int, world: int, overrides: dict, message: str) -> None:
    with pytest.raises(EvacapError, match=message):
        Plan(clips, settings(**overrides), world)


class Failing(Colours):
    def batch(self, rows: list[int], augmentation: Augmentation | None = None) -> Batch:
        raise EvacapError("shard 3 is torn", "make it again")


def portions() -> Iterator[Portion]:
    return iter([(0, [0, 1]), (0, [2, 3])])


@pytest.mark.slow
@pytest.mark.parametrize("workers", [0, 1])
def test_store_errors_are_raised_unchanged(workers: int) -> None:
    with pytest.raises(EvacapError) as caught:
        list(load_batches(Failing(), portions(), settings(), workers))
    assert (caught.value.message, caught.value.cure) == ("shard 3 is torn", "make it again")


class Lost(Colours):
    def batch(self, rows: list[int], augmentation: Augmentation | None = None) -> Batch:
        import os
        import signal

        os.kill(os.getpid(), signal.SIGKILL)
        raise AssertionError


@pytest.mark.slow
def test_a_dead_loader_process_is_reported() -> None:
    with pytest.raises(EvacapError, match="a process that reads clips was lost"):
        list(load_batches(Lost(), portions(), settings(), 1))


class Noise:
    """A store of noise, of which only the reading matters here."""

    def __len__(self) -> int:
        return 6

    def key(self, index: int) -> str:
        return f"clip-{index}"

    def captions(self, index: int) -> list[str]:
        return [f"one {index}", f"two {index}"]

    def fbank(self, rows: list[int]) -> object:
        return (
            torch.stack([torch.randn(64, 16, generator=torch.Generator().manual_seed(r)) for r in rows])
            .half()
            .numpy()
        )

    def frames(self, rows: list[int]) -> object:
        return torch.zeros(len(rows), 2, 3, 8, 8, dtype=torch.uint8).numpy()

    def has_picture(self, rows: list[int]) -> object:
        return torch.tensor([row != 2 for row in rows]).numpy()


def test_augmentation_does_not_depend_on_the_batch() -> None:
    data = FeatureBatches(Noise(), FeatureSettings(frames=2, image_size=8), True)  # type: ignore[arg-type]
    augmentation = Augmentation((0, 1), freq_mask=8, time_mask=32, noise=True)
    alone, among = data.batch([3], augmentation), data.batch([5, 3, 0], augmentation)
    assert torch.equal(alone.audio[0], among.audio[1])
    assert alone.captions[0] == among.captions[1]
    assert not torch.equal(alone.audio, data.batch([3], Augmentation((0, 2), 8, 32, True)).audio)
    assert torch.equal(data.batch([3]).audio[0], torch.from_numpy(data.store.fbank([3])).float()[0])
    assert data.batch([3]).mask is None
    mask = data.batch([1, 2]).mask
    assert mask is not None
    assert mask.tolist() == [[True, True], [False, False]]
