"""The settings that decide how a folder is read and divided, in one object that a result can state."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

from effort_finetune.data.class_words import ClassWords
from effort_finetune.data.index import SPLITS

if TYPE_CHECKING:
    from effort_finetune.config import Settings


@dataclass(frozen=True)
class FolderOptions:
    """How a folder is read and divided; equal options and equal pictures give equal splits.

    Attributes:
        seed: Of the division and of ``limit``.
        shares: Of ``train``, ``val`` and ``test`` where the folder has no splits of its own.
        identity: The user's pattern of a person, None for the rules.
        samples: ``auto``, ``stills`` or ``videos``.
        real_folders: Patterns in place of the words for real.
        fake_folders: Patterns in place of the words for fake.
    """

    seed: int = 1024
    shares: tuple[float, float, float] = (0.8, 0.1, 0.1)
    identity: str | None = None
    samples: str = "auto"
    real_folders: tuple[str, ...] = ()
    fake_folders: tuple[str, ...] = ()

    @classmethod
    def of(cls, settings: Settings) -> FolderOptions:
        """The options of a run."""
        return cls(
            settings.manualSeed,
            settings.folder_shares,
            settings.identity,
            settings.folder_samples,
            settings.real_folders,
            settings.fake_folders,
        )

    @property
    def words(self) -> ClassWords:
        """How names of folders tell classes."""
        return ClassWords(self.real_folders, self.fake_folders)

    def ratios(self, *splits: str) -> dict[str, float]:
        """The shares of some splits, stretched to the sum 1."""
        chosen = {s: share for s, share in zip(SPLITS, self.shares, strict=True) if s in splits}
        total = sum(chosen.values())
        return {split: share / total for split, share in chosen.items()} if total else {}

    def to_dict(self) -> dict[str, Any]:
        """JSON types only."""
        return {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(self).items()}

    def as_stated(self, record: Mapping[str, Any]) -> FolderOptions:
        """These options with what a weights file's record says in their place."""
        known = {key: record[key] for key in asdict(self) if key in record}
        values: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in known.items()}
        return replace(self, **values)
