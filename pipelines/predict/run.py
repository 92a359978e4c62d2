"""Bulk prediction of a prepared dataset: plan (on the driver) → decode → predict → write."""

from collections.abc import Iterator, Sequence
from dataclasses import replace

from pipelines.files import Folder
from pipelines.inference.predictor_spec import PredictorSpec
from pipelines.inference.stream import Resources, Stages, run_stages
from pipelines.predict.decode import DecodeStage
from pipelines.predict.plan import Unit
from pipelines.predict.write import UnitDone, WriteStage


def predict_units(
    units: Sequence[Unit], data: Folder, out: Folder, spec: PredictorSpec, resources: Resources
) -> Iterator[UnitDone]:
    """Predicts the units, and yields an event for each whose file is written.

    A unit whose worker or node dies is done again elsewhere. Its file has one name and one content, so nothing is
    written twice.

    Args:
        units: the work, as `plan.left_to_do` returns it.
        data: folder of the prepared dataset.
        out: folder of the run.
        spec: of the predictor.
        resources: of the cluster; more predictors than units are not started.

    Raises:
        ray.exceptions.RayError: an error that is not the fault of a single video; written files stay.
    """
    if not units:
        return
    least, most = resources.actors
    stages = Stages(
        plan=None,  # the units are planned already: the manifest says what there is
        decode=DecodeStage(data, spec.protocol),
        predict=spec,
        write=WriteStage(out),
    )
    actors = (min(least, len(units)), min(most or len(units), len(units)))
    yield from run_stages(units, stages, replace(resources, actors=actors), [UnitDone])
