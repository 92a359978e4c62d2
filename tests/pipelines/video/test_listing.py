"""Patterns in, videos out."""

import re
from pathlib import Path

import pytest

from pipelines.errors import JobError
from pipelines.files import Folder, read_bytes, resolve_filesystem
from pipelines.safety.secrets import VARIABLE, keep_credentials
from pipelines.video.listing import Video, keep_credentials_of_lists, list_videos
from s3_server import S3Server

ODD = [
    "a b.mp4",
    'it\'s "it".mov',
    "黒鳥.mkv",
    "..mp4.webm",
    "-dash.avi",
    "100%41.mp4",
    "x[1]*.mp4",
    "a?b=c.mp4",
    "#.mp4",
]


def _touch(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"x")


def _names(root: Path, *patterns: str) -> list[str]:
    listing = list_videos([str(root / pattern) for pattern in patterns])
    assert not listing.problems
    return [video.path.removeprefix(f"{root}/") for video in listing.videos]


def test_a_folder_gives_the_video_files_and_image_folders_below_it(tmp_path: Path) -> None:
    _touch(
        tmp_path, "b.MP4", "a/c.mov", "notes.txt", "a/seq/1.png", "a/seq/2.JPG", ".hidden/x.mp4", "._b.mp4", "thumb.jpg"
    )
    listing = list_videos(str(tmp_path))
    assert [video.path.removeprefix(f"{tmp_path}/") for video in listing.videos] == ["a/c.mov", "a/seq", "b.MP4"]
    assert [video.images for video in listing.videos] == [False, True, False]
    assert not listing.problems


@pytest.mark.parametrize(
    ("pattern", "found"),
    [
        ("*.mp4", ["a.mp4"]),
        ("**/*.mp4", ["a.mp4", "x/b.mp4", "x/y/c.mp4"]),
        ("x/**", ["x/b.mp4", "x/seq", "x/y/c.mp4"]),
        ("*/b.mp*", ["x/b.mp4"]),
        ("[a-c].mp4", ["a.mp4"]),
        ("[!b].mp4", ["a.mp4"]),
        ("?.mp4", ["a.mp4"]),
        ("*", ["a.mp4", "x/b.mp4", "x/seq", "x/y/c.mp4"]),
        ("x/s*", ["x/seq"]),
        ("x/*/*.png", ["x/seq"]),
        ("*.m4a", ["sound.m4a"]),
        ("sound.m4a", ["sound.m4a"]),
    ],
)
@pytest.mark.parametrize("remote", [False, True])
def test_globs_find_files_and_the_folders_of_images(
    tmp_path: Path, pattern: str, found: list[str], remote: bool
) -> None:
    _touch(tmp_path, "a.mp4", "x/b.mp4", "x/y/c.mp4", "x/seq/1.png", "sound.m4a", "data.json")
    root = f"file://{tmp_path}" if remote else str(tmp_path)
    listing = list_videos(f"{root}/{pattern}")
    assert not listing.problems
    assert [video.path.removeprefix(f"{root}/") for video in listing.videos] == found


def test_what_is_passed_over_is_counted_by_suffix(tmp_path: Path) -> None:
    _touch(tmp_path, "a.mp4", "a.jpg", "b.JPG", "1.json", "2.JSON", "x/3.json", "notes.txt", "Makefile", ".DS_Store")
    _touch(tmp_path, "x/seq/1.tif", "x/c.MTS")
    listing = list_videos(str(tmp_path))
    assert [Path(video.path).name for video in listing.videos] == ["a.mp4", "c.MTS", "seq"]
    assert listing.notes == [
        "5 files are no videos or images: 3 .json, 1 .txt, 1 without suffix",
        "2 images lie beside video files and count as their thumbnails",
    ]
    assert not list_videos(f"{tmp_path}/*.mp4").notes


def test_folders_that_are_links_are_followed_and_none_leads_round(tmp_path: Path) -> None:
    _touch(tmp_path, "real/a.mp4", "real/seq/1.png", "elsewhere/b.mp4", "corpus/c.mp4")
    corpus = tmp_path / "corpus"
    (corpus / "linked").symlink_to(tmp_path / "real")
    (corpus / "single.mp4").symlink_to(tmp_path / "elsewhere/b.mp4")
    (corpus / "round").symlink_to(corpus)
    (corpus / "gone").symlink_to(tmp_path / "nowhere")
    (tmp_path / "real/back").symlink_to(corpus)
    found = ["corpus/c.mp4", "corpus/linked/a.mp4", "corpus/linked/seq", "corpus/single.mp4"]
    assert _names(tmp_path, "corpus") == found
    assert _names(tmp_path, "corpus/**/*.mp4") == [name for name in found if name.endswith("mp4")]
    assert _names(tmp_path, "corpus/linked/*/*.png") == ["corpus/linked/seq"]


@pytest.mark.parametrize("name", ODD)
@pytest.mark.parametrize("remote", [False, True])
def test_an_odd_name_is_kept_as_path_and_made_safe_as_id(tmp_path: Path, name: str, remote: bool) -> None:
    _touch(tmp_path, name)
    root = f"file://{tmp_path}" if remote else str(tmp_path)
    for pattern in (root, f"{root}/{name}"):
        (video,) = list_videos(pattern).videos
        assert video.path == f"{root}/{name}"
        assert re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_]*-[0-9a-f]{10}", video.id)
        assert read_bytes(video.path) == b"x"


def test_videos_of_one_name_have_ids_that_differ_and_stay_when_others_come(tmp_path: Path) -> None:
    _touch(tmp_path, "a/clip.mp4", "b/clip.mp4")
    first = {video.path: video.id for video in list_videos(str(tmp_path)).videos}
    _touch(tmp_path, "0/clip.mp4", "clip.mov")
    after = {video.path: video.id for video in list_videos(str(tmp_path)).videos}
    assert len(set(after.values())) == 4
    assert first.items() <= after.items()
    assert all(id.startswith("clip-") for id in after.values())


def test_a_video_found_twice_is_listed_once(tmp_path: Path) -> None:
    _touch(tmp_path, "a.mp4")
    assert _names(tmp_path, "*.mp4", "a.mp4", "") == ["a.mp4"]


def test_a_way_round_leads_to_the_same_video(tmp_path: Path) -> None:
    _touch(tmp_path, "a.mp4", "x/b.mp4")
    assert _names(tmp_path, "x/../a.mp4", "a.mp4") == ["a.mp4"]


def test_a_list_names_files_and_patterns_relative_to_itself(tmp_path: Path) -> None:
    _touch(tmp_path, "v/a.mp4", "v/b.mp4", "c.dat", "d.mp4")
    text = f"\ufeffa.mp4\r\n\n  ../c.dat  \n{tmp_path}/d.mp4\nb.*\ngone.mp4\n"
    (tmp_path / "v/list.txt").write_text(text, encoding="utf-8")
    for root in (str(tmp_path), f"file://{tmp_path}"):
        listing = list_videos(f"{root}/v/list.txt")
        assert sorted(Path(video.path).name for video in listing.videos) == ["a.mp4", "b.mp4", "c.dat", "d.mp4"]
        (problem,) = listing.problems
        assert problem.stage == "list"
        assert "gone.mp4" in problem.video
        assert "does not exist" in problem.reason


def test_what_is_wrong_with_one_pattern_does_not_lose_the_others(tmp_path: Path) -> None:
    _touch(tmp_path, "a.mp4", "empty/readme.md")
    (tmp_path / "list.txt").write_bytes(b"caf\xe9.mp4\n")
    patterns = ["nothing/*.mp4", "gone.mp4", "empty", "list.txt", "a.mp4"]
    listing = list_videos([*(str(tmp_path / pattern) for pattern in patterns), "nowhere://bucket/x.mp4"])
    assert [video.name for video in listing.videos] == ["a.mp4"]
    reasons = [problem.reason for problem in listing.problems]
    assert [
        next(word for word in ("nothing there", "does not exist", "cannot be listed") if word in reason)
        for reason in reasons
    ] == ["cannot be listed", "does not exist", "nothing there", "cannot be listed", "cannot be listed"]


def test_a_name_that_is_not_utf8_is_a_problem_with_a_readable_name(tmp_path: Path) -> None:
    Path(f"{tmp_path}/caf\udce9.mp4").write_bytes(b"x")
    _touch(tmp_path, "a.mp4")
    listing = list_videos(str(tmp_path))
    assert [video.name for video in listing.videos] == ["a.mp4"]
    (problem,) = listing.problems
    assert "UTF-8" in problem.reason
    assert problem.video.encode().endswith(b"caf\\udce9.mp4")


def test_object_storage_keeps_its_options_and_the_odd_letters_of_a_key() -> None:
    filesystem, path = resolve_filesystem("s3://bucket/a b/100%/it's?.mp4?region=eu-west-1&scheme=http")
    assert path == "bucket/a b/100%/it's?.mp4"
    assert filesystem.type_name == "s3"
    assert Video("s3://bucket/a.mp4").id != Video("s3://other/a.mp4").id


def test_credentials_in_a_list_open_its_videos_and_are_no_part_of_their_paths(
    s3_server: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(VARIABLE, "")
    Folder(s3_server.uri("listed")).write("a.mp4", b"x")
    given = s3_server.uri("listed/a.mp4").replace("s3://", "s3://CANARYKEY:CANARY/SECRET@")
    (tmp_path / "list.txt").write_text(f"{given}\n")
    s3_server.users()
    patterns = [str(tmp_path / "list.txt"), str(tmp_path / "nowhere.txt")]
    keep_credentials_of_lists(patterns)
    listing = list_videos(patterns[:1])
    assert s3_server.users() == {"CANARYKEY"}
    assert [video.path for video in listing.videos] == [given.replace("CANARYKEY:CANARY/SECRET", "REDACTED")]
    keep_credentials([given.replace("SECRET", "OTHER")])
    with pytest.raises(JobError, match="is given with two different credentials"):
        keep_credentials_of_lists(patterns)


def test_a_glob_of_a_bucket_with_credentials_is_searched(s3_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, "")
    Folder(s3_server.uri("globbed")).write("b/a.mp4", b"x")
    (pattern,) = keep_credentials([s3_server.uri("globbed/**/*.mp4").replace("s3://", "s3://KEY:SECRET@")])
    listing = list_videos(pattern)
    assert not listing.problems
    assert [video.path for video in listing.videos] == [pattern.replace("**/*", "b/a")]
