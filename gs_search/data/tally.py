"""What became of the files of a folder: how many were taken for what, how many were left out, and why."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

__all__ = ["Tally"]


@dataclass(frozen=True, kw_only=True)
class Tally:
    """The files of one folder, or of the folders of one domain."""

    where: str
    """The folder, as errors name it."""
    asked: Mapping[str, int]
    """Split to the number of pictures that the study asks for."""
    taken: Mapping[str, int]
    """Split to the number that it has."""
    spare: int
    """Pictures beyond what is asked for, or left over where splits are shared out."""
    left_out: Mapping[str, int]
    """Reason to the number of files that are left out for it."""
    treated: Mapping[str, int]
    """What was done to pictures that were looked at, to their number."""
    named: tuple[str, ...]
    """One line for each file that should be a usable picture and is none."""
    side_by_side: bool
    """Nearly all pictures are twice as wide as high, as two side by side are."""

    def line(self) -> str:
        """All numbers in one line."""
        splits = []
        for split, count in sorted(self.taken.items(), key=lambda item: _ORDER.index(item[0])):
            asked = self.asked[split]
            splits.append(f"{split} {count}" + (f" of {asked}" if count < asked else ""))
        parts = [f"{self.where}: {sum(self.taken.values())} pictures ({', '.join(splits)})"]
        if self.spare:
            parts[0] += f", {self.spare} more to spare"
        parts += [_listed("", self.treated)] if self.treated else []
        parts += [_listed("left out: ", self.left_out)] if self.left_out else []
        return "; ".join(parts)

    def notes(self) -> list[str]:
        """The first few of ``named``, how many more there are, and what looks wrong."""
        lines = [f"{line}; passed over" for line in self.named[:_SHOWN]]
        if self.named[_SHOWN:]:
            lines.append(f"{self.where}: {len(self.named) - _SHOWN} more are passed over")
        if self.side_by_side:
            lines.append(
                f"{self.where}: nearly all are twice as wide as high, as two pictures side by side are; "
                "data.kind: pairs takes both, data.side: left or right one; without either a view shows the middle"
            )
        return lines

    def to_json(self) -> dict[str, Any]:
        """The same as plain data."""
        return {name: dict(part) if isinstance(part, Mapping) else part for name, part in vars(self).items()}


_SHOWN = 5
_REASONS = 8
_ORDER = ("train", "val", "test", "reference")


def _listed(title: str, counts: Mapping[str, int]) -> str:
    # What should have been a picture comes first.
    ranked = sorted(counts.items(), key=lambda item: (item[0].endswith("no images"), -item[1], item[0]))
    parts = [f"{count} {what}" for what, count in ranked[:_REASONS]]
    if rest := ranked[_REASONS:]:
        parts.append(f"{sum(count for _, count in rest)} for {len(rest)} other reasons")
    return title + ", ".join(parts)
