"""What runs the pages finds out when one of them shows what isn't so."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.docs.commands import environment

ROOT = Path(__file__).parents[2]
SERVE = """\
```console
$ enclave-broker serve
serving at http://127.0.0.1:8000, API at http://127.0.0.1:8000/docs
```
"""


def do(folder: Path, page: str, **more: str) -> subprocess.CompletedProcess[str]:
    (folder / "page.md").write_text(page, encoding="utf-8")
    command = [sys.executable, "-m", "tests.docs.page", "page.md", str(ROOT / "docs/tutorial.md")]
    return subprocess.run(command, cwd=folder, env=environment() | more, capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    "block",
    [
        "```console\n$ enclave-broker tools list\nnothing\n```\n",
        "```console\n$ rm -r nothing\n```\n",
        "```console\n$ enclave-broker serve --port nothing\nserving at …\n```\n",
        f"{SERVE}```console\n$ curl localhost:8000/healthz\nanother answer\n```\n",
        f"{SERVE}```console\n$ curl localhost:8000/healthz\nwhat never comes\n^C\n```\n",
        f"{SERVE}```javascript\nconsole.log(1);\n// prints 2\n```\n",
        "```javascript\nthrow new Error();\n```\n",
        "```python\nprint(1)  # 2\n```\n",
        "```js\nreturn 1;\n// → 2\n```\n",
        "| script | error |\n|---|---|\n| `return total` | `EXECUTION_ERROR: nothing` |\n",
    ],
)
def test_a_page_that_shows_what_is_not_so_fails(tmp_path: Path, block: str) -> None:
    done = do(tmp_path, block)
    assert done.returncode == 1
    assert "AssertionError" in done.stderr


@pytest.mark.parametrize("programs", [os.environ["PATH"], "/nowhere"], ids=["curl, if there is one", "its stand-in"])
def test_a_cut_comes_when_what_the_page_shows_has_come(tmp_path: Path, programs: str) -> None:
    page = f"""{SERVE}```console
$ curl -N localhost:8000/sessions -H 'content-type: application/json' \\
    -d '{{"sessionId": "s_1", "code": "console.log(1); await sleep(600000)"}}'
{{…"type":"session_init",…}}
{{…"type":"stdout","payload":{{"chunk":"1\\n"}}}}
^C
$ curl localhost:8000/sessions/s_1
{{"sessionId":"s_1","state":"running",…}}
```
"""
    done = do(tmp_path, page, PATH=programs)
    assert done.returncode == 0, done.stderr
