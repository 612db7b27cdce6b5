"""What can be wrong with the files of a model."""


class ModelFilesError(Exception):
    """The files are not those that were meant, or cannot be had. The message says which and what to do."""
