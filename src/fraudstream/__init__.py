"""Streaming fraud detection for card transactions."""
