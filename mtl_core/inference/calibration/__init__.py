"""Calibration: from the out-of-fold tracks of a training to the numbers of its final model."""
