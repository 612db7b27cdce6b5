"""Under which ids a session's state travels through the worker: no session has such an id."""


def leaving_id(session_id: str) -> str:
    """Of the state that leaves for another generator."""
    return f"{session_id}/leaving"


def arriving_id(session_id: str) -> str:
    """Of the state that arrives from another generator."""
    return f"{session_id}/arriving"
