"""The page that sizes a cluster holds what its arithmetic gives."""

import re
from pathlib import Path

from benchmarks.report import CARDS, PLANNED, TERMINALS, put

from fraudstream.benchmark.plan import Costs, clusters_told

PAGE = (Path(__file__).parents[2] / "docs/how-to/size-a-cluster.md").read_text("utf-8")


def between(name: str) -> str:
    """A table of the page."""
    found = re.search(rf"<!-- {name} -->(.*?)<!-- /{name} -->", PAGE, re.DOTALL)
    assert found is not None
    return found.group(1).strip()


def test_the_clusters_follow_from_the_costs_on_the_page() -> None:
    """Taking the costs from the page's first table and computing anew gives its second table, digit for digit."""
    costs = [float(text) for text in re.findall(r"\| ([\d.]+) (?:µs|bytes) \|", between("costs"))]
    assert len(costs) == len(Costs.__struct_fields__)
    assert between("clusters") == clusters_told(Costs(*costs), PLANNED, cards=CARDS, terminals=TERMINALS)


def test_tables_are_put_where_their_comments_are() -> None:
    """Measured tables replace the old ones between their comments, and nothing else."""
    page = "a\n<!-- x -->\nold\n<!-- /x -->\nb <!-- y --><!-- /y -->"
    assert put(page, {"x": "new"}) == "a\n<!-- x -->\n\nnew\n\n<!-- /x -->\nb <!-- y --><!-- /y -->"
