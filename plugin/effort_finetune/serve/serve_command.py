"""``effort-finetune serve``: a page on the own machine, where files are dropped and judged."""

from __future__ import annotations

import argparse
import os
import socket
import sys
import webbrowser
from importlib.util import find_spec
from pathlib import Path

from effort_finetune.config import Settings
from effort_finetune.core.counted import counted
from effort_finetune.core.errors import UserError
from effort_finetune.core.files import ensure_writable_dir
from effort_finetune.core.locks import holder
from effort_finetune.predict.command_settings import add_judging_arguments, judging_settings
from effort_finetune.serve.page_address import TOKEN_VARIABLE, chosen_token, listen
from effort_finetune.serve.page_limits import MIB, PageLimits

NAME = "serve"
HELP = (
    "Open a page on this machine: files and folders that are dropped on it are judged as `predict` does it. "
    "Nothing leaves the machine."
)
_NEEDED = {"fastapi": "fastapi", "uvicorn": "uvicorn", "python_multipart": "python-multipart"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the weights, the address and the bounds."""
    parser.add_argument("--weights", type=Path, required=True, help="a fine-tuned or released checkpoint")
    parser.add_argument(
        "--folder",
        type=Path,
        default=Path("effort_page"),
        help="rows and their pictures (default: %(default)s)",
    )
    parser.add_argument(
        "--corrections", type=Path, help="files judged wrongly (default: corrections in --folder)"
    )
    parser.add_argument(
        "--listen", default="127.0.0.1", metavar="ADDRESS", help="default: %(default)s, this machine alone"
    )
    parser.add_argument("--port", type=int, default=8765, help="0 takes any free one (default: %(default)s)")
    parser.add_argument(
        "--token",
        help=f"what a browser must bring, or ${TOKEN_VARIABLE} (default: a new one, on this machine none)",
    )
    parser.add_argument(
        "--allow_host",
        action="append",
        default=[],
        metavar="NAME",
        help="another name of this page; may be repeated",
    )
    parser.add_argument("--open", action="store_true", help="open the page in the browser")
    parser.add_argument(
        "--no_heat", action="store_true", help="do not show where the model looked, which takes time"
    )
    add_judging_arguments(parser, batch=8)
    parser.add_argument("--max_file_mb", type=int, default=2048, help="of one file (default: %(default)s)")
    parser.add_argument(
        "--max_kept_mb",
        type=int,
        default=20480,
        help="of all files that lie in --folder (default: %(default)s)",
    )


def run(args: argparse.Namespace, context: object) -> int:
    """Serves the page until it is asked to stop; then 0.

    Raises:
        UserError: If anything asked for is wrong; no weights have been read then.
    """
    settings, limits = _checked(args)
    # Names that need fastapi, in a file that must say how to get it.
    from effort_finetune.serve.gate import Gate, is_local, own_names

    token = chosen_token(args.token, local=is_local(args.listen))
    with listen(args.listen, args.port) as listening:
        port = listening.getsockname()[1]
        names = own_names(args.listen, args.allow_host, machine=socket.gethostname())
        gate = Gate(names, any_address=not is_local(args.listen), token=token)
        print(f"reading {args.weights}", file=sys.stderr, flush=True)

        os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")  # a damaged file has its row
        # torch, not needed for what is checked above
        from effort_finetune.predict.heat_files import HeatMapper
        from effort_finetune.predict.prediction import load_predictor
        from effort_finetune.serve.open_page import open_page
        from effort_finetune.serve.page_app import page_app
        from effort_finetune.serve.page_server import serve_until_asked

        predictor = load_predictor(
            args.weights, settings, faces=args.faces, predictor=args.predictor, threshold=args.threshold
        )
        heat = None if args.no_heat else HeatMapper(predictor)
        with open_page(
            args.folder, predictor, corrections=args.corrections, limits=limits, heat=heat
        ) as page:
            for line in predictor.lines():
                print(line, file=sys.stderr)
            again = page.store.count("expected")
            if again:
                print(
                    f"{counted(again, 'file was', 'files were')} "
                    "not finished: the page names what to drop again",
                    file=sys.stderr,
                )
            address = _address(args.listen, port, token)
            print(f"the page is at {address}  (Ctrl-C ends it)", flush=True)
            if args.open:
                webbrowser.open(address)
            reason = serve_until_asked(page_app(page, gate, port=port), listening)
            left = page.store.count("expected", "waiting")
        print(
            f"{reason}: the page has ended, files that were dropped are removed; rows stay in {args.folder}"
            + (f"; {counted(left, 'file was', 'files were')} not finished" if left else ""),
            file=sys.stderr,
        )
    return 0


def _checked(args: argparse.Namespace) -> tuple[Settings, PageLimits]:
    missing = [package for module, package in _NEEDED.items() if find_spec(module) is None]
    if missing:
        raise UserError(
            "serve", got=f"no {', '.join(missing)}", expected="the extra `web`",
            next_step="pip install 'effort-finetune[web]'",
        )  # fmt: skip
    for flag in ("max_file_mb", "max_kept_mb"):
        if getattr(args, flag) < 1:
            raise UserError(f"--{flag}", got=getattr(args, flag), expected="1 or more")
    if args.max_file_mb > args.max_kept_mb:
        raise UserError(
            "--max_file_mb", got=args.max_file_mb, expected=f"at most --max_kept_mb {args.max_kept_mb}"
        )
    settings = judging_settings(args)
    ensure_writable_dir(args.folder, what="page folder", flag="--folder")
    found = holder(args.folder)
    if found is not None:
        raise UserError(
            f"page folder {args.folder} is in use", got=str(found),
            next_step="use the page that is open, or choose another --folder",
        )  # fmt: skip
    return settings, PageLimits(file_bytes=args.max_file_mb * MIB, kept_bytes=args.max_kept_mb * MIB)


def _address(listened: str, port: int, token: str | None) -> str:
    name = {"0.0.0.0": socket.gethostname(), "::": socket.gethostname()}.get(listened, listened)
    name = f"[{name}]" if ":" in name else name
    return f"http://{name}:{port}/" + (f"?token={token}" if token else "")
