"""The one way this tool says no: a message that names the way out."""


class ClusterError(Exception):
    """The cluster cannot be made, found or removed; the message says what to do."""
