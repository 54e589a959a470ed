"""The tests, by level; what they share is in `tests.support` and the fixtures in `tests/conftest.py`."""
