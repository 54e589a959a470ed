"""Looking at processes, without a library for it. Linux and macOS (`ps`)."""

import subprocess


def _processes() -> dict[int, tuple[int, str]]:
    """Process id -> (parent's id, state) of every process there is."""
    with subprocess.Popen(["ps", "-A", "-o", "pid=,ppid=,stat="], stdout=subprocess.PIPE, text=True) as ps:
        listing, _ = ps.communicate()
    rows = (line.split() for line in listing.splitlines())
    return {int(pid): (int(parent), state) for pid, parent, state in rows if int(pid) != ps.pid}


def descendants(pid: int) -> set[int]:
    """The ids of the processes below `pid`; those that have ended and only wait to be collected do not count."""
    processes = _processes()
    found: set[int] = set()
    level = {pid}
    while level:
        level = {child for child, (parent, _) in processes.items() if parent in level and child not in found}
        found |= level
    return {child for child in found if not processes[child][1].startswith("Z")}


def process_is_gone(pid: int) -> bool:
    """Whether no process has this id, or only one that has ended and waits to be collected."""
    row = _processes().get(pid)
    return row is None or row[1].startswith("Z")
