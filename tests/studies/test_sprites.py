from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torchvision.datasets import ImageFolder
from torchvision.transforms.functional import to_tensor

from solo_dimreg.datasets.sprites import read_split, write_sprites
from solo_dimreg.errors import ConfigError
from solo_dimreg.functional import geometric_mean_lid
from solo_dimreg.solo_learn import register
from solo_dimreg.studies.claims.measures import measure, readout
from solo_dimreg.studies.sprites import read_pixels, run_sprites, sprites_table
from solo_dimreg.studies.study import read_study
from solo_dimreg.training.evaluation import extract_splits

SMALL = ["max_epochs=1", "optimizer.batch_size=32"]
STUDY = read_study("sprites").changed(overrides=SMALL, linear=SMALL)
METHODS = list(STUDY.rows)


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict]:
    out = tmp_path_factory.mktemp("a study") / "results"
    return out, run_sprites(STUDY, out, [2], images=90)


def test_a_small_study_has_a_row_for_every_representation(study: tuple[Path, dict]) -> None:
    out, content = study
    assert json.loads((out / "sprites.json").read_text()) == content
    assert (out / "sprites.png").read_bytes().startswith(b"\x89PNG")
    assert [row["representation"] for row in content["rows"]] == ["pixels", "untrained", *METHODS]
    for row in content["rows"]:
        assert row["factors"] == 2 and 0 < row["lid"] < 60
        assert set(row["readout"]) == {"size", "angle"} and max(row["readout"].values()) <= 1
        assert (row["linear_acc1"] is not None) == (row["representation"] in METHODS)
    lids = [row["lid"] for row in content["rows"]]
    assert len(set(lids[:3])) == 3  # pixels, untrained and trained features are not the same


def test_the_lid_of_the_pixels_is_that_of_the_training_images(study: tuple[Path, dict]) -> None:
    out, content = study
    images = ImageFolder(str(next(out.glob("data/*/train"))), transform=to_tensor)
    x = torch.stack([image for image, _ in images]).flatten(1)
    assert content["rows"][0]["lid"] == pytest.approx(float(geometric_mean_lid(x, k=32)), rel=1e-4)


def test_a_rerun_skips_what_is_finished(study: tuple[Path, dict]) -> None:
    out, content = study
    said: list[str] = []
    again = run_sprites(STUDY, out, [2], images=90, say=said.append)
    assert again == content
    assert f"{len(METHODS)} of {len(METHODS)} runs were finished before." in said


def test_the_factors_are_in_the_order_of_an_image_folder(tmp_path: Path) -> None:
    data = write_sprites(tmp_path / "sprites", factors=2, images=45)
    for split in ("train", "val"):
        images = ImageFolder(str(data / split), transform=to_tensor)
        paths, factors = read_split(data, split, free=2)
        assert [str(path) for path in paths] == [path for path, _ in images.samples]
        assert list(factors) == ["size", "angle"]
        flat = torch.stack([image for image, _ in images]).permute(0, 2, 3, 1).flatten(1)
        assert torch.equal(read_pixels(paths), flat)
    size, row = factors["size"][3], (data / "factors.csv").read_text().splitlines()
    (line,) = [each for each in row if str(paths[3].relative_to(data)) in each]
    assert float(line.split(",")[2]) == size


def test_a_readout_is_1_for_a_linear_factor_and_0_for_one_that_is_not_there() -> None:
    rng = np.random.default_rng(0)
    there, absent = rng.random((2, 600))
    features = torch.from_numpy(np.outer(there, rng.normal(size=16)) + 1e-3 * rng.normal(size=(600, 16)))
    factors = {"there": there, "absent": absent}
    halves = [
        {name: values[part] for name, values in factors.items()} for part in (slice(300), slice(300, 600))
    ]
    found = readout(features[:300], features[300:], *halves)
    assert found["there"] > 0.999 and abs(found["absent"]) < 0.1
    alone = readout(features[:300], features[300:], *({"there": half["there"]} for half in halves))
    assert alone["there"] == pytest.approx(found["there"], abs=1e-3)


def test_a_claim_reads_a_factor_from_the_features_and_from_the_embeddings(study: tuple[Path, dict]) -> None:
    out, _ = study
    data = next((out / "data").iterdir())
    checkpoint = Path(json.loads((out / "factors2" / "results.json").read_text())["runs"][0]["checkpoint"])
    found = measure(checkpoint, data, [], ["r2_angle", "z_r2_angle"])
    host = register()
    train, val = extract_splits(host, host.read_run(checkpoint))
    with (data / "factors.csv").open() as file:
        angles = {str(data / line["path"]): float(line["angle"]) for line in csv.DictReader(file)}
    images = [ImageFolder(str(data / split)).samples for split in ("train", "val")]
    known = [{"": np.array([angles[path] for path, _ in samples])} for samples in images]
    assert found["r2_angle"] == readout(train.features, val.features, *known)[""]
    assert found["z_r2_angle"] == readout(train.embeddings, val.embeddings, *known)[""] != found["r2_angle"]


def test_the_table_leaves_out_what_was_held() -> None:
    rows = [
        {
            "factors": 1,
            "representation": "pixels",
            "lid": 1.0621,
            "readout": {"size": 0.5},
            "linear_acc1": None,
        },
        {"factors": 1, "representation": "simclr", "lid": 2, "readout": {"size": -1}, "linear_acc1": 99.96},
    ]
    header, cells = sprites_table(rows)
    assert header[3:] == ["R2 size", "linear top-1 %"]
    assert cells == [["1", "pixels", "1.06", "0.50", ""], ["1", "simclr", "2.00", "-1.00", "100.0"]]
    rows[1]["readout"] = {"size": -1, "angle": 0.3}
    header, cells = sprites_table(rows)
    assert header[3:5] == ["R2 size", "R2 angle"] and cells[0][3:5] == ["0.50", ""]


def test_a_wrong_number_of_factors_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="factors must be an integer from 1 to 8, got 9"):
        run_sprites(STUDY, tmp_path, [9])
