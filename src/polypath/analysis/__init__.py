"""Analyses of a trained network: functions that return pandas data frames. For each frame, :mod:`.plots.frames` has a
function that draws it.

==================  =======================================================================================
``answers``         logits of paths and the images' labels, the input of most other analyses
``subnetworks``     error and cost of named or sampled paths, with and without recalibrated batch-norm
``components``      ensembles without each component; shared compared with separate weights
``agreement``       disagreement, Q-statistic and double faults of pairs of paths; diversity of a set of paths
``calibration``     calibration error, fitted temperature and reliability of each path
``temperature``     calibration error and fitted temperature of one path's logits
``importance``      increase of a path's error when an operand is dropped
``depths``          exact number of paths of each depth
``loops``           number of loops that each image takes in a gated network, and the rate of each gate
``galleries``       easy and hard images
``confusion``       confusion matrices, errors by class, the most confused pairs of classes
``grad_cam``        heat maps of the image regions that support a class
``similarity``      similarity of channels, eigenvalues and effective dimension of their covariance
``flips``           predictions that change from step to step
``deadline``        share of requests that a policy answers correctly and in time
``gate_rates``      correction of gates to their target rate
``finished_run``    a run's network, images and statistics
``scoring``         error of each path
``tables``          the path table of a run
==================  =======================================================================================
"""
