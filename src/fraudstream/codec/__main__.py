"""Render the schemas and the AsyncAPI document: `python -m fraudstream.codec --write`, or `--check` that they are current."""

import argparse
import sys
from pathlib import Path

from fraudstream.codec.asyncapi import render_asyncapi
from fraudstream.codec.schemas import render_schemas, to_text


def rendered_files() -> dict[str, str]:
    """The text of every rendered file by its path below `docs/reference`."""
    texts = {f"schemas/{name}": to_text(schema) for name, schema in render_schemas().items()}
    return texts | {"asyncapi.json": to_text(render_asyncapi())}


def main() -> int:
    """Write the files, or say which are not current (exit code 1)."""
    parser = argparse.ArgumentParser(prog="python -m fraudstream.codec", description=__doc__)
    task = parser.add_mutually_exclusive_group(required=True)
    task.add_argument("--write", action="store_true", help="write every file")
    task.add_argument("--check", action="store_true", help="write nothing; name the files that are not current")
    parser.add_argument("--directory", type=Path, default=Path("docs/reference"), help="default: docs/reference")
    arguments = parser.parse_args()
    stale = 0
    for name, text in rendered_files().items():
        path = arguments.directory / name
        if path.is_file() and path.read_text(encoding="utf-8") == text:
            continue
        stale += 1
        sys.stdout.write(f"{path}\n")
        if arguments.write:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
    return 1 if stale and arguments.check else 0


if __name__ == "__main__":
    sys.exit(main())
