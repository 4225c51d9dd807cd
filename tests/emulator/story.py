"""How far the story of an estate went, kept in a small file from one process to the next."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path


@dataclass(frozen=True)
class Story:
    """When an estate was born, to the second, and how many times it was started again since."""

    born: datetime
    step: int = 0


class StoryError(Exception):
    """A state file that cannot be read."""


def load_story(path: Path | None) -> Story:
    """The story of this start: one step on from the file, or a new one if there is none. Raises `StoryError`."""
    if path is None or not path.exists():
        return Story(datetime.now(timezone.utc).replace(microsecond=0))
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        born, step = datetime.fromisoformat(document["born"]), int(document["step"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise StoryError(f"cannot read state file {path}: {error!r}; delete it to begin anew") from error
    if born.tzinfo is None:
        raise StoryError(f"cannot read state file {path}: born has no time zone; delete it to begin anew")
    return Story(born, step + 1)


def save_story(path: Path | None, story: Story) -> None:
    """Write the file, whole or not at all. Raises OSError."""
    if path is None:
        return
    draft = path.with_name(path.name + ".new")
    draft.write_text(json.dumps({"born": story.born.isoformat(), "step": story.step}) + "\n", encoding="utf-8")
    draft.replace(path)
