"""Processes of their own without the seconds that importing torch and transformers takes.

One process imports them and then forks a child for each command. The child has the command's arguments,
working directory, environment and pipes, and ends with its exit code; only its imports are warm. Tests whose
subject is the start itself (what is imported when, how fast an error comes) start a cold interpreter.
"""

from __future__ import annotations

import array
import atexit
import json
import os
import runpy
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

COMMAND, PYTHON = "effort-finetune", "python"
#: What a command of ours imports at most, but for what few commands need.
WARM = "import effort_finetune.cli.main, effort_finetune.train.finetuning, effort_finetune.predict.prediction"
#: Speaks for a command: hands over what it was started with, passes signals on, ends as the child ends.
_CLIENT = """#!{python} -SE
import array, json, os, signal, socket, sys
there = socket.socket(socket.AF_UNIX)
there.connect({address!r})
asked = json.dumps([os.path.basename(sys.argv[0]), sys.argv[1:], os.getcwd(), dict(os.environ)]).encode()
pipes = (socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [0, 1, 2]))
there.sendmsg([len(asked).to_bytes(4, "big")], [pipes])
there.sendall(asked)
child = int(there.recv(16))
for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
    signal.signal(number, lambda number, frame: os.kill(child, number))
code = int(there.recv(16) or b"70")
if code < 0:
    signal.signal(-code, signal.SIG_DFL)
    os.kill(os.getpid(), -code)
sys.exit(code)
"""


@contextmanager
def warm_commands(folder: Path) -> Iterator[Path]:
    """Yields a folder for the front of ``PATH`` whose ``effort-finetune`` and ``python`` start warm."""
    address = str(folder / "s")
    for name in (COMMAND, PYTHON):
        client = folder / name
        client.write_text(_CLIENT.format(python=sys.executable, address=address))
        client.chmod(0o755)
    server = subprocess.Popen(
        [sys.executable, __file__, address, str(os.getpid())],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
    )
    assert server.stdout is not None
    assert server.stdout.readline() == b"ready\n"
    try:
        yield folder
    finally:
        server.terminate()
        server.wait()


def serve(address: str, parent: int) -> None:
    """Answers until the tests' process is gone."""
    exec(WARM)
    sys.path.remove(str(Path(__file__).parent))
    here = socket.socket(socket.AF_UNIX)
    here.bind(address)
    here.listen(64)
    here.settimeout(5)
    print("ready", flush=True)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # whoever waits for a command is no affair of this one
    while os.getppid() == parent:
        try:
            connection, _ = here.accept()
        except TimeoutError:
            continue
        if os.fork() == 0:
            here.close()
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            connection.settimeout(None)
            _attend(connection)
        connection.close()


def _attend(connection: socket.socket) -> None:
    """Forks the command, waits for it or for its caller to go away, and tells how it ended."""
    size, ancillary, _, _ = connection.recvmsg(4, socket.CMSG_SPACE(3 * array.array("i").itemsize))
    descriptors = array.array("i")
    descriptors.frombytes(ancillary[0][2])
    asked = b""
    while len(asked) < int.from_bytes(size, "big"):
        asked += connection.recv(1 << 16)
    child = os.fork()
    if child == 0:
        connection.close()
        for target, descriptor in enumerate(descriptors):
            os.dup2(descriptor, target)
            os.close(descriptor)
        _become(*json.loads(asked))
    for descriptor in descriptors:
        os.close(descriptor)
    connection.sendall(f"{child}".ljust(16).encode())
    watched = os.pidfd_open(child)
    ready, _, _ = select.select([watched, connection], [], [])
    if watched not in ready:  # the caller was killed or ran out of time
        os.kill(child, signal.SIGKILL)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if watched in ready:
        connection.sendall(f"{code}".ljust(16).encode())
    os._exit(0)


def _become(name: str, arguments: list[str], folder: str, environment: dict[str, str]) -> None:
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    if name == PYTHON and (not arguments or (arguments[0].startswith("-") and arguments[0] != "-m")):
        os.execv(sys.executable, [sys.executable, *arguments])
    sys.path[:0] = [p for p in environment.get("PYTHONPATH", "").split(os.pathsep) if p]
    code: Any = 0
    try:
        if name == COMMAND:
            from effort_finetune.cli.main import main

            sys.argv = [name, *arguments]
            code = main(arguments)
        elif arguments[0] == "-m":
            sys.argv = arguments[1:]
            sys.path.insert(0, folder)
            runpy.run_module(arguments[1], run_name="__main__", alter_sys=True)
        else:
            sys.argv = arguments
            sys.path.insert(0, str(Path(arguments[0]).resolve().parent))
            runpy.run_path(arguments[0], run_name="__main__")
    except SystemExit as error:
        code = error.code
        if isinstance(code, str):
            print(code, file=sys.stderr)
            code = 1
    except BaseException:
        sys.excepthook(*sys.exc_info())  # type: ignore[arg-type]
        code = 1
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    os._exit(int(code or 0))


if __name__ == "__main__":
    serve(sys.argv[1], int(sys.argv[2]))
