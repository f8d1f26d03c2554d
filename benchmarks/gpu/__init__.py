"""Measurements on a GPU, in nine minutes: ``make gpu`` (:mod:`benchmarks.gpu.__main__`)."""
