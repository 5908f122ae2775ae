"""What can go wrong, and the exit code each kind ends the program with."""


class SemVLPError(Exception):
    """A failure with one clear message: what must hold, what was found, what to do."""

    exit_code = 1


class ConfigError(SemVLPError):
    """The command line or a configuration asks for something that cannot be."""

    exit_code = 2


class InputError(SemVLPError):
    """A file that was given is damaged, of another kind, or names what does not exist."""

    exit_code = 3


class TooManyRefused(SemVLPError):
    """The work is finished, but more inputs were refused than the user allows."""

    exit_code = 4


class Interrupted(SemVLPError):
    """Stopped by the user or by SIGTERM; everything finished so far is kept."""

    exit_code = 130
