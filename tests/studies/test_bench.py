"""The benchmark of costs: its textbook formulations are ours, and its figures are complete."""

import json

import pytest
import torch

from solo_dimreg.studies import bench


@pytest.mark.parametrize("case", bench.cases(), ids=lambda case: f"{case.name} {case.shape}")
def test_the_textbook_gives_the_same_loss_and_gradient(case):
    x = bench.features((256, min(512, case.shape[1])), seed=1).double()
    ours, textbook = (bench._value_and_gradient(loss, x) for loss in (case.ours, case.textbook))
    torch.testing.assert_close(ours, textbook, rtol=1e-4, atol=1e-9)
    assert bench._agree(ours, textbook)
    assert not bench._agree((ours[0], 1.1 * ours[1]), textbook)
    assert not bench._agree((1.1 * ours[0], ours[1]), textbook)


def test_medians_are_taken_in_turn():
    calls = []
    seconds = bench.medians([lambda: calls.append("a"), lambda: calls.append("b")], repeats=3)
    assert "".join(calls) == "ab" * 4 and len(seconds) == 2 and min(seconds) >= 0


@pytest.mark.slow
def test_memory_is_that_of_the_function():
    # A matrix of all pairs of 2,048 features takes 16 MiB; its sorted copy and their indices 48 MiB.
    ours, textbook = (
        bench.extra_memory("LDReg, k = 64", (2048, 2048), which) for which in ("ours", "textbook")
    )
    # Ours holds the matrix once, and the sums over close pairs.
    assert 16 * 2**20 < ours < 0.8 * textbook


def test_the_command_prints_json(here, monkeypatch):
    case = bench.Case("rank", (40, 20), lambda x: x.norm(), lambda x: (x**2).sum().sqrt())
    wrong = bench.Case("wrong", (40, 20), lambda x: x.norm(), lambda x: x.sum())
    monkeypatch.setattr(bench, "cases", lambda: [case])
    done = here("bench", "--json", "--no-steps", "--repeats", "1")
    content = json.loads(done.stdout)
    assert done.returncode == 0 and content["threads"] == torch.get_num_threads()
    (figure,) = content["figures"]
    assert figure["name"] == "rank" and figure["agrees"] is True and figure["ratio"] > 0
    monkeypatch.setattr(bench, "cases", lambda: [case, wrong])
    done = here("bench", "--no-steps", "--repeats", "1")
    assert done.returncode == 1 and "NO" in done.stdout
