"""What all readers of media share: FFmpeg's errors, and how much of what a file says is believed."""

from __future__ import annotations

import av

# Failures of FFmpeg as PyAV raises them: most are FFmpegError; some reach Python as its own kinds of error.
READ_ERRORS = (av.error.FFmpegError, OSError, ValueError, RuntimeError)
LONGEST = 7 * 86_400.0  # seconds: what a file says of later times is not believed
