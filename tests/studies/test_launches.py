"""Count the device operations of each loss, and hold their limits, so that they cannot creep."""

import json

import pytest
import torch

from solo_dimreg import AdaDim, LDReg
from solo_dimreg.functional import t_reg_loss
from solo_dimreg.studies import launches
from solo_dimreg.studies.bench import TERMS
from solo_dimreg.studies.bench_cases import cases, features

# The most device operations forward and backward, and the most waits.
LIMITS = {
    "effective rank": (47, 43, 1),
    "DBN": (33, 30, 1),
    "DirectCLR": (39, 27, 0),
    "uniformity": (26, 28, 0),
    "Wasserstein uniformity": (67, 55, 1),
    "SIGReg": (144, 194, 0),
    "VISReg": (41, 53, 0),
    "T-REG": (14, 23, 1),
    "KoLeo": (60, 45, 0),
    "LDReg, k = 64": (60, 40, 0),
}


FEW = {
    case.name: case for case in reversed(cases()) if case.name in LIMITS
}.values()  # the smallest of a name


@pytest.mark.parametrize("case", FEW, ids=lambda case: case.name)
def test_losses_keep_to_their_limits(case):
    found = launches.count(case.name, "ours", case.ours, [features(case.shape)])
    forward, backward, waits = LIMITS[case.name]
    assert 0 < found.forward <= forward and 0 < found.backward <= backward
    assert found.waits <= waits and found.collectives == 0


@pytest.mark.slow
@pytest.mark.parametrize("method", launches.STEPS)
def test_a_training_step_waits_for_nothing_of_ours(method):
    ours, theirs = (launches.count_step(method, who) for who in ("ours", "solo-learn"))
    # LDReg gathers two views, and of BYOL the momentum encoder's too; the gradients of the views come back.
    messages = {"simclr": 4, "byol": 6}[method]
    # The current solo-learn sends its logged values too.
    assert ours.waits == theirs.waits and ours.collectives - theirs.collectives == messages
    assert 0 < ours.forward - theirs.forward <= 140  # of LDReg, in both passes, the monitor and the callback


def test_views_are_free_and_waits_are_found():
    x = torch.randn(4, 4)
    found = launches.count("views", "ours", lambda x: x.view(2, 8).t()[1:].unsqueeze(0).detach(), [x])
    assert (found.forward, found.backward, found.waits) == (0, 0, 0)
    found = launches.count("two", "ours", lambda x: (x * 2).sin(), [x])
    assert (found.forward, found.waits, found.on) == (2, 0, "4x4") and found.backward >= 2
    waits = (
        *(
            lambda x: x.sum().item(),
            lambda x: x.detach()[x > 0],
            lambda x: bool((x > 0).all()),
            torch.nonzero,
        ),
        *(
            lambda x: torch.unique(x.detach()),
            lambda x: torch.equal(x, x),
            lambda x: x.detach().cpu(),
            lambda x: x.tolist(),
        ),
        *(lambda x: t_reg_loss(x.detach()), lambda x: x.masked_select(x > 0)),
    )
    for wait in waits:
        assert launches.count("waits", "ours", wait, [x]).waits == 1


@pytest.mark.parametrize(
    ("module", "call", "collectives"),
    [
        (LDReg(k=4), lambda m, x: m([x]), 4),
        (AdaDim(), lambda m, x: m([x, x.sin()], [x.cos(), x.tanh()]), 9),
        (AdaDim(gamma=0), lambda m, x: m([x, x.sin()], [x.cos(), x.tanh()]), 5),
    ],
)
def test_modules_send_what_they_need_and_do_not_wait_between_estimates(module, call, collectives):
    x = torch.randn(16, 8, generator=torch.Generator().manual_seed(0))
    found = launches.count("module", "ours", lambda x: call(module, x), [x])
    assert (found.waits, found.collectives) == (0, collectives)


def test_a_step_that_estimates_the_ranks_waits():
    x = torch.randn(16, 8, generator=torch.Generator().manual_seed(0))
    module = AdaDim(rank_every=1)
    assert launches.count("module", "ours", lambda x: module([x, x.sin()], [x, x.cos()]), [x]).waits == 1


def test_collectives_are_counted(tmp_path):
    group = torch.distributed
    group.init_process_group("gloo", init_method=f"file://{tmp_path}/group", rank=0, world_size=1)
    try:
        found = launches.count("sum", "ours", lambda x: group.all_reduce(x.detach()), [torch.ones(2)])
    finally:
        group.destroy_process_group()
    assert (found.collectives, found.forward) == (1, 0)


def test_the_command_counts_every_term_and_prints_json(here, monkeypatch):
    monkeypatch.setattr(launches, "cases", lambda: FEW)
    monkeypatch.setattr(launches, "STEPS", ())
    done = here("bench", "--launches", "--json")
    assert done.returncode == 0, done.stderr
    counts = json.loads(done.stdout)
    names = {each["name"] for each in counts}
    assert names >= {*LIMITS, "divergence callback", *(f"term {term}" for term in TERMS)}
    assert all(each["forward"] > 0 for each in counts)
    assert {each["who"] for each in counts} == {"ours", "textbook"}
    done = here("bench", "--launches")
    lines = done.stdout.splitlines()
    assert done.returncode == 0 and lines[1].split()[-2:] == ["waits", "collectives"]
    assert max(map(len, lines)) <= 80
