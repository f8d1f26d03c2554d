"""What is inside a trained network, as functions that return pandas data frames; :mod:`.draw` shows each by one call.

==================  =======================================================================================
``answers``         logits of paths and their labels, which most of the others start from
``subnetworks``     error and cost of named or sampled paths, with and without re-estimated batch-norm
``components``      leave-one-out of an ensemble's components; shared against separate weights
``agreement``       disagreement, Q-statistic, double faults of pairs of paths; diversity of a set
``calibration``     calibration error, fitted temperature and reliability of each path
``temperature``     the same of one path's logits, without tables
``importance``      what a path's error gains when an operand is dropped
``depths``          exact number of paths of each depth
``loops``           loops that images take in gated networks, and how often each gate lets pass
``galleries``       easy and hard images
``confusion``       which classes a path takes for which, errors by class, the pairs that are confused most
``grad_cam``        where in an image a path looks for a class
``similarity``      similarity of channels, eigenvalues, effective dimension
``finished_run``    a run's network, images and statistics
``scoring``, ``tables``, ``recalibrate``    the path table of a run
==================  =======================================================================================
"""
