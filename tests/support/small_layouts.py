"""One video or image of two frames in the layout of each dataset: small, whole, and made in milliseconds."""

import io
import json
import pickle
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import scipy.io
from PIL import Image

from odd_clips import picture, write_as
from pipelines.sources.vots import encode_region
from sgmg.masks import mask_to_rle, rle_to_coco
from tool_files import packed

WIDTH, HEIGHT = 32, 24
NAMES = ("00000", "00005")

_MASK = np.zeros((HEIGHT, WIDTH), dtype=np.bool_)
_MASK[6:18, 8:20] = True
_SIDES = {"width": WIDTH, "height": HEIGHT}
_RLE = rle_to_coco(mask_to_rle(_MASK), (HEIGHT, WIDTH))


def write(path: Path, content: Any) -> None:
    """Writes bytes, a text, or anything else as JSON."""
    path.parent.mkdir(parents=True, exist_ok=True)
    text = content if isinstance(content, str) else "" if isinstance(content, bytes) else json.dumps(content)
    path.write_bytes(content if isinstance(content, bytes) else text.encode())


def encoded(image: Image.Image, kind: str) -> bytes:
    """An image as the bytes of a file."""
    stream = io.BytesIO()
    image.save(stream, kind)
    return stream.getvalue()


def frame(seed: int = 0, kind: str = "JPEG") -> bytes:
    """A frame of four colours."""
    return encoded(Image.fromarray(picture(WIDTH, HEIGHT, seed)), kind)


def id_map(bits: int = 8) -> bytes:
    """A palette PNG with object 1, or a grey one of 16 bits."""
    if bits == 16:
        return encoded(Image.fromarray(_MASK.astype(np.uint16)), "PNG")
    image = Image.fromarray(_MASK.astype(np.uint8))
    image.putpalette([0, 0, 0, 128, 0, 0])
    return encoded(image, "PNG")


def _frames(folder: Path, suffix: str = "jpg") -> None:
    for seed, name in enumerate(NAMES):
        write(folder / f"{name}.{suffix}", frame(seed))


def _maps(folder: Path) -> None:
    for name, bits in zip(NAMES, (8, 16), strict=True):
        write(folder / f"{name}.png", id_map(bits))


def ytvos(root: Path) -> None:
    """Ref-YouTube-VOS, split train."""
    said = {"0": {"exp": "the red one", "obj_id": "1"}, "1": {"exp": "it", "obj_id": "1"}}
    videos = {"v": {"expressions": said, "frames": list(NAMES)}}
    write(root / "meta_expressions/train/meta_expressions.json", {"videos": videos})
    write(root / "train/meta.json", {"videos": {"v": {"objects": {"1": {"category": "dog", "frames": ["00000"]}}}}})
    _frames(root / "train/JPEGImages/v")
    _maps(root / "train/Annotations/v")


def mevis(root: Path) -> None:
    """MeViS, split valid_u."""
    said = {"0": {"exp": "the one that moves", "obj_id": [0], "anno_id": [10]}}
    videos = {"v": {"vid_id": 0, "frames": list(NAMES), "expressions": said}}
    write(root / "valid_u/meta_expressions.json", {"videos": videos})
    write(root / "valid_u/mask_dict.json", {"10": [_RLE, None]})
    _frames(root / "valid_u/JPEGImages/v")


def ytvos_valid(root: Path) -> None:
    """Ref-YouTube-VOS, split valid with its truth: a folder of masks for each expression."""
    said = {"0": {"exp": "the red one", "obj_id": "1"}, "1": {"exp": "it", "obj_id": "1"}}
    write(root / "valid/meta_expressions_challenge.json", {"videos": {"v": {"expressions": said, "frames": [*NAMES]}}})
    _frames(root / "valid/JPEGImages/v")
    for expression in said:
        _maps(root / "valid/Annotations/v" / expression)


def revos(root: Path) -> None:
    """ReVOS, split valid."""
    said = {"0": {"exp": "the one that moves", "obj_id": [0], "anno_id": [10], "type_id": 1}}
    write(root / "meta_expressions_valid_.json", {"videos": {"v": {"frames": list(NAMES), "expressions": said}}})
    write(root / "mask_dict.json", {"10": [_RLE, None]})
    _frames(root / "JPEGImages/v")


def long_rvos(root: Path) -> None:
    """Long-RVOS, split test."""
    said = {"0": {"exp": "the one that moves", "obj_id": 3, "type": "dynamic"}}
    write(root / "test/meta_expressions.json", {"videos": {"v": {"frames": list(NAMES), "expressions": said}}})
    _frames(root / "test/JPEGImages/v")
    _maps(root / "test/Annotations/v/3")


def vots(root: Path) -> None:
    """The referring track of VOTS, split valid."""
    write(root / "list.txt", "v\n")
    write(root / "v/sequence", "channels.color=color/%08d.jpg\nfps=24\nformat=default\nname=v\nprompts=a dog;it\n")
    write(root / "v/groundtruth_object1.txt", f"{encode_region(_MASK)}\n0\n")
    for number in (1, 2):
        write(root / f"v/color/{number:08d}.jpg", frame(number))


def davis_raw(root: Path) -> None:
    """Ref-DAVIS17 as distributed, split valid."""
    for name in ("annot1", "annot1_full_video", "annot2", "annot2_full_video"):
        write(root / f"davis_text_annotations/Davis17_{name}.txt", 'v 1 "a red thing"\n')
    write(root / "DAVIS/ImageSets/2017/val.txt", "v\n")
    write(root / "DAVIS/davis_semantics.json", {"v": {"1": "bird"}})
    _frames(root / "DAVIS/JPEGImages/480p/v")
    _maps(root / "DAVIS/Annotations_unsupervised/480p/v")


def davis_converted(root: Path) -> None:
    """Ref-DAVIS17 as the official converter writes it, split valid."""
    said = {str(number): {"exp": "a red thing", "obj_id": "1"} for number in range(4)}
    write(
        root / "meta_expressions/valid/meta_expressions.json",
        {"videos": {"v": {"frames": list(NAMES), "expressions": said}}},
    )
    write(root / "valid/meta.json", {"videos": {"v": {"objects": {"1": {"category": "bird"}}}}})
    _frames(root / "valid/JPEGImages/v")
    _maps(root / "valid/Annotations/v")


def a2d(root: Path) -> None:
    """A2D-Sentences, split test."""
    write(root / "text_annotations/a2d_annotation.txt", "video_id,instance_id,query\nv,0,a red thing\n")
    write(root / "text_annotations/a2d_missed_videos.txt", "")
    write(root / "Release/videoset.csv", "v,1,00:00:00.00,00:00:02.50,24,32,2,3,1\n")
    (root / "Release/CLIPS320").mkdir()
    write_as(root / "Release/CLIPS320/v.mp4", [picture(WIDTH, HEIGHT, seed) for seed in range(2)], "mp4", "libx264")
    stream = io.BytesIO()
    with h5py.File(stream, "w") as file:
        file["instance"] = np.zeros((1, 1), dtype=np.uint8)
        file.create_dataset("reMask", data=_MASK.T.astype(np.uint8)[None], compression="gzip")
        file["reBBox"] = np.array([[8.0], [6], [19], [17]])
    write(root / "text_annotations/a2d_annotation_with_instances/v/00001.h5", stream.getvalue())


def a2d_listed(root: Path) -> None:
    """A2D-Sentences with nothing but the JSON list to say what is asked, split test."""
    a2d(root)
    (root / "text_annotations/a2d_annotation.txt").unlink()
    write(root / "a2d_sentences_single_frame_test_annotations.json", [["a red thing", "v", 1, 0]])


def jhmdb(root: Path) -> None:
    """JHMDB-Sentences."""
    there = "./jhmdb_sentences"
    row = ["v", f"{there}/Rename_Images/run/v/00001.png", f"{there}/puppet_mask/run/v/puppet_mask.mat", 2, "a man"]
    write(root / "jhmdb_sentences_samples_metadata.json", [row])
    for number in (1, 2):
        write(root / f"Rename_Images/run/v/{number:05d}.png", frame(number, "PNG"))
    stream = io.BytesIO()
    scipy.io.savemat(stream, {"part_mask": np.stack([_MASK, _MASK], axis=2).astype(np.uint8)}, do_compression=True)
    write(root / "puppet_mask/run/v/puppet_mask.mat", stream.getvalue())


def _instances() -> dict[str, Any]:
    polygon = [8, 6, 20, 6, 20, 18, 8, 18]
    annotation = {"id": 7, "image_id": 5, "bbox": [8, 6, 12, 12], "area": 144.0, "iscrowd": 0, "category_id": 3}
    return {
        "images": [{"id": 5, "file_name": "COCO_train2014_5.jpg", "width": WIDTH, "height": HEIGHT}],
        "annotations": [annotation | {"segmentation": [polygon]}],
        "categories": [{"id": 3, "name": "dog"}],
    }


def refcoco(root: Path) -> None:
    """RefCOCO as distributed, split train."""
    sentence = {"sent": "the red one", "sent_id": 1, "tokens": ["the", "red", "one"], "raw": "the red one"}
    ref = {"ref_id": 1, "ann_id": 7, "image_id": 5, "split": "train", "sentences": [sentence], "category_id": 3}
    write(root / "refcoco/refs(unc).p", pickle.dumps([ref], protocol=0))
    write(root / "refcoco/instances.json", _instances())
    write(root / "train2014/COCO_train2014_5.jpg", frame())


def refcoco_converted(root: Path) -> None:
    """RefCOCO in one JSON, split train."""
    coco = _instances()
    coco["images"][0] |= {"id": 1, "original_id": 5, "caption": "the red one", "dataset_name": "refcoco"}
    coco["annotations"][0] |= {"id": 1, "image_id": 1, "original_id": 7}
    write(root / "refcoco/instances_refcoco_train.json", coco)
    write(root / "train2014/COCO_train2014_5.jpg", frame())


def own(root: Path) -> None:
    """One's own data: a folder of frames with coloured masks, and a video file with maps of ids."""
    write(root / "expressions.csv", "video,object_id,text,split\nv,1,the red one,train\nfilm,1,it,train\n")
    write(root / "labelmap.txt", "# label:colour:parts:actions\nbackground:0,0,0::\ndog 1:250,50,50::\n")
    _frames(root / "JPEGImages/v")
    coloured = np.zeros((HEIGHT, WIDTH, 3), dtype=np.uint8)
    coloured[_MASK] = (250, 50, 50)
    write(root / "Annotations/v/00000.png", encoded(Image.fromarray(coloured), "PNG"))
    write(root / "Annotations/film/00001.png", id_map())
    (root / "videos").mkdir()
    write_as(root / "videos/film.mp4", [picture(WIDTH, HEIGHT, seed) for seed in range(2)], "mp4", "libx264")


def tool_coco(root: Path) -> None:
    """COCO JSON of a tool: a polygon, a mask, and a track over two frames."""
    images = [{"id": place, "file_name": f"v/{name}.jpg", **_SIDES} for place, name in enumerate(NAMES)]
    shapes = ([[1, 2, 9, 3, 5, 20]], _RLE)
    annotations = [
        {
            "id": place,
            "image_id": place,
            "category_id": 3,
            "track_id": 1,
            "segmentation": shape,
            "caption": "the red one",
        }
        for place, shape in enumerate(shapes)
    ]
    content = {"images": images, "annotations": annotations, "categories": [{"id": 3, "name": "dog"}]}
    write(root / "coco.json", content)
    _frames(root / "v")


def tool_youtube_vis(root: Path) -> None:
    """YouTube-VIS JSON."""
    video = {"id": 1, "file_names": [f"v/{name}.jpg" for name in NAMES], **_SIDES}
    annotation = {"id": 1, "video_id": 1, "category_id": 3, "segmentations": [_RLE, None]}
    categories = [{"id": 3, "name": "the red one"}]
    write(root / "vis.json", {"videos": [video], "annotations": [annotation], "categories": categories})
    _frames(root / "v")


def tool_cvat(root: Path) -> None:
    """CVAT for video 1.1: a polygon, and a mask."""
    sides = f"<width>{WIDTH}</width><height>{HEIGHT}</height>"
    task = f"<task><name>v</name><size>2</size></task><original_size>{sides}</original_size>"
    text = '<attribute name="text">it</attribute>'
    polygon = f'<polygon frame="0" keyframe="1" outside="0" points="1.5,2;9,3;5,20">{text}</polygon>'
    mask = '<mask frame="1" outside="0" rle="2, 3, 4" left="1" top="2" width="3" height="3"></mask>'
    tracks = f'<track id="0" label="dog">{polygon}</track><track id="1" label="cat">{mask}</track>'
    write(root / "v.xml", f"<annotations><version>1.1</version><meta>{task}</meta>{tracks}</annotations>")
    _frames(root / "images")


def davis_folder(root: Path) -> None:
    """Maps as DAVIS has them, and a table of sentences."""
    write(root / "expressions.csv", "video,object_id,expression,text\nv,1,x,the red one\n")
    _frames(root / "JPEGImages/v")
    _maps(root / "Annotations/v")


def davis_zip(root: Path) -> None:
    """The same in a zip, the frames beside it."""
    davis_folder(root / "made")
    with zipfile.ZipFile(root / "davis.zip", "w") as archive:
        for path in sorted((root / "made").rglob("*.*")):
            archive.write(path, path.relative_to(root / "made"))
    shutil.rmtree(root / "made")
    _frames(root / "JPEGImages/v")


def sa_v(root: Path) -> None:
    """SA-V: masks of every fourth frame, a video, and a table of sentences."""
    masklet = [[_RLE], [_RLE]]
    write(root / "v_manual.json", {"masklet": masklet, "masklet_id": [0], "video_width": WIDTH, "video_height": HEIGHT})
    write(root / "expressions.csv", "video,object_id,text\nv,0,the red one\n")
    write_as(root / "v.mp4", [picture(WIDTH, HEIGHT, seed) for seed in range(5)], "mp4", "libx264")


def label_studio(root: Path) -> None:
    """Label Studio's JSON with one brush."""
    rle = packed(np.repeat(_MASK * 255, 4).tolist())
    value = {"format": "rle", "rle": rle, "brushlabels": ["dog"]}
    sides = {"original_width": WIDTH, "original_height": HEIGHT, "image_rotation": 0}
    brush = {"id": "a", "type": "brushlabels", "value": value, **sides}
    typed = {"id": "a", "type": "textarea", "value": {"text": ["the red one"]}}
    task = {"id": 1, "data": {"image": "/data/upload/1/v.jpg"}, "annotations": [{"id": 5, "result": [brush, typed]}]}
    write(root / "export.json", [task])
    write(root / "v.jpg", frame())


def mevis_v2(root: Path) -> None:
    """MeViS v2, split valid_u: a sentence with a target, and one without."""
    said = {
        "0": {"exp": "the one that moves", "obj_id": [0], "anno_id": [10]},
        "1": {"exp": "the one that flies", "obj_id": [], "anno_id": []},
    }
    videos = {"v": {"vid_id": 0, "frames": list(NAMES), "expressions": said}}
    write(root / "valid_u/meta_expressions_v2.json", {"videos": videos})
    write(root / "valid_u/mask_dict.json", {"10": [_RLE, None]})
    _frames(root / "valid_u/JPEGImages/v")


def ref_sav(root: Path) -> None:
    """Ref-SAV, split valid: a long sentence, and a short one."""
    said = {
        "0": {"exp": "the red one that was there all along", "obj_id": [0], "anno_id": [10], "type_id": 0},
        "1": {"exp": "the red one", "obj_id": [0], "anno_id": [10], "type_id": 1},
    }
    write(root / "meta_expressions_valid.json", {"videos": {"v": {"frames": list(NAMES), "expressions": said}}})
    write(root / "mask_dict.json", {"10": [_RLE, None]})
    _frames(root / "JPEGImages/v")


LAYOUTS: dict[str, tuple[str, str, Callable[[Path], None]]] = {
    "ytvos": ("ref-youtube-vos", "train", ytvos),
    "ytvos valid": ("ref-youtube-vos", "valid", ytvos_valid),
    "mevis": ("mevis", "valid_u", mevis),
    "mevis v2": ("mevis-v2", "valid_u", mevis_v2),
    "revos": ("revos", "valid", revos),
    "ref-sav": ("ref-sav", "valid", ref_sav),
    "long-rvos": ("long-rvos", "test", long_rvos),
    "vots": ("vots", "valid", vots),
    "davis raw": ("ref-davis17", "valid", davis_raw),
    "davis converted": ("ref-davis17", "valid", davis_converted),
    "a2d": ("a2d-sentences", "test", a2d),
    "a2d listed": ("a2d-sentences", "test", a2d_listed),
    "jhmdb": ("jhmdb-sentences", "test", jhmdb),
    "refcoco": ("refcoco", "train", refcoco),
    "refcoco converted": ("refcoco", "train", refcoco_converted),
    "own": ("own", "train", own),
    "tool's coco": ("coco", "train", tool_coco),
    "youtube-vis": ("youtube-vis", "train", tool_youtube_vis),
    "cvat": ("cvat", "train", tool_cvat),
    "davis folder": ("davis-folder", "train", davis_folder),
    "davis zip": ("davis-folder", "train", davis_zip),
    "sa-v": ("sa-v", "train", sa_v),
    "label studio": ("label-studio", "train", label_studio),
}
"""Dataset, split and writer of each layout."""
