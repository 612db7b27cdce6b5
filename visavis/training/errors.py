"""How a training fails."""


class TrainingError(RuntimeError):
    """A training cannot go on. The message is for people: what is wrong and what to do."""
