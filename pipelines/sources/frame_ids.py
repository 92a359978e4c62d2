"""Names of results in benchmarks that name each (expression, frame) instead of each expression: A2D and JHMDB."""

_FRAME = "{frame}"


def frame_id_template(before: str, after: str = "") -> str:
    """Returns the value of `Expression.external_id` for such a benchmark: a name with a placeholder for the frame.

    >>> frame_id_template("v_-davisCamel_f_", "_i_0")
    'v_-davisCamel_f_{frame}_i_0'
    """
    return f"{before}{_FRAME}{after}"


def frame_id(external_id: str, frame_name: str) -> str:
    """Returns the name of the result of one frame: its number, without leading zeros, inserted into the template.

    >>> frame_id("v_-davisCamel_f_{frame}_i_0", "00011")
    'v_-davisCamel_f_11_i_0'

    Raises:
        ValueError: the id has no placeholder for the frame, so it names results of whole videos.
    """
    before, found, after = external_id.rpartition(_FRAME)  # The last one: a video may be called anything.
    if not found:
        raise ValueError(f"{external_id!r} holds no {_FRAME}: it names an expression, not a frame of one.")
    return f"{before}{int(frame_name)}{after}"
