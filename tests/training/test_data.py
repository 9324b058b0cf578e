"""Finding, checking, caching and drawing photographs."""

from __future__ import annotations

import os
import shutil
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch

from archivecolor.errors import DataError
from archivecolor.training import data
from archivecolor.training.data import PhotoSet, find_photos, load_photos
from archivecolor.training.sampling import Draws, Prefetcher, Sampler, hash_seed, split_photos
from tests.training.conftest import make_photo, write_photo

CPU = torch.device("cpu")


def test_a_tree_of_photographs(photo_folder: Path) -> None:
    write_photo(photo_folder / "flat.jpg", make_photo(20))
    (photo_folder / "readme.txt").write_text("not a photograph")
    paths, groups, names = find_photos([photo_folder])
    assert len(paths) == 13
    assert Counter(groups) == {"photos": 1, "photos/hills": 9, "photos/sea": 3}
    assert "photos/sea/09.png" in names


def test_names_do_not_depend_on_how_the_folder_is_called(
    photo_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They decide what is held out, and a resumed run finds its folders by their full names."""
    (tmp_path / "link").symlink_to(photo_folder)
    monkeypatch.chdir(photo_folder)
    called = [find_photos([root])[1:] for root in (photo_folder, Path(), tmp_path / "link", Path("sea") / "..")]
    assert all(groups_and_names == called[0] for groups_and_names in called)
    assert "photos/sea/09.png" in called[0][1]


def test_folders_behind_links_are_searched_once(photo_folder: Path, tmp_path: Path) -> None:
    subset = tmp_path / "subset"
    subset.mkdir()
    (subset / "waters").symlink_to(photo_folder / "sea")
    (subset / "again").symlink_to(subset)
    assert find_photos([subset])[2] == [f"subset/waters/{i:02}.png" for i in (9, 10, 11)]


def test_bad_files_are_left_out_with_the_reason(photo_folder: Path, tmp_path: Path) -> None:
    grey = np.repeat(make_photo(1)[:, :, :1], 3, axis=2)
    write_photo(photo_folder / "a_grey.png", grey)
    write_photo(photo_folder / "b_tiny.png", make_photo(2, 16, 16))
    (photo_folder / "c_broken.jpg").write_bytes(b"\xff\xd8\xff\xe0 torn off")
    (photo_folder / "d_empty.png").touch()
    write_photo(photo_folder / "e_cut.jpg", make_photo(3))
    (photo_folder / "e_cut.jpg").write_bytes((photo_folder / "e_cut.jpg").read_bytes()[:-400])
    photos = load_photos([photo_folder], 32, cache_dir=tmp_path / "cache")
    assert len(photos) == 12
    assert photos.left_out_note == "5 images left out (1 grey, 3 not a readable image, 1 smaller than 32 px)"
    assert {entry.path.name: entry.reason for entry in photos.left_out} == {
        "a_grey.png": "grey",
        "b_tiny.png": "smaller than 32 px",
        "c_broken.jpg": "not a readable image",
        "d_empty.png": "not a readable image",
        "e_cut.jpg": "not a readable image",
    }


@pytest.mark.parametrize("cache", ["none", "disk", "ram", "device"])
def test_every_cache_gives_the_same_pixels(photo_folder: Path, tmp_path: Path, cache: data.Cache) -> None:
    plain = load_photos([photo_folder], 32, cache="disk", cache_dir=tmp_path / "reference").fetch([0, 3, 11], CPU)
    photos = load_photos([photo_folder], 32, cache=cache, cache_dir=tmp_path / "cache", device=CPU)
    batch = photos.fetch([0, 3, 11], CPU)
    assert batch.shape == (3, 32, 32, 3) and batch.dtype == torch.uint8
    assert torch.equal(batch, plain)
    assert (
        list((tmp_path / "cache").glob("*.pixels")) == []
        if cache == "none"
        else [*(tmp_path / "cache").glob("*.pixels")]
    )


def test_pixels_are_the_photographs_squashed_to_rgb(tmp_path: Path) -> None:
    rgb = np.zeros((64, 128, 3), np.uint8)
    rgb[:, :64], rgb[:, 64:] = [200, 30, 10], [10, 30, 200]
    write_photo(tmp_path / "p" / "x.png", rgb)
    pixels = load_photos([tmp_path / "p"], 32, cache_dir=tmp_path / "cache").fetch([0], CPU)[0]
    assert pixels[:, :16].unique(dim=0).tolist() == [[[200, 30, 10]] * 16]
    assert pixels[:, 16:].unique(dim=0).tolist() == [[[10, 30, 200]] * 16]


def test_decoded_once(photo_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    load_photos([photo_folder], 32, cache_dir=tmp_path / "cache")

    def refuse(path: Path, size_px: int) -> None:
        raise AssertionError(f"{path} was decoded again")

    monkeypatch.setattr(data, "_read_square", refuse)
    assert len(load_photos([photo_folder], 32, cache_dir=tmp_path / "cache")) == 12


def test_a_changed_photograph_is_decoded_again(photo_folder: Path, tmp_path: Path) -> None:
    before = load_photos([photo_folder], 32, cache_dir=tmp_path / "cache").fetch([0], CPU)
    write_photo(photo_folder / "hills" / "00.png", make_photo(99))
    assert not torch.equal(load_photos([photo_folder], 32, cache_dir=tmp_path / "cache").fetch([0], CPU), before)


@pytest.mark.parametrize("damage", ["cut pixels", "no pixels", "cut index"])
def test_a_cache_that_is_not_whole_is_made_again(photo_folder: Path, tmp_path: Path, damage: str) -> None:
    cache = tmp_path / "cache"
    before = load_photos([photo_folder], 32, cache_dir=cache).fetch(range(12), CPU)
    (pixels,), (index,) = cache.glob("*.pixels"), cache.glob("*.json")
    if damage == "cut pixels":
        pixels.write_bytes(pixels.read_bytes()[:1000])
    elif damage == "no pixels":
        pixels.unlink()
    else:
        index.write_text(index.read_text()[:20])
    assert torch.equal(load_photos([photo_folder], 32, cache_dir=cache).fetch(range(12), CPU), before)


def test_what_a_killed_run_half_decoded_is_removed(photo_folder: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    cache.mkdir()
    old, fresh = cache / "dead.1.partial", cache / "alive.2.partial"
    for path in (old, fresh):
        path.write_bytes(b"x")
    os.utime(old, (time.time() - 3600,) * 2)
    load_photos([photo_folder], 32, cache_dir=cache)
    assert [path.name for path in cache.glob("*.partial")] == [fresh.name]


def test_errors_say_what_was_looked_for(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"empty: no photographs found \(looked for .*\.jpg"):
        load_photos([tmp_path / "empty"], 32, cache_dir=tmp_path)
    with pytest.raises(DataError, match="missing: not a folder"):
        load_photos([tmp_path / "missing"], 32, cache_dir=tmp_path)
    write_photo(tmp_path / "grey" / "g.png", np.full((40, 40, 3), 90, np.uint8))
    with pytest.raises(DataError, match=r"none of 1 images is usable \(grey\)"):
        load_photos([tmp_path / "grey"], 32, cache_dir=tmp_path)


def test_no_room_for_the_cache(photo_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10**9, 10**9, 1000))  # type: ignore[attr-defined]
    with pytest.raises(DataError, match="--cache none"):
        load_photos([photo_folder], 32, cache_dir=tmp_path / "cache")


def test_a_photograph_that_vanished(photo_folder: Path, tmp_path: Path) -> None:
    photos = load_photos([photo_folder], 32, cache="none", cache_dir=tmp_path / "cache")
    photos.paths[2].unlink()
    with pytest.raises(DataError, match=r"02\.png"):
        photos.fetch([2], CPU)


def test_the_split_is_stable() -> None:
    names = [f"photos/{i}.jpg" for i in range(200)]
    train, val = split_photos(names, 0.1, seed=0)
    assert len(val) == 20 and sorted(train + val) == list(range(200))
    assert split_photos(names, 0.1, seed=1)[1] != val
    held_out = {names[i] for i in val}
    fewer = [name for name in names if name != names[train[0]]]
    still = {fewer[i] for i in split_photos(fewer, 0.1, seed=0)[1]}
    assert held_out == still, "losing a training photograph moves nothing across the split"
    assert split_photos(names[:1], 0.9, seed=0) == ([0], [])


def test_an_epoch_visits_each_photograph_once_in_its_own_order() -> None:
    sampler = Sampler(range(10, 30), ["x"] * 30, batch_size=5, balance=0, seed=3)
    assert sampler.steps_per_epoch == 4
    epochs = [[i for step in range(4 * e, 4 * e + 4) for i in sampler.batch(step)] for e in range(2)]
    assert sorted(epochs[0]) == sorted(epochs[1]) == list(range(10, 30))
    assert epochs[0] != epochs[1]
    fresh = Sampler(range(10, 30), ["x"] * 30, batch_size=5, balance=0, seed=3)
    assert fresh.batch(6) == epochs[1][10:15], "a function of seed and step alone"


def test_balance_evens_out_the_folders() -> None:
    groups = ["large"] * 90 + ["small"] * 10
    shares = []
    for balance in (0.0, 0.5, 1.0):
        sampler = Sampler(range(100), groups, batch_size=100, balance=balance, seed=0)
        drawn = [groups[i] for step in range(30) for i in sampler.batch(step)]
        shares.append(drawn.count("small") / len(drawn))
    assert shares[0] == pytest.approx(0.1)
    assert shares[1] == pytest.approx(0.25, abs=0.03)  # sqrt(10) / (sqrt(10) + sqrt(90))
    assert shares[2] == pytest.approx(0.5, abs=0.04)


def test_too_few_photographs_for_a_batch() -> None:
    with pytest.raises(DataError, match="batch of 8"):
        Sampler(range(7), ["x"] * 7, batch_size=8, balance=0, seed=0)


def test_a_photographs_draws_do_not_depend_on_the_number_of_processes() -> None:
    def draw(share: slice) -> torch.Tensor:
        draws = Draws(hash_seed(1, 2), 8, share, CPU)
        return torch.cat([draws.uniform(3), draws.normal(3)], dim=1)

    whole = draw(slice(0, 8))
    assert torch.equal(torch.cat([draw(slice(0, 4)), draw(slice(4, 8))]), whole)
    assert whole[:, :3].min() >= 0 and whole[:, :3].max() <= 1 and whole[:, 3:].min() < 0


def test_prefetching_keeps_order_and_hands_on_errors() -> None:
    fetched: list[int] = []

    def fetch(step: int) -> torch.Tensor:
        fetched.append(step)
        if step == 3:
            raise DataError("photograph 3 is gone")
        return torch.tensor(step)

    with Prefetcher(fetch) as prefetcher:
        assert [int(prefetcher.get(step)) for step in range(3)] == [0, 1, 2]
        with pytest.raises(DataError, match="is gone"):
            prefetcher.get(3)
    assert fetched[:4] == [0, 1, 2, 3] and len(fetched) == len(set(fetched))


def test_fingerprint_tells_sets_apart(tiny_photos: PhotoSet) -> None:
    other = PhotoSet(tiny_photos.paths[1:], tiny_photos.groups[1:], None, 32)
    assert tiny_photos.fingerprint != other.fingerprint
    assert tiny_photos.fingerprint == PhotoSet(tiny_photos.paths, tiny_photos.groups, None, 32).fingerprint
