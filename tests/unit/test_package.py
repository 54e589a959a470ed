"""What importing the package does, and does not do."""

import subprocess
import sys


def _printed(code: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env={"PATH": "/usr/bin:/bin"}
    )
    return done.stdout.strip()


def test_importing_switches_the_model_runtimes_usage_reports_off() -> None:
    """Whoever imports fraudstream before onnxruntime sends no usage report, unless they chose to."""
    assert _printed("import fraudstream, os; print(os.environ['ORT_DISABLE_TELEMETRY'])") == "1"


def test_importing_the_command_line_is_light() -> None:
    """`fraudstream --help` loads neither scikit-learn nor onnxruntime nor Faust."""
    heavy = "{'sklearn', 'onnxruntime', 'faust', 'skl2onnx', 'river'} & set(sys.modules)"
    assert _printed(f"import sys, fraudstream.cli; print({heavy} or 'light')") == "light"
