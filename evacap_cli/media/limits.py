"""FFmpeg's errors and the limits on stated times, shared by all media readers."""

from __future__ import annotations

import av

# FFmpeg's failures as PyAV raises them: most are FFmpegError, some are built-in exceptions.
READ_ERRORS = (av.error.FFmpegError, OSError, ValueError, RuntimeError)
MAX_TIME = 7 * 86_400.0  # seconds: later times in a file are implausible and rejected
