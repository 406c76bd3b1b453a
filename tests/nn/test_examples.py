"""The examples in the docstrings run."""

import doctest

import pytest
import torch

import solo_dimreg

MODULES = [name for name in solo_dimreg.__all__ if name != "__version__"]


@pytest.mark.parametrize("name", MODULES)
def test_example(name):
    module = getattr(solo_dimreg, name)
    names = {"torch": torch, **vars(solo_dimreg)}
    (example, *_) = doctest.DocTestFinder(recurse=False).find(module, name, globs=names)
    assert doctest.DocTestRunner().run(example).failed == 0
    assert example.examples or name == "ShuffledDBN"
