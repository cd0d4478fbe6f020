"""What Ray reads when it is imported, and what a killed driver's Ray leaves behind. Imports no ray."""

from __future__ import annotations

import contextlib
import glob
import os
import secrets
import shutil
import socket
import sys
from pathlib import Path

SESSION = "session"  # file in a scratch folder: the session folder of the Ray that its driver started

#: read by Ray when it is imported or started; a value that the user has set is left alone
ENVIRONMENT = {
    "RAY_memory_monitor_refresh_ms": "0",  # one memory kill would abort the whole run; the kernel kills one worker
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
    "RAY_AIR_NEW_OUTPUT": "0",
    "RAY_DEDUP_LOGS_SKIP_REGEX": ".",  # drops the paragraph that is printed for each dead worker
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # silences a warning; the device comes from the job
    "TUNE_DISABLE_SIGINT_HANDLER": "1",  # else Ctrl-C looks like success
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_PRINT_ALL_TRIAL_ERRORS": "0",
    "TUNE_GLOBAL_CHECKPOINT_S": "86400",  # Tune's experiment state is never read
    "TUNE_WARN_THRESHOLD_S": "10",
}


def set_environment(*, local: bool) -> None:
    """To be called before Ray is imported, which is when it reads this."""
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    unset = not {"RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"} & set(os.environ)
    if local and unset and "ray" not in sys.modules:
        # A token of our own: Ray would write one into the home directory, and fail where it cannot.
        os.environ.update(RAY_AUTH_MODE="token", RAY_AUTH_TOKEN=secrets.token_hex(32))


def remove_of_the_dead(scratch: Path) -> None:
    """What drivers on this machine left that were killed: their scratch folders, and the sessions of the Rays they started."""
    for folder in scratch.glob(f"bench-{glob.escape(socket.gethostname())}-*-*"):
        pid = folder.name.split("-")[-2]
        if pid.isdigit() and not _lives(int(pid)):
            with contextlib.suppress(OSError):
                session = (folder / SESSION).read_text()
                if session:
                    shutil.rmtree(session, ignore_errors=True)
            shutil.rmtree(folder, ignore_errors=True)


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:  # somebody else's
        return True
    return True
