"""Measurements on a GPU that take nine minutes: ``make gpu`` (:mod:`benchmarks.gpu.__main__`)."""
