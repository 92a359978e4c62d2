"""The orientation that EXIF gives an image: viewers turn it so, while its pixels are stored unturned."""

from PIL import Image, ImageOps

from pipelines.images import opened_image

_ORIENTATION = 0x0112
UPRIGHT = 1
_SIDES_SWAPPED = (5, 6, 7, 8)


def orientation_tag(image: Image.Image) -> int:
    """Returns the orientation of an opened image, 1 to 8; 1 (upright) if it has none, or an impossible one."""
    found = image.getexif().get(_ORIENTATION, UPRIGHT)
    return found if found in range(1, 9) else UPRIGHT


def turned_size(size: tuple[int, int], orientation: int) -> tuple[int, int]:
    """Returns width and height of an image of this size after it is turned upright."""
    width, height = size
    return (height, width) if orientation in _SIDES_SWAPPED else size


def upright(image: Image.Image) -> Image.Image:
    """Returns the image as viewers show it."""
    return ImageOps.exif_transpose(image)


def header_of(data: bytes) -> tuple[tuple[int, int], int]:
    """Returns stored (width, height) and orientation of an encoded image, from its header.

    Raises:
        ValueError: it is no image, too large or damaged.
    """
    with opened_image(data) as image:
        return image.size, orientation_tag(image)
