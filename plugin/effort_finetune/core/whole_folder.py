"""A folder of several files that is written as a whole, or left as it was."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from effort_finetune.core import temporaries
from effort_finetune.core.files import ensure_writable_dir, replace
from effort_finetune.core.locks import hold


@contextmanager
def whole_folder(folder: Path | str) -> Iterator[Path]:
    """Gives a temporary folder to write into; at the end of the block its files are put in place together.

    A block that raises leaves nothing. A folder that is new appears with one rename; in one that is there
    the files are replaced one after the other, locked, once all of them are on the disk.

    Args:
        folder: Where the files shall be; what else it holds stays.

    Raises:
        UserError: If it cannot be written, or another process writes it.
        RunFailure: If the files cannot be put in place.
    """
    folder = Path(folder)
    parent = ensure_writable_dir(folder.absolute().parent, what="folder above the output", flag="--output")
    temporaries.remove_dead(parent)
    with temporaries.folder(parent, folder.name) as hidden:
        made = hidden / folder.name
        made.mkdir()  # with the rights of any new folder, which a temporary one has not
        yield made
        if not folder.exists():
            try:
                os.rename(made, folder)
            except OSError:  # another process made it meanwhile, or it cannot be: said below
                pass
            else:
                return
        with hold(ensure_writable_dir(folder, flag="--output"), what="output folder"):
            for path in sorted(made.iterdir()):
                replace(path, folder / path.name)
