"""The one exception that is meant for the person at the keyboard."""


class UserError(Exception):
    """Something the user can put right. The message names the file or field, the value and the remedy.

    Programs print the message without a traceback and exit with code 1.
    """
