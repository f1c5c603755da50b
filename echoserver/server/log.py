"""The log: a logger that unwinds nothing, and errors that come in floods.

A logging handler may raise: those of test suites do, to allow no warnings.
That is told, and ends neither the accepting nor the closing of a connection.
"""

import contextlib
import logging
import traceback
from time import monotonic
from typing import Any

__all__ = ["OneASecond", "logger"]


class Logger(logging.LoggerAdapter):  # type: ignore[type-arg,unused-ignore]

    """A logger that prints what its handlers raise, and goes on."""

    def log(self, level: Any, msg: Any, *args: Any, **kwargs: Any) -> None:
        try:
            super().log(level, msg, *args, **kwargs)
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException:   # pytest.fail() raises no Exception
            with contextlib.suppress(Exception):
                traceback.print_exc()


logger = Logger(logging.getLogger("echoserver"), {})


class OneASecond:

    """Logs errors of a kind that comes in floods: one line a second.

    Class variables that may be overridden:

    - interval: seconds between two lines at least
    """

    interval = 1.0

    def __init__(self) -> None:
        self._logged_at = float("-inf")

    def error(self, message: str, *args: Any) -> None:
        """Log an error, unless there was one a moment ago."""
        now = monotonic()
        if now >= self._logged_at + self.interval:
            self._logged_at = now
            logger.error(message, *args)
