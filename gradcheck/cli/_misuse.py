"""The exception for a command line that cannot be carried out."""


class MisuseError(Exception):
    """What was asked, what was found, what to write instead; printed without a traceback."""
