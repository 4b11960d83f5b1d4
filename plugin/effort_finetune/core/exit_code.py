"""How an error leaves a command: one line on stderr and an exit code."""

from __future__ import annotations

import atexit
import gc
import os
import sys
from collections.abc import Callable

from effort_finetune.core.errors import EXIT_RUN_FAILURE, EXIT_USER_ERROR, RunFailure, UserError
from effort_finetune.core.escaping import LINE_LIMIT, visible
from effort_finetune.core.launch import is_first

EXIT_INTERRUPTED = 130  # 128 + SIGINT, as shells have it

# The interpreter's last garbage collection would go through every object that torch and transformers made: a
# second or more, after all was printed and written, in which a command seems to hang.
atexit.register(gc.freeze)


def exit_code(work: Callable[[], int], *, debug: bool = False) -> int:
    """Does the work and turns its errors into one line on stderr and an exit code.

    Args:
        work: Returns 0 when all went well.
        debug: Let errors through, with their tracebacks.
    """
    try:
        return work()
    except (UserError, RunFailure) as error:
        if debug:
            raise
        who = "" if is_first() else f"process {os.environ.get('RANK')}: "
        for line in str(error).splitlines():
            print(f"{who}error: {visible(line, limit=LINE_LIMIT)}", file=sys.stderr)
        return EXIT_USER_ERROR if isinstance(error, UserError) else EXIT_RUN_FAILURE
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if debug or package in ("", "effort_finetune"):
            raise
        print(
            f"error: the package {package!r} is not installed for this Python; got {sys.executable}; "
            "next: install it there, or use the Python that the plugin was installed for",
            file=sys.stderr,
        )
        return EXIT_USER_ERROR
    except KeyboardInterrupt:
        if debug:
            raise
        print("error: interrupted by the user", file=sys.stderr)
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        # The reader (`| head`) left; Python would complain again when it flushes stdout at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_RUN_FAILURE
    except (OSError, MemoryError) as error:
        if debug:
            raise
        reason = str(error) or "the machine ran out of memory"
        print(f"error: {visible(reason, limit=LINE_LIMIT)}", file=sys.stderr)
        return EXIT_RUN_FAILURE
