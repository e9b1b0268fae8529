"""Commands of someone whom the permissions of files bind: root too, without the capabilities that pass them over."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from outside import WHOLE_S, Done, environment

_BOUND = """
import ctypes, os, sys
libc = ctypes.CDLL(None, use_errno=True)
for capability in (1, 2):  # CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH
    libc.prctl(24, capability, 0, 0, 0)  # PR_CAPBSET_DROP: from the next program on
os.execv(sys.executable, [sys.executable, "-m", "cai_cli", *sys.argv[1:]])
"""


def cai_as_anyone(folder: Path, *arguments: object) -> Done:
    """Run `cai ARGUMENTS` in a folder, bound by permissions."""
    command = [sys.executable, "-c", _BOUND, *map(str, arguments)]
    env = environment(folder)
    done = subprocess.run(
        command, cwd=folder, env=env, stdin=subprocess.DEVNULL, capture_output=True, timeout=WHOLE_S, check=False
    )
    return Done(done.returncode, done.stdout.decode(), done.stderr.decode())
