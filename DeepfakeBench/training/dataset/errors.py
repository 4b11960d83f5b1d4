"""Errors of the dataset. Each takes one message, because loader workers rebuild exceptions from a string."""


class DatasetError(Exception):
    """The data on disk or the settings that name it are not usable; the message is one line."""

    #: Exit code of a command that ends with this error.
    exit_code = 2


class EmptySplitError(DatasetError):
    """The index has no frame in the split that was asked for."""


class MissingFrameError(DatasetError):
    """A frame, landmark or mask named by the index is absent or unreadable."""

    exit_code = 1
