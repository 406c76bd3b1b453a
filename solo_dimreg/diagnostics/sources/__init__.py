"""What can be diagnosed: arrays, checkpoints, timm models and images."""
