"""The inputs of a diagnosis: arrays, checkpoints, timm models and images."""
