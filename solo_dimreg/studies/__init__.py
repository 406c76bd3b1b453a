"""Comparisons of trained runs: the benchmarks, the claims, the sprites, the toy experiments, the costs."""
