"""Compares: the benchmarks, the sprites, the toy experiments, the costs."""
