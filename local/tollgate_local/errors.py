"""What can go wrong with the local cluster; each message says what to do."""

__all__ = ["BuildError", "LeftBehindError", "LocalError", "NotRunningError", "StartError", "UnsupportedError"]


class LocalError(Exception):
    """Base of all errors that a user of the local cluster can meet."""


class UnsupportedError(LocalError):
    """The shape that was asked for cannot run on this machine or for this user."""


class BuildError(LocalError):
    """A binary, a package or an image could not be built or installed."""


class StartError(LocalError):
    """A server did not start, or did not become ready in time."""


class NotRunningError(LocalError):
    """The cluster, or the part of it that was asked for, is not running."""


class LeftBehindError(LocalError):
    """Something of the cluster was still there after it was taken down."""
