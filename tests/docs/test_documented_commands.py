"""Every command the documentation shows is run, in the order it is shown, on small data.

Paths that only a user has stand in the text as ``/path/to/...``; here they are small stand-ins. What is
run elsewhere, or builds an environment, is named in ``ELSEWHERE`` with the place that runs it.
"""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
ELSEWHERE = {
    "make demo": "tests/docs/test_demo.py",
    "make test": "this very run",
    "make generate": "tests/docs/test_generated.py",
    "make docs": "tests/docs/test_site.py",
    "make bench": "tens of minutes, quiet machine; tests/unit/benchmarks runs it with tiny sizes",
    "DEEPFAKEBENCH_ROOT=/path/to/DeepfakeBench .venv/bin/python -m pytest tests/host": "a real checkout",
    ".venv/bin/python -m pytest tests/gpu": "part of this very run where there is an accelerator",
    ".venv/bin/python benchmarks/run.py --device cuda": "a machine with CUDA",
    "effort-finetune evaluate --host /path/to/DeepfakeBench --model_name xception  "
    "--weights /path/to/xception_best.pth --test_dataset UADFV": "tests/unit/evaluate/test_host_detector.py",
    "effort-finetune finetune --host /path/to/DeepfakeBench --model_name xception  "
    "--train_dataset UADFV --test_dataset UADFV --output_dir xception_run": (
        "tests/unit/train/test_foreign_detector.py"
    ),
    "pip install -e . -c constraints.txt": "Makefile, .venv/.ready",
    "effort-finetune serve --weights /path/to/effort.pth --open": "tests/unit/serve/test_serve_command.py",
    "effort-finetune serve --weights /path/to/effort.pth --listen 0.0.0.0 --allow_host lab.example": (
        "tests/unit/serve/test_gate.py and test_serve_command.py"
    ),
    'curl -F files=@portrait.jpg -F files=@clip.mp4 "http://127.0.0.1:8765/predict?stability=true"': (
        "tests/unit/serve/test_judging.py"
    ),
}


def commands(page: Path) -> list[str]:
    """Returns the commands of a page's bash blocks, continuation lines joined, comments dropped."""
    found = []
    for block in re.findall(r"^```bash\n(.*?)^```", page.read_text(encoding="utf-8"), re.S | re.M):
        for line in re.sub(r"\\\n\s*", " ", block).splitlines():
            line = re.sub(r"\s+#\s.*$", "", line).strip()
            if line and not line.startswith("#"):
                found.append(line)
    return found


def _stand_in(command: str, clone: Path, scratch: Path) -> str:
    weights = clone / "DeepfakeBench" / "training" / "pretrained" / "demo_effort_familyA.pth"
    command = re.sub(r"/path/to/[\w.-]+\.pth", str(weights), command)
    command = re.sub(r"/path/to/CLIP\b", str(weights.parent / "demo_clip"), command)
    return command.replace("/path/to/DeepfakeBench", str(scratch / "DeepfakeBench"))


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_the_commands_of_a_page_run(page, clone, warm_environment, tmp_path):
    found = commands(page)
    if not found:
        assert "```bash" not in page.read_text(encoding="utf-8")
        return
    subprocess.run(["cp", "-r", str(clone), str(tmp_path / "repo")], check=True)
    subprocess.run(["cp", "-r", str(clone / "DeepfakeBench"), str(tmp_path / "DeepfakeBench")], check=True)
    todo = [c for c in found if c not in ELSEWHERE]
    script = "\n".join(["set -e", *(_stand_in(command, tmp_path / "repo", tmp_path) for command in todo)])
    done = subprocess.run(
        ["bash", "-c", script],
        cwd=tmp_path / "repo",
        env=warm_environment,
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, f"{script}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"


def test_what_is_run_elsewhere_is_still_documented():
    documented = {command for page in PAGES for command in commands(page)}
    assert set(ELSEWHERE) <= documented


def test_every_make_target_in_the_documentation_exists():
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.M))
    used = {w for page in PAGES for c in commands(page) for w in re.findall(r"^make ([\w-]+)", c)}
    assert used
    assert used <= targets


def test_links_between_pages_lead_somewhere():
    for page in PAGES:
        for target in re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text(encoding="utf-8")):
            assert (page.parent / target).exists(), f"{page.name} -> {target}"
