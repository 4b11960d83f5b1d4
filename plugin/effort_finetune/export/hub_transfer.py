"""A model hub: a folder goes up to an id, an id comes down to a folder, and every failure is one line."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from effort_finetune.core.errors import UserError
from effort_finetune.core.whole_folder import whole_folder

#: What a hub folder holds, beside one file of weights.
CARD, RESULTS = "README.md", "results.json"
WEIGHTS = ("effort.pth", "adapter.safetensors")
_FILES = (CARD, RESULTS, *WEIGHTS)


def push(folder: Path, hub_id: str, *, private: bool = False, revision: str | None = None) -> str:
    """Uploads a hub folder, and makes the repository where there is none.

    Args:
        folder: Of ``export --to hub-folder``.
        hub_id: ``OWNER/NAME``.
        private: Whether a new repository is private.
        revision: Branch; ``None`` is ``main``.

    Returns:
        The commit's address.

    Raises:
        UserError: If the folder is none, or the hub refuses or cannot be reached.
    """
    lacking = [name for name in (CARD, RESULTS) if not (folder / name).is_file()]
    if lacking or not any((folder / name).is_file() for name in WEIGHTS):
        raise UserError(
            f"hub folder {folder}",
            got="no " + ", ".join(lacking or [" or ".join(WEIGHTS)]),
            expected="what export wrote",
            next_step="effort-finetune export RUN_FOLDER --to hub-folder --output FOLDER",
        )
    with _said("push to", hub_id):
        from huggingface_hub import HfApi

        api = HfApi()
        api.create_repo(hub_id, private=private, exist_ok=True)
        done = api.upload_folder(
            repo_id=hub_id,
            folder_path=folder,
            allow_patterns=list(_FILES),
            revision=revision,
            commit_message="Weights, model card and results of effort-finetune",
        )
        return str(done.commit_url)


def pull(hub_id: str, folder: Path, *, revision: str | None = None) -> tuple[Path, ...]:
    """Downloads the files of a hub folder, all of them or nothing.

    Args:
        hub_id: ``OWNER/NAME``.
        folder: Where they shall be.
        revision: Branch, tag or commit; ``None`` is ``main``.

    Returns:
        The files.

    Raises:
        UserError: If the repository holds no weights of ours, or the hub refuses or cannot be reached.
    """
    with whole_folder(folder) as made:
        with _said("pull from", hub_id):
            from huggingface_hub import snapshot_download

            snapshot_download(
                hub_id, revision=revision, allow_patterns=list(_FILES), local_dir=made, max_workers=2
            )
        shutil.rmtree(made / ".cache", ignore_errors=True)
        found = sorted(path.name for path in made.iterdir() if path.is_file())
        if not any(name in found for name in WEIGHTS):
            raise UserError(
                f"pull from {hub_id}",
                got=f"a repository without {' or '.join(WEIGHTS)}",
                expected="one that `effort-finetune hub push` made",
                next_step="download its file of weights by hand: `inspect` knows every public layout",
            )
    return tuple(folder / name for name in found)


@contextmanager
def _said(doing: str, hub_id: str) -> Iterator[None]:
    """Turns what the hub's library raises into one line with the next step."""
    from huggingface_hub import errors

    try:
        yield
    except (errors.HFValidationError, errors.HfUriError) as error:
        raise UserError(f"{doing} {hub_id!r}", got=_line(error), expected="OWNER/NAME") from error
    except errors.OfflineModeIsEnabled as error:
        raise UserError(
            f"{doing} {hub_id}", got="offline mode", expected="a network", next_step="unset HF_HUB_OFFLINE"
        ) from error
    except errors.LocalTokenNotFoundError as error:
        raise UserError(
            f"{doing} {hub_id}", got="no token here", next_step="`hf auth login`, or set HF_TOKEN"
        ) from error
    except errors.RepositoryNotFoundError as error:
        raise UserError(
            f"{doing} {hub_id}",
            got="no such repository, or none that this token may see",
            next_step="check the id; for a private one `hf auth login`, or set HF_TOKEN",
        ) from error
    except errors.HfHubHTTPError as error:
        status = getattr(error.response, "status_code", None)
        step = "`hf auth login`, or set HF_TOKEN" if status in (401, 403) else "try again later"
        raise UserError(f"{doing} {hub_id}", got=_line(error), next_step=step) from error
    except UserError:
        raise
    except Exception as error:  # the library's HTTP client has its own family of errors
        if not _is_network(error):
            raise
        raise UserError(
            f"{doing} {hub_id}",
            got=f"no answer ({_line(error)})",
            expected="the hub, or the server of HF_ENDPOINT",
            next_step="check the network, or carry the folder by hand",
        ) from error


def _is_network(error: BaseException | None) -> bool:
    while error is not None:
        module = type(error).__module__.partition(".")[0]
        if isinstance(error, (OSError, EOFError)) or module in ("httpx", "httpx2", "httpcore", "requests"):
            return True
        error = error.__cause__ or error.__context__
    return False


def _line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
