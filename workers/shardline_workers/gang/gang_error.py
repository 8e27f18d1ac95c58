"""How a gang cannot be made."""


class GangError(Exception):
    """Ranks are missing, differ, or speak otherwise than they should; the text says which, with bound and remedy.

    A gang that is lost while it computes raises RankLostError; what a user can mend in a configuration is a ValueError.
    """
