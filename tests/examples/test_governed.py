"""`python examples/governed`: it comes out as promised, and says so when it doesn't; the pages show what is in it."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
GOVERNED = ROOT / "examples/governed"


def run(folder: Path, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, str(folder)], cwd=cwd, capture_output=True, text=True, check=False)


def rows(shown: str) -> list[tuple[str, str]]:
    """Of each call, what it calls and what came of it."""
    return re.findall(r"^\w[\w ]+? +(?:ann|bob|dan|zoe|anonymous) +(\S+) \{.*\} +(\w+) +\S", shown, re.MULTILINE)


def test_every_script_comes_out_as_promised_and_the_table_says_why(tmp_path: Path) -> None:
    done = run(GOVERNED, tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stderr == ""
    assert done.stdout.endswith("\nAs promised\n")
    assert {outcome for _, outcome in rows(done.stdout)} == {
        "allowed",
        "denied",
        "limited",
        "retried",
        "cached",
        "failed",
    }
    for call in (
        ("rates:get", "retried"),
        ("rates:get", "cached"),
        ("mail:send", "failed"),
        ("payroll:list", "denied"),
    ):
        assert call in rows(done.stdout)
    assert "access: refunds:* (policy.yaml:" in done.stdout
    assert "only a supervisor may do that" in done.stdout
    assert "over the rate limit 'route reports:*'" in done.stdout


def test_another_policy_comes_out_otherwise_and_is_found_out(tmp_path: Path) -> None:
    folder = tmp_path / "governed"
    shutil.copytree(GOVERNED, folder)
    policy = folder / "policy.yaml"
    policy.write_text(policy.read_text(encoding="utf-8").replace("le: 100", "le: 1000"), encoding="utf-8")
    done = run(folder, tmp_path)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "NOT as promised" in done.stdout
    assert "refunds: ['allowed', 'allowed']" in done.stdout


def test_the_policy_that_a_page_shows_is_the_examples() -> None:
    page = (ROOT / "docs/how-to/access-rules.md").read_text(encoding="utf-8")
    policies = re.findall(r"^```yaml\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    assert policies == [(GOVERNED / "policy.yaml").read_text(encoding="utf-8")]
