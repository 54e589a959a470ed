"""How hypothesis runs here."""

from hypothesis import settings

# No deadline per example: a busy machine is not a fault. The blob that is printed repeats a failure anywhere.
settings.register_profile("fraudstream", deadline=None, print_blob=True)
settings.load_profile("fraudstream")
