"""Writers of synthetic clips in the raw layouts of RefCOCO and Ref-YouTube-VOS (spec data.md §1)."""

import json
import pickle
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from jaxtyping import Bool, UInt8
from PIL import Image

from pipelines.manifest import SYNTHETIC
from pipelines.sources.synthetic_scene import SHAPES, Scene
from pipelines.sources.synthetic_sentences import SceneExpression
from sgmg.masks import mask_to_rle, rle_to_coco, rle_to_xywh

TRUTH = "meta_expressions_with_obj_id.json"

_FIRST_IMAGE = {"train": 1, "val": 500_001}  # separate ranges, so that ids do not depend on the counts
# The first colours of PASCAL VOC, as in the official annotations.
_PALETTE = (0, 0, 0, 128, 0, 0, 0, 128, 0, 128, 128, 0, 0, 0, 128, 128, 0, 128, 0, 128, 128, 128, 128, 128)


@dataclass(frozen=True, slots=True)
class SyntheticClip:
    """A scene with its frames and sentences; one with a single frame is an image. Its name is that of the video."""

    name: str
    scene: Scene
    frames: UInt8[np.ndarray, "t h w 3"]
    sentences: tuple[SceneExpression, ...]

    @property
    def frame_names(self) -> list[str]:
        """Names of the frames, numbered in steps of five as in the original."""
        return [f"{5 * t:05d}" for t in range(len(self.frames))]


def write_refcoco(root: Path, images: Iterable[tuple[str, int, SyntheticClip]]) -> None:
    """Writes `train2014/`, `refcoco/refs(unc).p` and `refcoco/instances.json`.

    Args:
        root: folder to write to.
        images: split (train or val), number from 0, clip.
    """
    coco: dict[str, Any] = {"info": {"description": "made-up shapes"}, "licenses": [], "images": [], "annotations": []}
    coco["categories"] = [{"supercategory": "shape", "id": SHAPES.index(name) + 1, "name": name} for name in SHAPES]
    refs: list[dict[str, Any]] = []
    (root / "train2014").mkdir(parents=True)
    for split, number, clip in images:
        image = _FIRST_IMAGE[split] + number
        stem = f"COCO_train2014_{image:012d}"
        _write_jpeg(root / "train2014" / f"{stem}.jpg", clip.frames[0])
        height, width = clip.frames.shape[1:3]
        coco["images"].append({"file_name": f"{stem}.jpg", "height": height, "width": width, "id": image})
        for thing in range(len(clip.scene.things)):
            annotation = _annotation(clip.scene, thing, image)
            coco["annotations"].append(annotation)
            refs.append(_ref(clip, thing, annotation, split, f"{stem}_{thing}.jpg"))
    _write_json(root / "refcoco" / "instances.json", coco)
    (root / "refcoco" / "refs(unc).p").write_bytes(pickle.dumps(refs, protocol=2))
    _mark(root, "RefCOCO")


def write_ytvos(root: Path, truth: Path, videos: Iterable[tuple[str, SyntheticClip]]) -> None:
    """Writes all splits, in the layout of Ref-YouTube-VOS.

    Args:
        root: folder of the raw data.
        truth: folder for the masks and object ids of valid and test.
        videos: split (train, valid or test), clip.
    """
    objects: dict[str, Any] = {}
    listed_by_split: dict[str, dict[str, Any]] = {"train": {}, "valid": {}, "test": {}}
    for split, clip in videos:
        masks = root / "train" if split == "train" else truth / split
        _write_frames(root / split / "JPEGImages" / clip.name, masks / "Annotations" / clip.name, clip)
        listed_by_split[split][clip.name] = _video(clip)
        if split == "train":
            objects[clip.name] = {"objects": _objects(clip)}
    _write_json(root / "train" / "meta.json", {"videos": objects})
    for split in ("valid", "test"):
        _write_json(truth / split / TRUTH, {"videos": listed_by_split[split]})
        _mark(truth / split, "Ref-YouTube-VOS")
        listed_by_split[split] = {name: _without_objects(video) for name, video in listed_by_split[split].items()}
    listed_by_split["valid"] |= listed_by_split["test"]  # as the official file has it
    for split, listed in listed_by_split.items():
        _write_json(root / "meta_expressions" / split / "meta_expressions.json", {"videos": listed})
    _mark(root, "Ref-YouTube-VOS")


def _mark(root: Path, layout: str) -> None:
    (root / SYNTHETIC).write_text(f"Drawn by sgmg in the layout of {layout}. None of it is that dataset.\n")


def _annotation(scene: Scene, thing: int, image: int) -> dict[str, Any]:
    """Returns the entry of one object in `instances.json`. RLE, since a shape cut in two has no single polygon."""
    mask = scene.masks[thing, 0]
    height, width = mask.shape
    rle = mask_to_rle(mask)
    return {
        "segmentation": rle_to_coco(rle, (height, width)),
        "area": int(mask.sum()),
        "iscrowd": 0,
        "image_id": image,
        "bbox": list(rle_to_xywh(rle, (height, width))),
        "category_id": SHAPES.index(scene.things[thing].shape) + 1,
        "id": 10 * image + thing,
    }


def _ref(clip: SyntheticClip, thing: int, annotation: dict[str, Any], split: str, file_name: str) -> dict[str, Any]:
    """Returns the entry of one object in the refs file, with its sentences."""
    texts = [sentence.text for sentence in clip.sentences if sentence.thing == thing]
    ids = [10 * annotation["id"] + number for number in range(len(texts))]
    return {
        "sent_ids": ids,
        "file_name": file_name,
        "ann_id": annotation["id"],
        "ref_id": annotation["id"],
        "image_id": annotation["image_id"],
        "split": split,
        "sentences": [
            {"tokens": text.split(), "raw": text, "sent_id": id, "sent": text}
            for id, text in zip(ids, texts, strict=True)
        ],
        "category_id": annotation["category_id"],
    }


def _video(clip: SyntheticClip) -> dict[str, Any]:
    """Returns the entry of one video in `meta_expressions.json` of train."""
    expressions = {
        str(number): {"exp": sentence.text, "obj_id": str(sentence.thing + 1)}
        for number, sentence in enumerate(clip.sentences)
    }
    return {"expressions": expressions, "frames": clip.frame_names}


def _without_objects(video: dict[str, Any]) -> dict[str, Any]:
    return {**video, "expressions": {id: {"exp": one["exp"]} for id, one in video["expressions"].items()}}


def _objects(clip: SyntheticClip) -> dict[str, Any]:
    """Returns the entry of one video in `meta.json`: category and frames of every object."""
    return {
        str(index + 1): {
            "category": thing.shape,
            "frames": [name for name, mask in zip(clip.frame_names, masks, strict=True) if mask.any()],
        }
        for index, (thing, masks) in enumerate(zip(clip.scene.things, clip.scene.masks, strict=True))
    }


def _write_frames(images: Path, annotations: Path, clip: SyntheticClip) -> None:
    images.mkdir(parents=True)
    annotations.mkdir(parents=True)
    for t, name in enumerate(clip.frame_names):
        _write_jpeg(images / f"{name}.jpg", clip.frames[t])
        _write_ids(annotations / f"{name}.png", clip.scene.masks[:, t])


def _write_ids(path: Path, masks: Bool[np.ndarray, "o h w"]) -> None:
    """Writes a palette PNG whose pixels hold the number of their object, from 1."""
    numbers = np.arange(1, len(masks) + 1, dtype=np.uint8)[:, None, None]
    image = Image.fromarray((masks * numbers).max(axis=0), mode="P")  # Masks do not overlap.
    image.putpalette(_PALETTE)
    image.save(path)


def _write_jpeg(path: Path, frame: UInt8[np.ndarray, "h w 3"]) -> None:
    encoded, data = cv2.imencode(".jpg", cv2.cvtColor(frame, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, 95])
    assert encoded
    path.write_bytes(data.tobytes())


def _write_json(path: Path, content: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))
