"""Running a model on calibration data and watching what its consumers read."""

from secateur.calibration.consumers import Reader, Skipped, Survey, survey, survey_reached
from secateur.calibration.layouts import Layout
from secateur.calibration.lockstep import Call, Output, Recording, record, run_in_lockstep
from secateur.calibration.moments import InputMoments, check_finite, collect_moments, damping, warn_few_rows, watch
from secateur.calibration.runs import Calibration, CalibrationData, as_calibration, evaluating

__all__ = [
    "Calibration",
    "CalibrationData",
    "Call",
    "InputMoments",
    "Layout",
    "Output",
    "Reader",
    "Recording",
    "Skipped",
    "Survey",
    "as_calibration",
    "check_finite",
    "collect_moments",
    "damping",
    "evaluating",
    "record",
    "run_in_lockstep",
    "survey",
    "survey_reached",
    "warn_few_rows",
    "watch",
]
