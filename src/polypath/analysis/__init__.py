"""Analyses of a trained network: functions that return pandas data frames. :mod:`.plots.frames` has a function that
draws each.

==================  =======================================================================================
``answers``         logits of paths and their labels, the input of most other analyses
``subnetworks``     error and cost of named or sampled paths, with and without recalibrated batch-norm
``components``      leave-one-out of an ensemble's components; shared against separate weights
``agreement``       disagreement, Q-statistic, double faults of pairs of paths; diversity of a set
``calibration``     calibration error, fitted temperature and reliability of each path
``temperature``     calibration error and fitted temperature of one path's logits
``importance``      increase of a path's error when an operand is dropped
``depths``          exact number of paths of each depth
``loops``           loops that images take in gated networks, and the rate of each gate
``galleries``       easy and hard images
``confusion``       confusion matrices, errors by class, the most confused pairs of classes
``grad_cam``        where in an image a path looks for a class
``similarity``      similarity of channels, eigenvalues, effective dimension
``finished_run``    a run's network, images and statistics
``scoring``, ``tables``, ``recalibrate``    the path table of a run
==================  =======================================================================================
"""
