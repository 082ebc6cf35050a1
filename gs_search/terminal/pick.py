"""What ``gs-search pick`` prints in a terminal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from gs_search.results.front import other_seeds

if TYPE_CHECKING:
    from rich.console import RenderableType

__all__ = ["pick_table"]


def pick_table(document: Mapping[str, Any]) -> RenderableType:
    """Draw the document: why, the choice beside its runners-up, the price of the next steps, noise, warnings."""
    from rich import box
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    teacher = document["teacher"]
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    chosen = {**document, "number": document["trial"], "tie": False}
    rows = [("pick", chosen), *(("", other) for other in document["runners_up"])]
    again = any(one["repeats"] for _, one in rows)
    for title in ("", "trial", "FID", *["other seeds"] * again, "GFLOPs", "MB", "of GFLOPs", "of MB", "ms"):
        table.add_column(title, justify="right")
    for role, one in rows:
        cost = one["objectives"]
        latency = one["latency_ms"]
        table.add_row(
            role, str(one["number"]), f"{cost['fid']:.1f}" + (" tie" if one["tie"] else ""),
            *[other_seeds(one["repeats"])] * again,
            f"{cost['gflops']:.4g}", f"{cost['size_mb']:.3g}", f"{cost['gflops'] / teacher['gflops']:.0%}",
            f"{cost['size_mb'] / teacher['size_mb']:.0%}",
            f"{latency:.1f}" if isinstance(latency, (int, float)) else "-",
            style="bold green" if role else "",
        )  # fmt: skip
    lines = [Text(f"pick of {document['study']}: trial {document['trial']}", style="bold green")]
    lines += [Text(sentence) for sentence in document["why"]]
    after = []
    if document["chance"]:
        after.append(Text(document["chance"]["text"], style="yellow" if document["chance"]["tie"] else ""))
        if not document["chance"]["seeds"]:
            advice = f"other seeds may change more than that: gs-search front {document['folder']} --reevaluate 3"
            after.append(Text(advice, style="dim"))
    if document["steps"]:
        after.append(Text("the next step:"))
        after += [Text(f"  {step['text']}") for step in document["steps"]]
    after += [Text(f"but {warning}", style="yellow") for warning in document["warnings"]]
    return Group(*lines, table, *after)
