"""Streaming fraud detection for card transactions."""

import os

# onnxruntime (from 1.29 on) reports its use to its maker unless told not to. A bank's worker reports to nobody.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
