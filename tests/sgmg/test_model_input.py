import math

import pytest
import torch
from jaxtyping import TypeCheckError
from torch import Tensor

from sgmg.batch import TextFeatures, VideoFeatures
from sgmg.config import SgMgConfig
from sgmg.model import SgMg

SIDE = 132  # the fewest pixels a side that the model does not pad up
Question = tuple[VideoFeatures, TextFeatures, Tensor, Tensor]


@pytest.fixture(scope="module")
def model() -> SgMg:
    return SgMg(SgMgConfig.preset("tiny")).eval()


def clips(b: int = 1, t: int = 1, height: int = SIDE, width: int = SIDE) -> tuple[Tensor, Tensor, Tensor]:
    """Frames, padding, sizes of b clips of equal size."""
    return (
        torch.randn(b, t, 3, height, width),
        torch.zeros(b, height, width, dtype=torch.bool),
        torch.tensor([[height, width]] * b),
    )


@pytest.fixture(scope="module")
def question(model: SgMg) -> Question:
    """Two clips and two expressions, in the order `segment` takes them."""
    frames, padding, sizes = clips(b=2)
    token_ids = torch.randint(4, 2000, (2, 4))
    text = model.encode_text(token_ids, torch.zeros_like(token_ids, dtype=torch.bool))
    return model.encode_video(frames, padding), text, sizes, torch.tensor([0, 1])


def holding(value: float) -> Tensor:
    frames = torch.zeros(2, 3, 3, 8, 8)
    frames[1, 2, 0, 4, 4] = value
    return frames


BAD_CLIPS = [
    pytest.param(torch.zeros(2, 0, 3, 8, 8), r"shape \(2, 0, 3, 8, 8\)", id="no frame"),
    pytest.param(torch.zeros(0, 3, 3, 8, 8), r"shape \(0, 3, 3, 8, 8\)", id="no clip"),
    pytest.param(torch.zeros(2, 3, 3, 8, 8, dtype=torch.int32), r"torch\.int32", id="whole numbers that are no bytes"),
    pytest.param(torch.zeros(2, 3, 4, 8, 8), r"shape \(2, 3, 4, 8, 8\)", id="four channels"),
    pytest.param(torch.zeros(3, 3, 8, 8), r"shape \(3, 3, 8, 8\)", id="a clip that is not in a batch"),
    pytest.param(holding(math.nan), "Frame 2 of clip 1 holds nan", id="a pixel that is no number"),
    pytest.param(holding(math.inf), "Frame 2 of clip 1 holds inf", id="an infinite pixel"),
]


@pytest.mark.usefixtures("as_users_run_it")
@pytest.mark.parametrize(("frames", "message"), BAD_CLIPS)
def test_frames_are_refused_by_what_is_wrong_with_them(model: SgMg, frames: Tensor, message: str) -> None:
    padding = torch.zeros(len(frames), *frames.shape[-2:], dtype=torch.bool)
    with pytest.raises(ValueError, match=message):
        model.encode_video(frames, padding)


@pytest.mark.usefixtures("as_users_run_it")
@pytest.mark.parametrize(
    ("padding", "message"),
    [
        pytest.param(
            torch.zeros(2, 8, 9, dtype=torch.bool), r"\(2, 8, 9\); these frames need bool of \(2, 8, 8\)", id="wide"
        ),
        pytest.param(torch.zeros(2, 8, 8), r"Padding is torch\.float32", id="not boolean"),
    ],
)
def test_padding_that_does_not_fit_is_refused_by_what_it_is(model: SgMg, padding: Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        model.encode_video(torch.zeros(2, 3, 3, 8, 8), padding)


@pytest.mark.usefixtures("as_users_run_it")
@pytest.mark.parametrize("asked", [[0, 3], [-1, 0], [1], [0, 0, 0]])
def test_an_asked_frame_that_is_not_there_is_named(model: SgMg, asked: list[int]) -> None:
    frames, padding, _ = clips(b=2, t=3, height=8, width=8)
    with pytest.raises(ValueError, match=rf"target_frame=\[{', '.join(map(str, asked))}\] must name one of 3 frames"):
        model.encode_video(frames, padding, torch.tensor(asked))


@pytest.mark.usefixtures("as_users_run_it")
@pytest.mark.parametrize("clip_of", [[0, 2], [-1, 0]])
def test_a_clip_that_is_not_there_is_named(model: SgMg, question: Question, clip_of: list[int]) -> None:
    video, text, sizes, _ = question
    with pytest.raises(ValueError, match=rf"clip_of=\[{clip_of[0]}, {clip_of[1]}\] .* the 2 clips are 0 to 1"):
        model.segment(video, text, sizes, torch.tensor(clip_of))


@pytest.mark.usefixtures("as_users_run_it")
def test_a_question_of_wrong_shape_is_refused_with_the_shape(model: SgMg, question: Question) -> None:
    video, text, sizes, clip_of = question
    with pytest.raises(ValueError, match=r"clip_of has shape \(1,\) for 2 expressions"):
        model.segment(video, text, sizes, clip_of[:1])
    for bad, shape in [(sizes[:1], r"\(1, 2\)"), (sizes[:, :1], r"\(2, 1\)"), (sizes[0], r"\(2,\)")]:
        with pytest.raises(ValueError, match=rf"sizes has shape {shape}; 2 clips need \(2, 2\)"):
            model.segment(video, text, bad, clip_of)


def test_the_shape_checks_of_the_tests_refuse_whole_numbers_too(model: SgMg) -> None:
    with pytest.raises(TypeCheckError, match="frames"):
        model.encode_video(torch.zeros(1, 1, 3, 8, 8, dtype=torch.int32), torch.zeros(1, 8, 8, dtype=torch.bool))


@pytest.mark.usefixtures("as_users_run_it")
def test_numbers_of_the_wrong_kind_are_named_with_the_cure(model: SgMg, question: Question) -> None:
    frames, padding, _ = clips(b=2)
    with pytest.raises(ValueError, match=r"Frames are torch\.float64, the weights torch\.float32.*frames\.to"):
        model.encode_video(frames.double(), padding)
    with pytest.raises(ValueError, match="whole numbers"):
        model.encode_video(frames, padding, torch.tensor([0.0, 0.0]))
    video, text, sizes, clip_of = question
    with pytest.raises(ValueError, match=r"clip_of=\[0\.0, "):
        model.segment(video, text, sizes, clip_of.float())


@pytest.mark.usefixtures("as_users_run_it")
@pytest.mark.parametrize("query", [[0], [0, 5], [-1, 0], [[0], [7]], [[[0]], [[1]]]])
def test_a_query_that_is_not_there_is_named(model: SgMg, question: Question, query: list) -> None:
    out = model.segment(*question)
    with pytest.raises(ValueError, match=r"for each of 2 expressions, one or several of queries 0 to 4"):
        model.refine(question[0], out, torch.tensor(query))


def test_a_layer_that_is_not_there_is_named(model: SgMg, question: Question) -> None:
    out = model.segment(*question)
    with pytest.raises(ValueError, match=r"layer=1 is not among the 1"):
        model.refine(question[0], out, torch.tensor([0, 0]), layer=1)


@pytest.mark.usefixtures("as_users_run_it")
def test_an_unknown_choice_of_layers_prints_the_choices(model: SgMg, question: Question) -> None:
    with pytest.raises(ValueError, match=r"'first' is unknown\. Choose 'last' or 'all'"):
        model.segment(*question, layers="first")  # pyright: ignore[reportArgumentType]


def test_no_expression_at_all_is_said(model: SgMg) -> None:
    nothing = torch.zeros(0, 4, dtype=torch.int64)
    with pytest.raises(ValueError, match=r"\(0, 4\).*at least one"):
        model.encode_text(nothing, nothing.bool())
