"""Normal form of expressions, in which everything reads them."""


def normalize_expression(text: str) -> str:
    """Returns the expression in lower case, with single blanks (spec 2), as used in training and inference.

    >>> normalize_expression("  A man\\n on the LEFT ")
    'a man on the left'

    Raises:
        ValueError: the expression is empty.
    """
    folded = " ".join(text.lower().split())
    if not folded:
        raise ValueError(f"The expression {text!r} is empty. Say which object is meant, or leave the expression out.")
    return folded
