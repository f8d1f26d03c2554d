from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from contracts.gated import undecided
from contracts.small import small_net, small_spec
from polypath.core.execute import Trace, loops_run
from polypath.deploy.stepwise import Stepwise
from polypath.deploy.stepwise_cut import cut
from polypath.deploy.stepwise_write import write_stepwise

GATED = ["dr_resnet16_cifar", "aig_resnet110_cifar", "dr_mobilenetv2"]


@pytest.mark.parametrize("name", GATED)
def test_step_by_step_in_eager_is_the_network_to_the_bit(name):
    net, x = undecided(name)
    trace = Trace()
    with torch.inference_mode():
        wanted = net(x, trace=trace)
    steps = Stepwise.of(net)
    logits, loops = steps.run(x.numpy())
    assert (loops == loops_run(trace).numpy()).all()
    assert len(set(loops.tolist())) > 1  # samples differ, or nothing was tested
    np.testing.assert_allclose(logits, wanted.numpy(), rtol=1e-5, atol=1e-5)
    forced, all_loops = steps.run(x.numpy(), force_open=True)
    assert (all_loops >= loops).all()
    assert not np.allclose(forced, logits, atol=1e-3)
    alone = np.concatenate([steps.run(x.numpy()[i : i + 1])[0] for i in range(len(x))])
    np.testing.assert_allclose(alone, logits, rtol=1e-3, atol=1e-4)


def test_samples_that_stop_are_really_skipped():
    net, x = undecided("dr_resnet16_cifar")
    steps, sizes = Stepwise.of(net), {}
    for file, run in list(steps.runs.items()):

        def counted(*values, file=file, run=run):
            sizes[file] = len(values[0])
            return run(*values)

        steps.runs[file] = counted
    _, loops = steps.run(x.numpy())
    bodies = {file: n for file, n in sizes.items() if ".loops." in file and "gate" not in file}
    assert sum(bodies.values()) == loops.sum()
    assert min(bodies.values()) < len(x)


def test_a_gate_is_a_graph_of_its_own_only_where_a_switch_makes_what_it_reads():
    spec = replace(small_spec("dr_resnet_small"), blocks=(1, 3, 2))  # the second group has two switches in a row
    stages, modules = cut(spec.build(seed=0).eval())
    for before, stage in zip([None, *stages], stages, strict=False):
        for i, loop in enumerate(stage.loops):
            behind_switch = i == 0 and before is not None and before.piece is None
            assert (loop.gate is not None) == behind_switch
            assert (loop.logits is None) == behind_switch
    alone = [name for name in modules if name.endswith(".gate")]
    assert len(alone) == sum(loop.gate is not None for stage in stages for loop in stage.loops) > 0


def test_a_network_without_gates_is_refused():
    with pytest.raises(ValueError, match="no gates"):
        cut(small_net("crescendonet_32").eval())


@pytest.mark.slow
def test_written_it_runs_in_onnx_runtime(tmp_path):
    pytest.importorskip("onnxruntime")
    net, x = undecided("dr_resnet16_cifar")
    write_stepwise(net, tmp_path / "steps", size=24)
    steps = Stepwise.open(tmp_path / "steps", threads=1)
    logits, loops = steps.run(x.numpy())
    wanted, same = Stepwise.of(net).run(x.numpy())
    assert (loops == same).all()
    np.testing.assert_allclose(logits, wanted, rtol=1e-4, atol=1e-4)
    file = tmp_path / "steps" / "end.onnx"
    file.write_bytes(file.read_bytes()[:-1] + b"?")
    with pytest.raises(ValueError, match=r"end\.onnx is damaged"):
        Stepwise.open(tmp_path / "steps")
