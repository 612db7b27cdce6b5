"""How an evaluation fails."""


class EvaluationError(RuntimeError):
    """Nothing can be measured. The message is for people: what is wrong and what to do."""
