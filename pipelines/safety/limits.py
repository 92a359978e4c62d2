"""Largest sizes that are read from files of others; docs/limits.md says why, and what happens beyond them.

A damaged or hostile file of a few kilobytes may claim any size. Each reader checks the claim before it reserves memory.
"""

from pipelines.errors import shown

MAX_PIXELS = 2**26
"""Pixels of the largest frame or mask that is decoded: 8K has 2**25."""
MAX_MASK_BYTES = 2**26
"""Bytes of the largest PNG of a mask; real ones have thousands."""
MAX_OBJECTS = 4096
"""Objects in the mask of one frame, where every id of the mask becomes an object."""
MAX_ARRAY_BYTES = 2**27
"""Bytes of the largest unpacked array of a MATLAB or HDF5 file; real ones have 3 MB."""
MAX_ANNOTATION_BYTES = 2**32
"""Bytes of the largest annotation file; the masks of MeViS have 2**30."""
MAX_ENTRY_BYTES = 2**28
"""Bytes of the largest file in a zip of frames, masks and tables."""
MAX_LEDGER_BYTES = 2**29
"""Bytes of the largest unpacked ledger: that of a million videos."""
MAX_FRAMES = 2**20
"""Frames of one video of a dataset or of a row of prepared data: ten hours at 25 per second."""
MAX_SENTENCES = 2**20
"""Sentences of one video."""
MAX_SAMPLES = 2**28
"""Frames x sentences of one row of prepared data: what an epoch is planned from."""


def check_pixels(height: object, width: object) -> None:
    """Checks the size of a frame or mask that a file claims, before memory is reserved for it.

    Raises:
        ValueError: height or width is no whole number from 1, or there are more than `MAX_PIXELS`.
    """
    whole = type(height) is int and type(width) is int
    if not whole or height < 1 or width < 1 or height * width > MAX_PIXELS:  # pyright: ignore
        raise ValueError(
            f"its height {shown(height)} and width {shown(width)} are not whole numbers of 1 to {MAX_PIXELS} pixels"
        )
