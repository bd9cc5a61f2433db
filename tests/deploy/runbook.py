"""The commands of k8s/runbooks.md as they stand there: what tests look at, and tests/deploy/lifecycle.sh runs.

python -m tests.deploy.runbook HEADING PART [BLOCK]      print them, but for those that lifecycle.sh says it leaves out
"""

import re
import sys
from pathlib import Path

FOLDER = Path(__file__).resolve().parent
TEXT = (FOLDER.parent.parent / "k8s" / "runbooks.md").read_text()
SCRIPT = (FOLDER / "lifecycle.sh").read_text()
HEADINGS: dict[str, str] = dict(re.findall(r"^## (.+)\n((?:(?!^## ).*\n?)*)", TEXT, re.MULTILINE))
LEFT_OUT: dict[str, str] = dict(re.findall(r"^#     (\S.*?) -- (.+)$", SCRIPT, re.MULTILINE))
"""The table at the top of the script: how a command begins, and why it is not run."""


def blocks(heading: str, part: str) -> list[list[str]]:
    """The commands under one of the four words of a runbook, in the blocks that text divides."""
    parts = dict(re.findall(r"^\*\*(\w+)\.\*\*((?:(?!^\*\*\w+\.\*\*).*\n?)*)", HEADINGS[heading], re.MULTILINE))
    found = re.findall(r"(?:^    \S.*\n)+", parts[part], re.MULTILINE)
    return [[line.strip() for line in block.splitlines()] for block in found]


def chosen(heading: str, part: str, block: str = "") -> list[str]:
    """All of them, or one block (from 1)."""
    found = blocks(heading, part)
    return found[int(block) - 1] if block else [line for each in found for line in each]


def left_out(line: str) -> bool:
    """Whether the script says that it does not run this."""
    return line.startswith(tuple(LEFT_OUT))


def run_by_script() -> set[str]:
    """Every command that the script has a place for."""
    calls = re.findall(r'^\s*book "([^"]+)" (\w+)(?: (\d+))?(?=\s|$)', SCRIPT, re.MULTILINE)
    return {line for call in calls for line in chosen(*call)}


if __name__ == "__main__":
    sys.stdout.writelines(f"{line}\n" for line in chosen(*sys.argv[1:]) if not left_out(line))
