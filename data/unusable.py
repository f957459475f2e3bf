"""Why a clip cannot be used."""


class UnusableClip(Exception):
    """A clip, its caption or its line in a manifest cannot be used.

    The message says why, for people, and continues a sentence that begins with the clip's name: "is empty".
    """
