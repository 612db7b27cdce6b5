"""How the command fails."""


class CommandError(Exception):
    """The command cannot go on. The message is for people: what is wrong and what to do."""
