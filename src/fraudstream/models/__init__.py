"""Packaged models: training, registry, serving, explanation."""
