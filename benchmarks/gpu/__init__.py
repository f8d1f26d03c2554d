"""What a GPU can show, in nine minutes: ``make gpu`` (:mod:`benchmarks.gpu.__main__`)."""
